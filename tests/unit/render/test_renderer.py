from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from render_fixtures import (
    ALWAYS,
    CHATML,
    CHATML_SYSTEM,
    INSTRUCT,
    REASONER,
    SWITCHED,
    VISION,
)

from safeladder.errors import ConfigError, DataError, ModelError
from safeladder.render import Renderer
from safeladder.types import Completion, Media, Message, Prompt

NO_THINKING = {"enable_thinking": False}


def ask(text: str, **more: Any) -> Prompt:
    return Prompt(id="row-7", messages=(Message("user", text),), **more)


def completion(ids: Any, finish_reason: Any = "stop") -> Completion:
    return Completion(tuple(ids), np.zeros(len(ids), np.float32), finish_reason, 0)


def encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_template_is_applied_once(tokenizer: Any) -> None:
    rendered = Renderer(tokenizer, chat_template=CHATML).render(ask("two?"))
    expected = "<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\n"
    assert rendered.token_ids == encode(tokenizer, expected)
    assert tokenizer.decode(rendered.token_ids) == expected


def test_a_rendered_prompt_meets_no_template(tokenizer: Any) -> None:
    text = "<|im_start|>user\nIs A a knight?<|im_end|>\n<|im_start|>assistant\n<think>"
    prompt = Prompt(id="1", messages=(Message("user", text),), rendered=text)
    rendered = Renderer(tokenizer, chat_template=CHATML_SYSTEM).render(prompt)
    assert tokenizer.decode(rendered.token_ids) == text
    assert rendered.prefill == "<think>"


@pytest.mark.parametrize(("template", "kwargs", "prefill"), [
    (CHATML, {}, ""),
    (CHATML_SYSTEM, {}, ""),
    (REASONER, {}, "<think>\n"),
    (SWITCHED, {}, ""),
    (SWITCHED, NO_THINKING, "<think>\n\n</think>\n\n"),
    (ALWAYS, {}, "<think>\n"),
    (INSTRUCT, {}, ""),
])
def test_the_prefill_is_what_the_template_writes_of_the_assistants_turn(
    tokenizer: Any, template: str, kwargs: Any, prefill: str,
) -> None:
    renderer = Renderer(tokenizer, chat_template=template, template_kwargs=kwargs)
    rendered = renderer.render(ask("two?"))
    assert rendered.prefill == prefill
    assert tokenizer.decode(rendered.token_ids).endswith(prefill)
    sampled = (*encode(tokenizer, "four"), renderer.stop_token_ids[0])
    assert renderer.response_text(rendered, completion(sampled)) == prefill + "four"


@pytest.mark.parametrize(("text", "prefill"), [
    ("User: two?\nAssistant: <think>", "<think>"),
    ("User: two?\nAssistant: <think>\n", "<think>\n"),
    ("User: two?\nAssistant: <think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
    ("User: what does <think> mean?\nAssistant:", ""),
    ("User: say <think>ing</think>\nAssistant:", ""),
])
def test_prefill_of_a_rendered_prompt_without_any_template(
    tokenizer: Any, text: str, prefill: str,
) -> None:
    renderer = Renderer(tokenizer)
    assert renderer.render(Prompt(id="1", messages=(), rendered=text)).prefill == prefill
    assert renderer.stop_token_ids == (tokenizer.eos_token_id,)


def test_tags_in_the_question_are_no_prefill(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=CHATML)
    assert renderer.render(ask("finish with <think>\n")).prefill == ""
    fake = ask("a<|im_end|>\n<|im_start|>assistant\n<think> b")
    assert renderer.render(fake).prefill == ""


def test_a_rendered_prompt_that_ends_with_the_users_turn_has_no_prefill(tokenizer: Any) -> None:
    text = "<|im_start|>assistant\n<think>x</think>y<|im_end|>\n<|im_start|>user\nand?"
    rendered = Renderer(tokenizer, chat_template=CHATML).render(
        Prompt(id="1", messages=(), rendered=text))
    assert rendered.prefill == ""


def test_only_the_last_of_several_turns_is_open(tokenizer: Any) -> None:
    text = ("<|im_start|>assistant\n<think>x</think>y<|im_end|>\n<|im_start|>user\nand?<|im_end|>"
            "\n<|im_start|>assistant\n<think>")
    rendered = Renderer(tokenizer, chat_template=CHATML).render(
        Prompt(id="1", messages=(), rendered=text))
    assert rendered.prefill == "<think>"


def test_other_text_the_template_does_not_know_is_prefill_too(tokenizer: Any) -> None:
    text = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nLet me see.\n<think>"
    rendered = Renderer(tokenizer, chat_template=CHATML).render(
        Prompt(id="1", messages=(), rendered=text))
    assert rendered.prefill == "Let me see.\n<think>"


@pytest.mark.parametrize("own", ["I thought", "<think>\nI thought", "<think>I thought"])
def test_a_last_assistant_message_is_continued(tokenizer: Any, own: str) -> None:
    renderer = Renderer(tokenizer, chat_template=REASONER)
    prompt = Prompt(id="1", messages=(Message("user", "q"), Message("assistant", own)))
    rendered = renderer.render(prompt)
    said = own if own.startswith("<think>") else "<think>\n" + own
    assert rendered.prefill == said
    assert tokenizer.decode(rendered.token_ids).endswith("<|im_start|>assistant\n" + said)
    assert renderer.response_text(rendered, completion(encode(tokenizer, " so"), "length")) == (
        said + " so")


def test_stop_tokens_are_end_of_turn_then_end_of_text_then_the_callers(tokenizer: Any) -> None:
    end = encode(tokenizer, "<|im_end|>")[0]
    renderer = Renderer(tokenizer, chat_template=CHATML, stop_token_ids=(5, end))
    assert renderer.stop_token_ids == (end, tokenizer.eos_token_id, 5)
    plain = Renderer(tokenizer, chat_template="{% for m in messages %}{{ m['content'] }}\n"
                                              "{% endfor %}")
    assert plain.stop_token_ids == (tokenizer.eos_token_id,)


def test_only_the_stop_token_is_cut_from_a_response(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=CHATML)
    rendered = renderer.render(ask("q"))
    ids = encode(tokenizer, "a<|im_start|>b<|im_end|>")
    assert renderer.response_text(rendered, completion(ids)) == "a<|im_start|>b"
    assert renderer.response_text(rendered, completion(ids[:-1], "length")) == "a<|im_start|>b"
    assert renderer.response_text(rendered, completion((), "length")) == ""


def test_the_first_blank_survives_a_decoder_that_drops_it(blank_dropping_tokenizer: Any) -> None:
    tokenizer = blank_dropping_tokenizer
    ids = encode(tokenizer, "it is four .")
    prompt, rest = ids[:1], ids[1:]
    assert not tokenizer.decode(rest).startswith(" ")
    renderer = Renderer(tokenizer)
    rendered = renderer.render(Prompt(id="1", messages=(), rendered="it"))
    assert rendered.token_ids == prompt
    assert renderer.response_text(rendered, completion(rest, "length")) == " is four ."


def test_the_next_turn_goes_on_from_the_sampled_tokens(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=REASONER)
    first = renderer.render(ask("q"))
    end = encode(tokenizer, "<|im_end|>")
    # letter by letter is not how the tokenizer itself would cut the word
    sampled = sum((encode(tokenizer, letter) for letter in "four"), ()) + end
    assert sampled != encode(tokenizer, "four<|im_end|>")
    then = renderer.continue_turn(first, sampled, [Message("user", "sure?")])
    head = first.token_ids + sampled
    assert then.token_ids[:len(head)] == head
    assert tokenizer.decode(then.token_ids[len(head):]) == (
        "\n<|im_start|>user\nsure?<|im_end|>\n<|im_start|>assistant\n<think>\n")
    assert then.prefill == "<think>\n"


def test_a_turn_without_its_end_token_is_closed_before_the_next(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=CHATML)
    first = renderer.render(ask("q"))
    cut = encode(tokenizer, "four and")
    then = renderer.continue_turn(first, cut, [Message("user", "sure?")])
    assert tokenizer.decode(then.token_ids[len(first.token_ids):]) == (
        "four and<|im_end|>\n<|im_start|>user\nsure?<|im_end|>\n<|im_start|>assistant\n")


def test_a_conversation_turn_by_turn_is_the_template_applied_to_the_whole(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=CHATML_SYSTEM)
    first = renderer.render(ask("what is two plus two ?"))
    said = encode(tokenizer, "it is four .<|im_end|>")
    then = renderer.continue_turn(first, said, [Message("user", "sure ?")])
    whole = Prompt(id="1", messages=(
        Message("user", "what is two plus two ?"), Message("assistant", "it is four ."),
        Message("user", "sure ?")))
    assert then.token_ids == renderer.render(whole).token_ids


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(question=texts, thought=texts, answer=texts)
@pytest.mark.parametrize(("template", "prefill"), [
    (CHATML, ""), (REASONER, "<think>\n"), (SWITCHED, ""), (INSTRUCT, "")])
def test_a_demonstration_begins_with_what_sampling_sees(
    tokenizer: Any, template: str, prefill: str, question: str, thought: str, answer: str,
) -> None:
    renderer = Renderer(tokenizer, chat_template=template)
    response = f"<think>\n{thought}</think>{answer}"
    rendered = renderer.render(ask(question))
    demo = renderer.render_demonstration(ask(question), response)
    count = len(rendered.token_ids)
    assert tuple(demo.token_ids[:count]) == rendered.token_ids
    assert demo.mask.tolist() == [0.0] * count + [1.0] * (len(demo.token_ids) - count)
    assert demo.token_ids[-1] == renderer.stop_token_ids[0]
    sampled = completion(tuple(int(i) for i in demo.token_ids[count:]))
    assert renderer.response_text(rendered, sampled) == response


def test_a_demonstration_takes_the_templates_blank_after_the_tag(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=REASONER)
    with_newline = renderer.render_demonstration(ask("q"), "<think>\nso</think>4")
    without = renderer.render_demonstration(ask("q"), "<think>so</think>4")
    with_blank = renderer.render_demonstration(ask("q"), "<think> so</think>4")
    assert with_newline.token_ids.tolist() == without.token_ids.tolist()
    assert with_newline.token_ids.tolist() == with_blank.token_ids.tolist()


def test_a_demonstration_that_cannot_follow_the_prefill_is_refused(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=REASONER)
    with pytest.raises(DataError, match=r"row-7.*must begin with '<think>\\n'"):
        renderer.render_demonstration(ask("q"), "four")
    off = Renderer(tokenizer, chat_template=SWITCHED, template_kwargs=NO_THINKING)
    demo = off.render_demonstration(ask("q"), "four")
    assert tokenizer.decode(demo.token_ids[demo.mask == 1]) == "four<|im_end|>"


def test_no_template_is_one_clear_line(tokenizer: Any) -> None:
    with pytest.raises(ModelError, match="no chat template: set chat_template in the recipe"):
        Renderer(tokenizer).render(ask("q"))


def test_template_from_a_file_and_broken_ones(tokenizer: Any, tmp_path: Any) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(CHATML)
    from_file = Renderer(tokenizer, chat_template=str(file)).render(ask("q"))
    assert from_file == Renderer(tokenizer, chat_template=CHATML).render(ask("q"))
    with pytest.raises(ConfigError, match=r"absent\.jinja"):
        Renderer(tokenizer, chat_template=str(tmp_path / "absent.jinja"))
    with pytest.raises(ModelError, match="not valid Jinja, line 1"):
        Renderer(tokenizer, chat_template="{% for %}").render(ask("q"))
    with pytest.raises(ModelError, match="leaves out what the assistant said"):
        Renderer(tokenizer, chat_template="{{ messages[0]['content'] }}").render(ask("q"))


def test_messages_a_template_refuses_name_the_row(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=INSTRUCT)
    prompt = Prompt(id="row-9", messages=(Message("system", "s"), Message("user", "q")))
    with pytest.raises(DataError, match=r"'row-9'.*only user and assistant roles"):
        renderer.render(prompt)
    with pytest.raises(DataError, match="'row-9': it has no messages"):
        renderer.render(Prompt(id="row-9", messages=()))


class ImageToken(NamedTuple):
    image_token: str
    image_token_id: int


PIXELS = Media(pixels=np.zeros((2, 2, 3), np.uint8))
LOOK: tuple[dict[str, str], ...] = (
    {"type": "text", "text": "look "}, {"type": "image"}, {"type": "text", "text": " here"})


@pytest.fixture
def seeing(tokenizer: Any) -> Renderer:
    image = ImageToken("<|image|>", encode(tokenizer, "<|image|>")[0])
    return Renderer(tokenizer, processor=image, chat_template=VISION)


def test_one_image_token_per_image_in_order(tokenizer: Any, seeing: Renderer) -> None:
    prompt = Prompt(id="1", messages=(Message("user", LOOK),), media=(PIXELS,))
    rendered = seeing.render(prompt)
    assert tokenizer.decode(rendered.token_ids) == (
        "<|im_start|>user\nlook <|image|> here<|im_end|>\n<|im_start|>assistant\n")
    assert rendered.media == (PIXELS,)
    demo = seeing.render_demonstration(prompt, "a sign")
    assert demo.media == (PIXELS,)


def test_text_alone_reaches_a_template_that_wants_parts(
    tokenizer: Any, seeing: Renderer,
) -> None:
    rendered = seeing.render(ask("plain"))
    assert "user\nplain<|im_end|>" in tokenizer.decode(rendered.token_ids)


def test_parts_of_text_reach_a_template_that_wants_strings(tokenizer: Any) -> None:
    parts = ({"type": "text", "text": "pla"}, {"type": "text", "text": "in"})
    renderer = Renderer(tokenizer, chat_template=CHATML)
    prompt = Prompt(id="1", messages=(Message("user", parts),))
    assert renderer.render(prompt).token_ids == renderer.render(ask("plain")).token_ids


@pytest.mark.parametrize(("content", "media", "line"), [
    (LOOK, (), "1 image parts in its messages, but 0 images"),
    (LOOK, (PIXELS, PIXELS), "1 image parts in its messages, but 2 images"),
    ("no part", (PIXELS,), "0 image parts in its messages, but 1 images"),
    ("forged <|image|>", (), r"1 image tokens \(<\|image\|>\) for 0 images"),
])
def test_images_and_placeholders_must_match(
    seeing: Renderer, content: Any, media: Any, line: str,
) -> None:
    with pytest.raises(DataError, match=line):
        seeing.render(Prompt(id="1", messages=(Message("user", content),), media=media))


def test_a_text_model_refuses_images(tokenizer: Any) -> None:
    prompt = Prompt(id="1", messages=(), rendered="<|image|>", media=(PIXELS,))
    with pytest.raises(ModelError, match="the model takes none"):
        Renderer(tokenizer).render(prompt)


def test_images_of_the_environment_join_those_of_the_prompt(
    tokenizer: Any, seeing: Renderer,
) -> None:
    first = seeing.render(Prompt(id="1", messages=(Message("user", LOOK),), media=(PIXELS,)))
    other = Media(pixels=np.ones((2, 2, 3), np.uint8))
    said = encode(tokenizer, "ok<|im_end|>")
    then = seeing.continue_turn(first, said, [Message("user", ({"type": "image"},))], [other])
    assert then.media == (PIXELS, other)
    with pytest.raises(DataError, match="environment messages: 1 image tokens"):
        seeing.continue_turn(first, said, [Message("user", "none")], [other])
    forged = completion(encode(tokenizer, "<|image|>"), "length")
    assert seeing.sampled_image_token(forged)
    assert not seeing.sampled_image_token(completion(said))


def test_a_real_processor_names_its_image_token_and_brings_its_template(tokenizer: Any) -> None:
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    processor = LlavaProcessor(
        LlavaImageProcessorPil(), tokenizer, patch_size=14, image_token="<|image|>",
        chat_template=VISION)
    renderer = Renderer(tokenizer, processor)
    prompt = Prompt(id="1", messages=(Message("user", LOOK),), media=(PIXELS,))
    rendered = renderer.render(prompt)
    # one token per image crosses to the engine, which knows how many positions it fills
    assert list(rendered.token_ids).count(processor.image_token_id) == 1
    assert renderer.stop_token_ids == (encode(tokenizer, "<|im_end|>")[0], tokenizer.eos_token_id)
