"""Demonstrations from the traces that a run writes: real files, by the code that writes them."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safeladder.data.sources import OwnAnswersSource, build_source
from safeladder.errors import ConfigError, DataError
from safeladder.ladder.traces import TraceKey, write_traces
from safeladder.types import (
    Completion,
    Media,
    Message,
    Prompt,
    Reward,
    Status,
    Trajectory,
    Turn,
    Verdict,
)

SUM = Prompt("sum", (Message("system", "count"), Message("user", "1 + 1")), reference="2",
             source="sums", task="math", meta={"level": 1})
DIFFERENCE = Prompt("difference", (Message("user", "3 - 1"),), source="sums", task="math")


def answer(
    prompt: Prompt, response: str, tokens: int, right: bool = True, total: float | None = None,
    **fields: Any,
) -> Trajectory:
    """A trajectory with one verdict; ``fields`` replace what it holds."""
    turn = Turn((1,), Completion(tuple(range(tokens)), np.zeros(tokens, np.float32), "stop", 0),
                response)
    label = "correct" if right else "wrong"
    score = float(right)
    return replace(Trajectory(prompt, (turn,), Status.COMPLETED,
                              {"math": Verdict("math", score, label)},
                              Reward(score if total is None else total)), **fields)


def write(folder: Path, trajectories: Sequence[Trajectory], step: int = 0, split: str = "train"):
    folder.mkdir(exist_ok=True)
    return write_traces(folder, TraceKey("rl", step, split, 1.0), trajectories)


def texts(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.messages[-1].text for prompt in prompts]


def build(folder: Path, **fields: Any) -> list[Prompt]:
    return build_source({"type": "trace_answers", "path": "*.parquet", **fields}, folder)


def test_the_shortest_right_answer_of_each_prompt_over_all_files(tmp_path):
    write(tmp_path, [
        answer(SUM, "<think> long </think> 2", 7), answer(SUM, "3", 1, right=False),
        answer(DIFFERENCE, "<think> a b </think> 2", 8)], step=0)
    write(tmp_path, [answer(SUM, "<think> s </think> 2", 5), answer(SUM, "2 2", 5, right=False)],
          step=1)
    rows = build(tmp_path)
    assert [(row.id, row.messages) for row in rows] == [
        ("sum", (*SUM.messages, Message("assistant", "<think> s </think> 2"))),
        ("difference", (*DIFFERENCE.messages, Message("assistant", "<think> a b </think> 2")))]
    assert replace(rows[0], messages=SUM.messages) == SUM


def test_all_right_answers_under_ids_of_their_own(tmp_path):
    write(tmp_path, [answer(SUM, "2", 7), answer(SUM, "3", 1, right=False), answer(SUM, "two", 9)])
    rows = build(tmp_path, keep="all", source="old", task="again", limit=5)
    assert [(row.id, row.source, row.task) for row in rows] == [
        ("sum", "old", "again"), ("sum#2", "old", "again")]
    assert texts(rows) == ["2", "two"]


def test_the_choice_does_not_depend_on_the_order_of_rows(tmp_path):
    rows = [answer(SUM, text, len(text)) for text in ("ab", "ba", "aaa")]
    for seed in range(4):
        write(tmp_path, random.Random(seed).sample(rows, 3))
        assert texts(build(tmp_path)) == ["ab"]


def test_one_id_with_two_texts_is_two_prompts(tmp_path):
    other = replace(SUM, messages=(Message("user", "2 + 2"),))
    write(tmp_path, [answer(SUM, "2", 1), answer(other, "4", 2)])
    assert texts(build(tmp_path)) == ["2", "4"]


def test_right_by_reward(tmp_path):
    write(tmp_path, [
        answer(SUM, "half", 3, total=0.5), answer(SUM, "whole", 9, right=False, total=0.8),
        answer(SUM, "unjudged", 1, reward=Reward(None))])
    assert texts(build(tmp_path, minimum=0.5)) == ["half"]
    assert texts(build(tmp_path, minimum=0.6)) == ["whole"]
    with pytest.raises(DataError, match=r"3 answers .* none completed and with a reward of at least"
                       " 0.9"):
        build(tmp_path, minimum=0.9)


def test_what_was_cut_watched_or_not_judged_is_not_right(tmp_path):
    cut = answer(SUM, "cut", 1, status=Status.TRUNCATED_LENGTH)
    watched = answer(SUM, "watched", 1, right=False, reward=Reward(0.0, monitor={"spy": 1.0}))
    watched.verdicts["spy"] = Verdict("spy", 1.0, "correct")
    unjudged = answer(SUM, "unjudged", 1,
                      verdicts={"math": Verdict("math", None, "correct", error="timed out")})
    write(tmp_path, [cut, watched, unjudged])
    with pytest.raises(DataError, match=r"3 answers of the split 'train', none completed and of the"
                       " class correct"):
        build(tmp_path)


@pytest.mark.parametrize(("second", "right"), [
    (Verdict("other", 1.0, "correct"), True), (Verdict("other", 1.0, "well_formed"), True),
    (Verdict("other", 0.3, "safe"), True), (Verdict("other", None, "wrong", error="gone"), True),
    *((Verdict("other", 0.5, name), False)
      for name in ("wrong", "unparsable", "partial", "bad_format"))])
def test_what_one_verdict_speaks_against_is_not_right(second, right, tmp_path):
    row = answer(SUM, "2", 1)
    write(tmp_path, [replace(row, verdicts={**row.verdicts, "other": second})])
    if right:
        assert texts(build(tmp_path)) == ["2"]
        return
    with pytest.raises(DataError, match="none completed and of the class correct"):
        build(tmp_path)


def test_tests_are_not_to_train_on(tmp_path):
    write(tmp_path, [answer(SUM, "2", 1)], step=-1, split="test")
    with pytest.raises(DataError, match="0 answers of the split 'train'"):
        build(tmp_path)
    assert texts(build(tmp_path, split="test")) == ["2"]


def test_an_episode_of_several_turns_is_refused(tmp_path):
    row = answer(SUM, "<answer> 2 </answer>", 2)
    searched = replace(row, turns=(replace(row.turns[0], response="<search> 1 + 1 </search>",
                                           environment_messages=(Message("tool", "2"),)),
                                   row.turns[0]))
    write(tmp_path, [answer(SUM, "2", 1), searched])
    with pytest.raises(DataError, match=r"step000000.parquet, row 1: an episode of several turns"):
        build(tmp_path)
    with pytest.raises(DataError, match="0 answers of the split 'test'"):
        build(tmp_path, split="test")


def images() -> Prompt:
    parts = ({"type": "text", "text": "what is it ?"}, {"type": "image"})
    pixels = np.zeros((2, 2, 3), np.uint8)
    return Prompt("seen", (Message("user", parts),), media=(Media(pixels=pixels),))


def seen_prompts() -> list[Prompt]:
    """What a ``python`` source names."""
    return [images(), SUM]


def test_images_come_from_the_runs_own_sources(tmp_path):
    write(tmp_path, [answer(images(), "a dot", 2)])
    with pytest.raises(DataError, match=r"prompt 'seen' has images, .* under 'prompts'"):
        build(tmp_path)
    own = {"type": "python", "target": f"{__name__}:seen_prompts"}
    (row,) = build(tmp_path, prompts=[own])
    assert row.media == images().media
    assert row.messages == (*images().messages, Message("assistant", "a dot"))


def test_the_sources_named_must_be_those_of_the_run(tmp_path):
    own = {"type": "python", "target": f"{__name__}:seen_prompts"}
    write(tmp_path, [answer(DIFFERENCE, "2", 1)])
    with pytest.raises(DataError, match="'difference' is in none of the sources"):
        build(tmp_path, prompts=[own])
    write(tmp_path, [answer(replace(SUM, messages=(Message("user", "2 + 2"),)), "4", 1)])
    with pytest.raises(DataError, match="'sum' has another text"):
        build(tmp_path, prompts=[own])


def test_a_prefilled_beginning_is_not_said_twice(tmp_path):
    prompt = replace(SUM, messages=(*SUM.messages, Message("assistant", "<think>")))
    write(tmp_path, [answer(prompt, "<think> a </think> 2", 4)])
    (row,) = build(tmp_path)
    assert row.messages == (*SUM.messages, Message("assistant", "<think> a </think> 2"))


def templated_prompts() -> list[Prompt]:
    """What a ``python`` source names."""
    return [replace(SUM, rendered="<s> 1 + 1")]


def test_a_prompt_of_a_chat_template_is_refused(tmp_path):
    write(tmp_path, [answer(replace(SUM, rendered="<s> 1 + 1"), "2", 1)])
    with pytest.raises(DataError, match=r"row 0: prompt 'sum' already went through a chat"):
        build(tmp_path)
    own = {"type": "python", "target": f"{__name__}:templated_prompts"}
    with pytest.raises(DataError, match=r"row 0: prompt 'sum' already went through a chat"):
        build(tmp_path, prompts=[own])


def test_files_that_are_no_traces_are_named(tmp_path):
    with pytest.raises(DataError, match=r"\*.parquet: no such file"):
        build(tmp_path)
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet, row 0: no column 'split', so it is no trace"):
        build(tmp_path)
    path = write(tmp_path / "old", [answer(SUM, "2", 1)])
    pq.write_table(pq.read_table(path).drop_columns("messages"), path)
    with pytest.raises(DataError, match=r"no column 'messages' \(an older trace\)"):
        build(tmp_path / "old")
    own = {"type": "python", "target": f"{__name__}:seen_prompts"}
    assert texts(build(tmp_path / "old", prompts=[own])) == ["2"]
    table = pq.read_table(path)
    at = table.column_names.index("verdicts")
    pq.write_table(table.set_column(at, "verdicts", pa.array(["{"])), path)
    with pytest.raises(DataError, match=r"row 0: column 'verdicts' is not JSON: '\{'"):
        build(tmp_path / "old")


def test_mistakes_in_the_recipe_are_named():
    with pytest.raises(ConfigError, match="keep"):
        build_source({"type": "trace_answers", "path": "x", "keep": "longest"})
    with pytest.raises(ConfigError, match="minimum"):
        build_source({"type": "trace_answers", "path": "x", "minimum": float("nan")})


def test_a_rungs_own_answers_are_those_of_its_last_steps(tmp_path):
    for step in range(12):
        write(tmp_path, [answer(SUM, f"{step}", 3)], step=step)
    write(tmp_path, [answer(SUM, "12", 3)], step=12, split="test")
    own = OwnAnswersSource(type="own_answers", rung="rl", last=2, minimum=0.5, limit=3)
    prompts = ({"type": "jsonl", "path": "sums.jsonl"},)
    traced = own.traced(tmp_path, prompts)
    assert [Path(path).name for path in traced.path] == [
        "rl-train-step000010.parquet", "rl-train-step000011.parquet"]
    assert (traced.keep, traced.minimum, traced.limit, len(traced.prompts)) == ("all", 0.5, 3, 1)
    every = OwnAnswersSource(type="own_answers", rung="rl").traced(tmp_path, prompts)
    assert len(every.path) == 12
    assert texts(build_source(traced.model_copy(update={"prompts": None}))) == ["10", "11"]
    with pytest.raises(DataError, match="own_answers: rung 'sft' left no answers in"):
        OwnAnswersSource(type="own_answers", rung="sft").traced(tmp_path, prompts)
    with pytest.raises(ConfigError, match="own_answers of 'rl' are there in a climb alone"):
        build_source({"type": "own_answers", "rung": "rl"})
