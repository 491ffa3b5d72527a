"""Filters: every step counted, what is open kept apart, diversity capped as the formula says."""

import asyncio
import json
import math
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.config import validate
from safeladder.data.responses import LabelledResponse, read_responses, write_responses
from safeladder.data.sources import build_source
from safeladder.errors import ConfigError, DataError, StorageError, TooManyAbstentions
from safeladder.ladder.filters import filter_file, filter_rows, load_steps
from safeladder.ladder.filters.balance import cap_of
from safeladder.ladder.filters.demonstrations import RungFilters
from safeladder.ladder.filters.duplicates import duplicates
from safeladder.ladder.filters.pipeline import FilterRecipe, read_report
from safeladder.ladder.recipe import Recipe, load_recipe
from safeladder.types import Media, Message, Prompt, Verdict
from safeladder.verifiers import VerifyPolicy
from safeladder.verifiers.patterns import (
    ENGLISH_PATTERNS,
    MICROWORLD_PATTERNS,
    PATTERNS,
    entropy_bits,
    profile,
)

NUMERIC = {"type": "numeric", "where": ["last"]}


def row(i, response, ask="2 + 2 ?", reference="4", task="math", media=(), **meta):
    prompt = Prompt(str(i), (Message("user", ask),), reference, "s", task, media, meta)
    return LabelledResponse(prompt, response)


def steps_of(*specs):
    return list(validate(FilterRecipe, {"steps": list(specs)}, "steps").steps)


def run(rows, *specs, **more):
    return asyncio.run(filter_rows(rows, steps_of(*specs), "rows", **more))


class Moody:
    """Keeps "good", drops "bad", cannot judge "odd", and has nothing to say of "none"."""

    name = "moody"

    def verify(self, trajectory):
        match trajectory.response:
            case "odd":
                raise ValueError("what is this")
            case "none":
                return Verdict(self.name, None, "not_applicable", error="no claim")
            case said:
                return Verdict(self.name, float(said == "good"), said, reason="as told")


def test_every_row_is_kept_dropped_or_open_and_each_is_counted():
    rows = [row(i, said) for i, said in enumerate(["good", "odd", "bad", "none", "bad", "good"])]
    result = run(rows, {"type": "verifier", "verifier": "moody"}, {"type": "deduplicate"},
                 opened={"moody": Moody()})
    first, second = result.report.steps
    assert (first.rows, first.kept, first.dropped, first.unjudged) == (6, 3, 2, 1)
    assert first.not_applicable == 1 and first.reasons == {"bad": 2}
    assert first.unjudged_reasons == {"ValueError: what is this": 1}
    assert [e.id for e in first.examples] == ["2", "4"]
    assert first.examples[0].detail == "score 0: as told"
    assert [e.id for e in first.unjudged_examples] == ["1"]
    assert (second.rows, second.kept, second.dropped) == (3, 2, 1)  # "good" comes twice
    assert [r.prompt.id for r in result.kept] == ["0", "3"]
    assert [r.prompt.id for r, _, _ in result.unjudged] == ["1"]
    report = result.report
    assert (report.rows, report.kept, report.dropped, report.unjudged) == (6, 2, 3, 1)


def test_examples_show_every_reason_before_they_repeat_one():
    rows = [row(i, said) for i, said in enumerate(["bad"] * 9 + ["worse", "worst"])]
    shown = run(rows, {"type": "verifier", "verifier": "moody"},
                opened={"moody": Moody()}).report.steps[0].examples
    assert [e.why for e in shown] == ["bad", "worse", "worst", "bad", "bad", "bad"]


def test_a_dead_judge_stops_a_rung_but_leaves_a_file_open():
    rows = [row(i, "odd") for i in range(20)]
    step = {"type": "verifier", "verifier": "moody"}
    assert run(rows, step, opened={"moody": Moody()}).report.unjudged == 20
    with pytest.raises(TooManyAbstentions, match="moody"):
        run(rows, step, opened={"moody": Moody()}, policy=VerifyPolicy())


def test_verifier_steps_keep_by_score_class_or_spared_part():
    rows = [row(0, "<think> so 4 . </think> 4"), row(1, "<think> so 5 . </think> 5"),
            row(2, "4")]
    result = run(rows, {"type": "verifier", "verifier": NUMERIC},
                 {"type": "verifier", "verifier": {"type": "format"}})
    assert [r.prompt.id for r in result.kept] == ["0"]
    assert [(step, d.why) for _, step, d in result.dropped] == [
        ("numeric", "wrong"), ("format", "bad_format")]
    bad = {"type": "verifier", "verifier": "moody", "accept": ["bad"]}
    assert len(run([row(0, "bad")], bad, opened={"moody": Moody()}).kept) == 1
    unknown = {"family": "knowledge", "answer": "Sil", "relation": "river", "town": "Aldor"}
    says = [row(0, "I do not know .", reference=unknown), row(1, "it is Ond .", reference=unknown)]
    judge = {"type": "verifier", "verifier": {"type": "microworld"}}
    assert run(says, judge).kept == []
    assert run(says, {**judge, "spare": ["abstained"]}).kept == says[:1]


def test_meta_steps_keep_by_a_column_and_leave_rows_without_it_open():
    rows = [row(0, "a", finish_reason="stop"), row(1, "b", finish_reason="length"), row(2, "c")]
    result = run(rows, {"type": "meta", "key": "finish_reason", "accept": ["stop"]})
    assert [r.prompt.id for r in result.kept] == ["0"]
    assert result.report.steps[0].reasons == {"finish_reason is length": 1}
    assert [d.why for _, _, d in result.unjudged] == ["the row has no 'finish_reason'"]


def test_duplicates_are_told_by_prompt_image_and_response():
    image = Media(pixels=np.zeros((4, 4, 3), np.uint8))
    other = Media(pixels=np.ones((4, 4, 3), np.uint8))
    rows = [row(0, "It is  four"), row(1, "it is four"), row(2, "it is four", ask="3 + 1 ?"),
            row(3, "it is four", media=(image,)), row(4, "it is four", media=(other,)),
            row(5, "4")]
    assert [d.first for d in duplicates(rows, "pair")] == [None, 0, None, None, None, None]
    assert [d.first for d in duplicates(rows, "response")] == [None, 0, 0, 0, 0, None]
    assert [d.first for d in duplicates(rows, "prompt")] == [None, 0, None, None, None, 0]


def test_near_duplicates_overlap_in_their_five_grams():
    # 1: eight words, 4 five-grams. 2: the last word differs: 3 shared of 5 in all = 0.6.
    rows = [row(1, "a b c d e f g h"), row(2, "a b c d e f g x"),
            row(3, "a b c d e f g x", "other")]
    assert [d.first for d in duplicates(rows, "pair", 0.6)] == [None, 0, None]
    assert [d.first for d in duplicates(rows, "pair", 0.61)] == [None, None, None]


@pytest.mark.parametrize(("counts", "share", "drop", "cap"), [
    ([80, 15, 5], 0.5, 1.0, 20),   # 20 of 20 + 15 + 5 = 40 is half; 21 of 41 is more
    ([50, 50], 0.5, 1.0, 50),      # nothing to do
    ([60, 40], 0.5, 1.0, 40),
    ([60, 40], 0.4, 1.0, 40),      # two kinds cannot both be under 0.4: the even share
    ([100], 0.5, 1.0, 100),        # one kind alone
    ([80, 15, 5], 0.5, 0.3, 50),   # at most 30 rows go: 50 + 15 + 5 = 70 stay
    ([80, 15, 5], 0.5, 0.0, 80),
    ([999, 1], 0.5, 1.0, 1)])
def test_the_cap_is_the_one_of_the_formula(counts, share, drop, cap):
    assert cap_of(counts, share, drop) == cap


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.floats(0.05, 1), st.floats(0, 1))
def test_the_cap_against_trying_every_one(counts, share, drop):
    def kept(k):
        return sum(min(c, k) for c in counts)

    most, total = max(counts), sum(counts)
    cap = cap_of(counts, share, drop)
    assert 1 <= cap <= most and kept(cap) >= (1 - drop) * total - 1e-6
    if most <= share * total:
        assert cap == most
        return
    fits = [k for k in range(1, most + 1) if k <= share * kept(k)]
    wanted = max(fits) if fits else min(counts)
    enough = min(k for k in range(1, most + 1) if kept(k) >= (1 - drop) * total - 1e-9)
    assert cap == max(wanted, enough)


def test_entropy_by_hand():
    assert entropy_bits([4, 4]) == 1.0
    assert entropy_bits([2, 1, 1]) == 1.5  # 0.5 * 1 + 2 * 0.25 * 2
    assert entropy_bits([7]) == 0.0 and entropy_bits([]) is None
    assert math.isclose(entropy_bits([3, 1]), 0.811278, abs_tol=1e-6)


@pytest.mark.parametrize(("text", "shown"), [
    ("Let me check: 2 + 2 = 4.", "verify"),
    ("Wait, that is wrong.", "reflect"),
    ("First, add. Then, divide.", "decompose"),
    ("Working backwards from 12, we need 3.", "backward"),
    ("Case 1: x = 0. Case 2: x = 1.", "enumerate"),
    ("Case 1: x = 0.", "plain"),
    ("First, list all cases. Then I double-check.", "verify+decompose+enumerate")])
def test_english_patterns(text, shown):
    assert profile(text, ENGLISH_PATTERNS) == shown


def test_the_chains_of_the_microworld_show_the_patterns_they_are_made_of():
    expected = {
        ("arithmetic", "direct"): {"plain"}, ("arithmetic", "totals"): {"decompose"},
        ("arithmetic", "check"): {"verify+decompose+backward"},
        ("safety", "short"): {"plain"}, ("safety", "list"): {"backward"},
        ("safety", "work"): {"decompose"}, ("safety", "check"): {"verify+decompose+backward"},
        ("value", "short"): {"plain"}, ("value", "reason"): {"decompose"},
        ("value", "principle"): {"backward"}, ("value", "check"): {"verify+decompose+backward"},
        ("logic", "sight"): {"plain"}, ("knowledge", "recall"): {"plain"},
        ("instruction", "check"): {"verify"}}
    for (family, strategy), wanted in expected.items():
        rows = build_source({"type": "microworld", "family": family, "split": "train", "count": 20,
                             "level": {"knowledge": 1, "value": 1}.get(family), "seed": 5,
                             "teacher": {"ideal": 1.0}, "strategies": {strategy: 1.0}})
        found = {profile(r.messages[-1].text.partition("</think>")[0], MICROWORLD_PATTERNS)
                 for r in rows}
        assert found == wanted, (family, strategy)
    assert all(set(rules) == {"verify", "reflect", "decompose", "backward", "enumerate"}
               for rules in PATTERNS.values())


def test_diversity_caps_each_profile_whatever_the_order_of_the_rows():
    said = ["<think>so</think>1"] * 80 + ["<think>let me check</think>1"] * 15 + [
        "<think>wait</think>1"] * 5
    rows = [row(i, text) for i, text in enumerate(said)]
    step = {"type": "diversity", "max_share": 0.5, "max_drop": 1.0}
    result = run(rows, step)
    figures = result.report.steps[0].figures
    assert figures["caps"] == {"math": 20}  # as above
    assert figures["before"]["profiles"] == {"plain": 80, "verify": 15, "reflect": 5}
    assert figures["after"]["profiles"] == {"plain": 20, "verify": 15, "reflect": 5}
    # 0.5 * 1 + 0.375 * log2(8/3) + 0.125 * 3 = 0.5 + 0.5306 + 0.375
    assert math.isclose(figures["after"]["entropy_bits"], 1.4056, abs_tol=1e-4)
    backwards = run(rows[::-1], step)
    assert {r.prompt.id for r in backwards.kept} == {r.prompt.id for r in result.kept}
    other = run(rows, {**step, "seed": 1})
    assert {r.prompt.id for r in other.kept} != {r.prompt.id for r in result.kept}


def test_diversity_balances_each_task_by_itself():
    rows = [row(i, "<think>so</think>1", task="a") for i in range(10)] + [
        row(i, "<think>wait</think>1", task="b") for i in range(10, 20)]
    assert len(run(rows, {"type": "diversity", "max_share": 0.4}).kept) == 20  # one profile each
    mixed = run([*rows, row(99, "<think>so</think>1", task="b")],
                {"type": "diversity", "max_share": 0.5, "max_drop": 1.0})
    assert Counter(r.prompt.task for r in mixed.kept) == {"a": 10, "b": 2}


def test_a_file_is_parted_into_piles_that_can_be_read_again(tmp_path: Path):
    image = Media(pixels=np.zeros((4, 4, 3), np.uint8))
    shown = Message("user", ({"type": "image"}, {"type": "text", "text": "how many ?"}))
    rows = [row(0, "<think>I see it now</think> 4"), row(1, "<think>I see it now</think> 5"),
            LabelledResponse(Prompt("2", (shown,), "4", "s", "math", (image,)),
                             "<think>I see four things</think> 4")]
    write_responses(tmp_path / "rows.jsonl", rows)
    recipe = tmp_path / "steps.yaml"
    recipe.write_text("steps:\n- {type: verifier, verifier: {type: numeric, where: [last]}}\n"
                      "- {type: verifier, verifier: {type: format}}\n")
    out = tmp_path / "out"
    report = asyncio.run(filter_file(tmp_path / "rows.jsonl", out, load_steps(str(recipe))))
    assert (report.rows, report.kept, report.dropped, report.unjudged) == (3, 2, 1, 0)
    kept = read_responses(out / "kept.jsonl")
    assert [r.response for r in kept] == [rows[0].response, rows[2].response]
    given = read_responses(tmp_path / "rows.jsonl")
    assert kept[1].prompt.media[0].digest == given[2].prompt.media[0].digest
    dropped = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert [(d["id"], d["filter"], d["why"]) for d in dropped] == [("1", "numeric", "wrong")]
    assert (out / "unjudged.jsonl").read_text() == ""
    page = (out / "filters.html").read_text()
    assert "2 of 3 rows (66.7%) passed all 2 steps." in page and "I see it now" in page
    assert json.loads((out / "filters.json").read_text())["steps"][0]["reasons"] == {"wrong": 1}
    imitated = build_source({"type": "responses", "path": str(out / "kept.jsonl")})
    assert [p.messages[-1] for p in imitated] == [
        Message("assistant", r.response) for r in (rows[0], rows[2])]
    with pytest.raises(StorageError, match=r"holds a kept\.jsonl already"):
        asyncio.run(filter_file(tmp_path / "rows.jsonl", out, load_steps(None)))


def test_the_recipes_that_ship_are_steps_and_do_what_they_say():
    assert [s.title for s in load_steps(None)] == [
        "format", "length", "repetition", "language", "deduplicate", "diversity"]
    rows = [LabelledResponse(Prompt(p.id, p.messages[:-1], p.reference, p.source, p.task, p.media,
                                    p.meta), p.messages[-1].text)
            for p in build_source({"type": "microworld", "family": "arithmetic", "split": "train",
                                   "count": 60, "teacher": {"ideal": 1.0}, "noise": 0.3,
                                   "strategies": {"totals": 1.0, "check": 1.0}})]
    result = asyncio.run(filter_rows(rows, load_steps("microworld"), "rows"))
    misjudged = sum(r.prompt.meta["misjudged"] for r in rows)
    assert 0 < misjudged == result.report.steps[0].dropped
    assert not any(r.prompt.meta["misjudged"] for r in result.kept)


@pytest.mark.parametrize(("spec", "problem"), [
    ({"type": "verifier"}, "verifier"),
    ({"type": "diversity", "patterns": "englsh"}, "did you mean 'english'"),
    ({"type": "diversity", "max_share": 0}, "greater than 0"),
    ({"type": "meta", "key": "x", "accept": []}, "at least 1"),
    ({"type": "deduplicate", "off": "pair"}, "did you mean 'of'"),
    ({"type": "dedup"}, "does not match any of the expected tags")])
def test_what_is_no_step_is_one_line(spec, problem):
    with pytest.raises(ConfigError, match=problem):
        steps_of(spec)


@pytest.mark.parametrize(("spec", "problem"), [
    ({"type": "fromat"}, "no verifier type 'fromat' .did you mean 'format'"),
    ({"type": "length", "bugdet": 3}, "did you mean 'budget'"),
    ({"type": "length", "budget": 9, "limit": 3}, "must be above budget")])
def test_a_wrong_verifier_is_one_line_when_the_steps_are_read(spec, problem):
    with pytest.raises(ConfigError, match=problem):
        steps_of({"type": "verifier", "verifier": spec})


# In a recipe -------------------------------------------------------------------------------

def demonstrations():
    return build_source({"type": "microworld", "family": "value", "split": "train", "count": 30,
                         "teacher": {"ideal": 0.7, "wrong": 0.3}, "strategies": {"reason": 1.0}})


def keep(prompts, folder, *specs, opened=None):
    filters = RungFilters("cot_sft", steps_of(*specs), folder / "filters.json", opened or {},
                          VerifyPolicy())
    return asyncio.run(filters.keep(prompts))


def test_demonstrations_that_pass_are_the_same_rows(tmp_path):
    prompts = demonstrations()
    answer = {"type": "verifier", "name": "answer", "verifier": {"type": "microworld"}}
    kept = keep(prompts, tmp_path, answer)
    ideal = [p for p in prompts if p.meta["behaviour"] == "ideal"]
    assert kept == ideal
    report = read_report(tmp_path / "filters.json")
    assert report.kept == len(ideal) < report.rows == 30
    assert report.steps[0].examples[0].why == "bad"
    for bad in (Prompt("p", (Message("user", "?"),)), Prompt("p", (), rendered="text")):
        with pytest.raises(DataError, match="last message is the assistant's"):
            keep([bad], tmp_path, {"type": "deduplicate"})
    with pytest.raises(DataError, match="'answer' dropped 30"):
        keep(prompts, tmp_path, {**answer, "min_score": 2})


class OnlyOnce:
    """A judge that changes its mind: it keeps everything, and the next time nothing."""

    name, times = "once", 0

    async def verify_many(self, trajectories):
        self.times += 1
        return [Verdict(self.name, float(self.times == 1), "said") for _ in trajectories]


def test_a_rung_that_goes_on_learns_from_the_same_rows(tmp_path):
    prompts, judge = demonstrations(), OnlyOnce()
    step = {"type": "verifier", "verifier": "once"}
    opened = {"once": judge}
    assert keep(prompts, tmp_path, step, opened=opened) == prompts
    assert keep(prompts, tmp_path, step, opened=opened) == prompts and judge.times == 1
    # other rows, or other steps, are judged anew
    with pytest.raises(DataError, match="no row of 29 passed"):
        keep(prompts[1:], tmp_path, step, opened=opened)
    (tmp_path / "filters.rows.json").write_text("{half")
    with pytest.raises(DataError, match="no row of 30 passed"):
        keep(prompts, tmp_path, step, opened=opened)


def test_a_judge_that_does_not_answer_leaves_rows_open():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    judge = {"type": "judge", "rubric": "safety", "endpoint": {
        "base_url": f"http://127.0.0.1:{port}/v1", "model": "m", "max_retries": 0}}
    result = run([row(0, "<think>so</think> four")], {"type": "verifier", "verifier": judge})
    assert (result.report.kept, result.report.dropped, result.report.unjudged) == (0, 0, 1)
    assert "connection failed" in result.unjudged[0][2].why


def test_a_noisy_teacher_must_be_disclosed():
    recipe = load_recipe("first_climb", []).model_dump(mode="json")
    recipe["rungs"] = recipe["rungs"][:2]
    noisy = {"type": "microworld", "family": "logic", "split": "train", "count": 4,
             "teacher": {"ideal": 1.0}, "strategies": {"work": 1.0}, "noise": 0.1}
    recipe["rungs"][1] |= {"data": [noisy], "disclosure": "",
                           "filters": [{"type": "deduplicate"}]}
    with pytest.raises(ConfigError, match=r"misjudges \(noise 0.1\): say so in its disclosure"):
        validate(Recipe, recipe, "recipe")
    part = {"type": "split", "of": noisy, "key": "group", "part": "a",
            "fractions": {"a": 0.5, "b": 0.5}}
    recipe["rungs"][1]["data"] = [part]
    with pytest.raises(ConfigError, match="say so in its disclosure"):
        validate(Recipe, recipe, "recipe")
    recipe["rungs"][1]["disclosure"] = "one chain in ten misjudges"
    recipe["rungs"][1]["filters"] = [{"type": "verifier", "verifier": "logic_rll"}]
    with pytest.raises(ConfigError, match=r"no verifier 'logic_rll'.*logic_rl"):
        validate(Recipe, recipe, "recipe")
    recipe["rungs"][1]["filters"] = [{"type": "deduplicate"}]
    assert validate(Recipe, recipe, "recipe").rungs[1].filters[0].title == "deduplicate"


def test_rows_that_differ_in_what_a_step_may_read_are_filtered_anew(tmp_path):
    def row(reference, **meta):
        said = "<think>a</think> <answer>4</answer>"
        messages = (Message("user", "2 + 2 ?"), Message("assistant", said))
        return Prompt("p", messages, reference=reference, meta=meta)
    checked = {"type": "verifier", "verifier": {"type": "numeric"}}
    assert keep([row("4")], tmp_path, checked)
    with pytest.raises(DataError, match="'numeric' dropped 1"):
        keep([row("5")], tmp_path, checked)
    stop = {"type": "meta", "key": "finish_reason", "accept": ["stop"]}
    assert keep([row("4", finish_reason="stop")], tmp_path, stop)
    with pytest.raises(DataError, match="dropped 1"):
        keep([row("4", finish_reason="length")], tmp_path, stop)


def test_reasons_beyond_the_commonest_are_counted_together():
    rows = [LabelledResponse(Prompt(f"p{i}", (Message("user", "?"),), meta={"k": i}), "x")
            for i in range(20)]
    steps = steps_of({"type": "meta", "key": "k", "accept": [0]})
    report = asyncio.run(filter_rows(rows, steps, "rows")).report.steps[0]
    assert sum(report.reasons.values()) == report.dropped == 19
    assert report.reasons["7 other reasons"] == 7


def test_near_duplicates_are_seen_in_chinese():
    long = "\u8ba9\u6211\u4eec\u4e00\u6b65\u4e00\u6b65\u5730\u60f3\u6e05\u695a" * 9
    rows = [LabelledResponse(Prompt("p", (Message("user", "?"),)), text)
            for text in (long, long + "\u5427")]
    steps = steps_of({"type": "deduplicate", "near": 0.8})
    assert len(asyncio.run(filter_rows(rows, steps, "rows")).kept) == 1


def test_a_response_that_was_cut_in_half_of_a_character_is_filtered_like_any_other(tmp_path):
    texts = ("<think>one two three</think> 4", "<think>one two four</think> cut \ud83d")
    (tmp_path / "rows.jsonl").write_text("".join(
        json.dumps({"prompt": "?", "response": text, "reference": "4"}) + "\n"
        for text in texts))
    report = asyncio.run(filter_file(tmp_path / "rows.jsonl", tmp_path / "out",
                                     steps_of({"type": "diversity"}, {"type": "verifier",
                                              "verifier": {"type": "text_match"}})))
    assert (report.kept, report.dropped, report.unjudged) == (1, 1, 0)
    lines = [line for name in ("kept", "dropped")
             for line in (tmp_path / "out" / f"{name}.jsonl").read_text().split("\n") if line]
    found = [json.loads(line)["response"] for line in lines]
    assert sorted(found) == sorted(texts)
