import datetime
import json

import numpy as np
import pytest

from safeladder.data.files import PlacedRow
from safeladder.data.rows import Columns, RowFormat, check_references, to_prompt
from safeladder.data.sources import build_source, prompts_from_iterable
from safeladder.errors import DataError
from safeladder.types import Media, Message, Prompt

FORM = RowFormat("set")


def one(form=FORM, **cells):
    return to_prompt(PlacedRow("data.jsonl:3", cells), 2, form)


def test_a_plain_row():
    prompt = one(prompt="2 + 2?", answer="4", level=3)
    assert prompt == Prompt(id="set:2", messages=(Message("user", "2 + 2?"),), reference="4",
                            source="set", task="general", meta={"level": 3})


def test_columns_of_trl_and_of_benchmarks():
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    prompt = one(prompt=chat, ground_truth=[1, 2], id=7, task="math", source="here")
    assert [m.to_dict() for m in prompt.messages] == chat
    assert (prompt.id, prompt.reference, prompt.task, prompt.source) == (
        "set:7", [1, 2], "math", "here")
    assert one(question="q?", answer="a").messages == (Message("user", "q?"),)
    # The final answer is compared with; the worked solution stays at hand.
    both = one(problem="p", answer="5", solution="2 + 3 = 5")
    assert (both.reference, both.meta) == ("5", {"solution": "2 + 3 = 5"})
    # What the columns do not mean stays in meta, under its own name.
    assert one(prompt="p", question="other").meta == {"question": "other"}


def test_named_columns_win_and_must_be_there():
    form = RowFormat("set", Columns(prompt="text", reference="gold", drop=("answer",)), "math")
    prompt = one(form, text="t", gold=0, answer="x", prompt="no", task="other")
    assert (prompt.messages[0].text, prompt.reference, prompt.task) == ("t", 0, "math")
    assert prompt.meta == {"prompt": "no"}
    with pytest.raises(DataError, match=r"data\.jsonl:3: no reference; expected column 'gold' "
                                        r"\(found: text\); columns\.reference"):
        one(form, text="t")


def test_a_missing_prompt_names_file_line_and_what_was_found():
    with pytest.raises(DataError, match=r"^data\.jsonl:3: no prompt; expected one of the columns "
                                        r"prompt, messages, question, problem \(found: promt\)"):
        one(promt="x")
    with pytest.raises(DataError, match="no prompt"):
        one(prompt=float("nan"))
    with pytest.raises(DataError, match="the prompt is empty"):
        one(prompt="  ")


@pytest.mark.parametrize(("prompt", "problem"), [
    ([], "text or a list of messages"), (5, "text or a list of messages"),
    (["hi"], "role and content"), ([{"role": "user"}], "role and content"),
    ([{"role": "boss", "content": "x"}], "unknown role 'boss'"),
    ([{"role": "user", "content": [{"type": "sound"}]}], "unknown message part"),
])
def test_messages_that_are_none(prompt, problem):
    with pytest.raises(DataError, match=f"data.jsonl:3: .*{problem}"):
        one(prompt=prompt)


def test_text_parts_become_one_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert one(prompt=[{"role": "user", "content": parts}]).messages == (Message("user", "ab"),)


def test_demonstrations_are_kept_or_dropped():
    asked, said = Message("user", "q"), Message("assistant", "a")
    chat = [asked.to_dict(), said.to_dict()]
    for cells in ({"messages": chat}, {"prompt": "q", "completion": "a"},
                  {"prompt": [chat[0]], "completion": [chat[1]]}):
        assert one(**cells).messages == (asked, said)
        assert one(RowFormat("set", keep_demonstration=False), **cells).messages == (asked,)
    with pytest.raises(DataError, match="nothing but the assistant"):
        one(RowFormat("set", keep_demonstration=False), messages=[chat[1]])
    with pytest.raises(DataError, match="completion must be"):
        one(prompt="q", completion=[chat[0], chat[1]])


def test_system_prompt_for_rows_without_one():
    form = RowFormat("set", system_prompt="Think first.")
    assert one(form, prompt="q").messages == (
        Message("system", "Think first."), Message("user", "q"))
    own = [{"role": "system", "content": "Own."}, {"role": "user", "content": "q"}]
    assert one(form, prompt=own).messages[0].text == "Own."


def test_meta_is_json():
    prompt = one(prompt="q", a=np.float32(0.5), b=np.array([1, 2]), c=(1, {"x"}), d=float("nan"),
                 e=datetime.date(2026, 1, 2), f={3: None})
    assert prompt.meta == {"a": 0.5, "b": [1, 2], "c": [1, ["x"]], "d": None, "e": "2026-01-02",
                           "f": {"3": None}}
    json.dumps(prompt.meta)
    with pytest.raises(DataError, match=r"column 'sound' holds a bytes.*columns\.drop"):
        one(prompt="q", sound=b"\x00")


VERL = {
    "data_source": "kk_logic", "ability": "logic", "extra_info": {"index": 4, "split": "train"},
    "prompt": [{"role": "user", "content": "Who?"}],
    "reward_model": {"style": "rule", "ground_truth": {"solution": "Ann"}},
}


def test_verl_schema():
    prompt = one(**VERL)
    assert prompt == Prompt(
        id="set:2", messages=(Message("user", "Who?"),), reference={"solution": "Ann"},
        source="kk_logic", task="logic", meta={"extra_info": {"index": 4, "split": "train"}})
    with pytest.raises(DataError, match="reward_model has no ground_truth"):
        one(**{**VERL, "reward_model": {"style": "rule"}})
    judged = one(**{**VERL, "reward_model": {"style": "model", "ground_truth": None}})
    assert judged.reference is None


CHATML = ("<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\nWho?\n<|im_end|>\n"
          "<|im_start|>assistant\n<think>")


def test_a_prompt_that_went_through_a_template_is_rendered():
    prompt = one(**{**VERL, "prompt": [{"role": "user", "content": CHATML}]})
    assert prompt.rendered == CHATML
    assert prompt.messages == (Message("system", "Think."), Message("user", "Who?"))
    assert one(prompt=CHATML).rendered == CHATML
    never = one(RowFormat("set", rendered="never"), prompt=CHATML)
    assert never.rendered is None and never.messages == (Message("user", CHATML),)
    always = one(RowFormat("set", rendered="always"), prompt="Q: 2 + 2?\nA:")
    assert always.rendered == "Q: 2 + 2?\nA:"
    with pytest.raises(DataError, match="already went through a chat template"):
        one(RowFormat("set", system_prompt="x"), prompt=CHATML)
    assert one(prompt=CHATML, completion="ok</think>").meta == {"completion": "ok</think>"}


def test_references_are_there_for_all_rows_of_a_task_or_for_none():
    rows = [one(prompt="a", answer="1", task="math"), one(prompt="b", task="safety"),
            one(prompt="c", answer="2", task="math")]
    placed = [(f"f:{i}", row) for i, row in enumerate(rows, 1)]
    check_references(placed)
    with pytest.raises(DataError, match=r"f:4: no reference .*task 'math'.*reference: optional"):
        check_references([*placed, ("f:4", one(prompt="d", task="math"))])


def picture(seed):
    return np.random.default_rng(seed).integers(0, 255, (2, 3, 3)).astype(np.uint8)


RED, BLUE = picture(1), picture(2)


def test_images_without_places_lead_the_first_user_message():
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "What is it?"}]
    prompt = one(prompt=chat, images=[RED, BLUE])
    assert prompt.messages[1].content == (
        {"type": "image"}, {"type": "image"}, {"type": "text", "text": "What is it?"})
    assert prompt.media == (Media(pixels=RED), Media(pixels=BLUE))
    assert one(prompt="q", image=RED).media == (Media(pixels=RED),)
    with pytest.raises(DataError, match="no user message"):
        one(prompt=chat[:1], image=RED)


def test_image_marks_in_the_text_become_places():
    prompt = one(problem="<image>left, <image> right", images=[RED, BLUE])
    assert prompt.messages[0].content == (
        {"type": "image"}, {"type": "text", "text": "left, "}, {"type": "image"},
        {"type": "text", "text": " right"})
    # Without images, the mark is just text.
    assert one(prompt="the tag <image>").messages == (Message("user", "the tag <image>"),)


def test_image_parts_take_their_own_image_or_the_next_of_the_column():
    parts = [{"type": "image", "image": BLUE}, {"type": "image"}, {"type": "text", "text": "?"}]
    prompt = one(prompt=[{"role": "user", "content": parts}], images=[RED])
    assert prompt.media == (Media(pixels=BLUE), Media(pixels=RED))
    assert prompt.messages[0].content == (
        {"type": "image"}, {"type": "image"}, {"type": "text", "text": "?"})


def test_images_and_their_places_must_agree():
    with pytest.raises(DataError, match=r"data.jsonl:3: more image places .* than images \(1\)"):
        one(prompt="<image><image>", images=[RED])
    with pytest.raises(DataError, match="3 images, but only 1 image places"):
        one(prompt="<image>?", images=[RED, RED, BLUE])


def test_python_iterables():
    rows = prompts_from_iterable(({"prompt": str(i)} for i in range(3)), "mine")
    assert [(p.id, p.messages[0].text) for p in rows] == [
        ("mine:0", "0"), ("mine:1", "1"), ("mine:2", "2")]
    own = [Prompt("a", (Message("user", "x"),)), Prompt("b", (Message("user", "y"),))]
    assert prompts_from_iterable(own, "mine") == own
    with pytest.raises(DataError, match="both Prompts and rows"):
        prompts_from_iterable([own[0], {"prompt": "x"}], "mine")
    with pytest.raises(DataError, match="mine, row 1: expected a mapping"):
        prompts_from_iterable([{"prompt": "x"}, own[0]], "mine")


def endless(start):
    while True:
        yield {"prompt": f"number {start}"}
        start += 1


def test_a_python_function_as_source():
    rows = build_source({"type": "python", "target": f"{__name__}:endless", "args": {"start": 5},
                         "limit": 2})
    assert [p.messages[0].text for p in rows] == ["number 5", "number 6"]
