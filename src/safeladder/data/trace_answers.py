"""Right answers of an earlier run, read from its traces, as demonstrations.

The columns of ``traces/*.parquet`` that are read, one row per trajectory:

================  ==========================================================================
``split``         "train", or the evaluation set it belongs to
``prompt_id``     with ``prompt_text`` it says which answers belong to one prompt
``prompt_text``   the text of the prompt's messages
``messages``      the prompt's messages as JSON; null where a chat template had been applied;
                  not needed where the run's sources are named
``source``,       of the prompt
``task``
``reference``,    of the prompt, as JSON
``meta``
``response``      the assistant's text, reasoning included, as sampled
``status``        "completed" unless something ended it early
``verdicts``      JSON: verifier -> ``score``, ``verdict_class``, and ``monitor`` where the
                  verifier only watched
``reward_total``  null where a verifier could not judge
``num_tokens``    sampled tokens
``turns``         JSON: the responses of an episode with several, which is refused; runs of old
                  have no such column
================  ==========================================================================

Not in a trace: images, so where a prompt has some, the run's own sources have to give the prompts.
Episodes of several turns are not imitated: their last response alone would teach to answer without
the search that led to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safeladder.data.files import PlacedRow, read_parquet
from safeladder.data.messages import read_message
from safeladder.errors import DataError
from safeladder.types import Message, Prompt

COLUMNS = ("split", "prompt_id", "prompt_text", "source", "task", "reference", "meta", "response",
           "status", "verdicts", "reward_total", "num_tokens")
NOT_RIGHT = frozenset({"wrong", "unparsable", "partial", "bad_format"})
"""Verdict classes that speak against an answer; all others say nothing of it."""


@dataclass(frozen=True)
class TracedAnswer:
    """One row of a trace."""

    where: str
    cells: Mapping[str, Any]

    @property
    def prompt_key(self) -> tuple[str, str]:
        """What answers to one prompt share: runs over several sources may repeat an id."""
        return self.cells["prompt_id"], self.cells["prompt_text"]

    def is_right(self, minimum: float | None) -> bool:
        """Whether it was completed and earned ``minimum``; None: is right by its verdicts.

        That is: of the deciding verdicts that judged, at least one is ``correct``, and none calls
        the answer anything else or its form bad (:data:`NOT_RIGHT`).
        """
        if self.cells["status"] != "completed":
            return False
        if minimum is not None:
            total = self.cells["reward_total"]
            return total is not None and total >= minimum
        classes = {verdict.get("verdict_class") for verdict in self.json("verdicts").values()
                   if verdict.get("score") is not None and not verdict.get("monitor")}
        return "correct" in classes and not classes & NOT_RIGHT

    def json(self, column: str) -> Any:
        """The value of a column of JSON texts."""
        try:
            return json.loads(self.cells[column])
        except (TypeError, ValueError):
            raise DataError(f"{self.where}: column {column!r} is not JSON: "
                            f"{str(self.cells[column])[:40]!r}") from None


def read_answers(files: Iterable[Path], split: str) -> list[TracedAnswer]:
    """The answers of one split, in the files' order.

    Raises:
        DataError: a file is no Parquet file, lacks a column, or has an episode of several turns;
            file and row are named.
    """
    found = [answer for file in files for row in read_parquet(file)
             if (answer := _answer(row)).cells["split"] == split]
    for answer in found:
        _refuse_several_turns(answer)
    return found


def shortest(answers: Iterable[TracedAnswer]) -> list[TracedAnswer]:
    """For each prompt the answer with the fewest tokens, prompts by first appearance.

    Of equally short ones the first by its text, so that the order of files does not matter.
    """
    best: dict[tuple[str, str], TracedAnswer] = {}
    for answer in answers:
        known = best.setdefault(answer.prompt_key, answer)
        if _size(answer) < _size(known):
            best[answer.prompt_key] = answer
    return list(best.values())


def demonstrations(
    answers: Iterable[TracedAnswer], prompts: Sequence[Prompt] | None = None,
) -> list[Prompt]:
    """Each answer as a prompt whose last message is the assistant's.

    ``prompts`` are the run's own, found by their id; None: the trace's messages.

    Raises:
        DataError: a prompt is not among them or differs, has images that the trace does not hold,
            or went through a chat template already.
    """
    known = None if prompts is None else {prompt.id: prompt for prompt in prompts}
    return [_demonstration(answer, known) for answer in answers]


def _answer(row: PlacedRow) -> TracedAnswer:
    missing = [name for name in COLUMNS if name not in row.cells]
    if missing:
        raise DataError(f"{row.where}: no column {missing[0]!r}, so it is no trace file of a run "
                        f"(found: {', '.join(map(str, row.cells)) or 'nothing'})")
    return TracedAnswer(row.where, row.cells)


def _refuse_several_turns(answer: TracedAnswer) -> None:
    if answer.cells.get("turns") not in (None, "", "[]"):
        raise DataError(f"{answer.where}: an episode of several turns; imitating its last response "
                        "alone would teach to answer without what led to it")


def _size(answer: TracedAnswer) -> tuple[int, str]:
    return answer.cells["num_tokens"], answer.cells["response"]


def _demonstration(answer: TracedAnswer, known: Mapping[str, Prompt] | None) -> Prompt:
    prompt = _traced_prompt(answer) if known is None else _known_prompt(answer, known)
    asked = prompt.messages
    if asked and asked[-1].role == "assistant":
        asked = asked[:-1]              # a beginning that was pre-filled; the response has it
    return replace(prompt, messages=(*asked, Message("assistant", answer.cells["response"])))


def _traced_prompt(answer: TracedAnswer) -> Prompt:
    cells = answer.cells
    if "messages" not in cells:
        raise DataError(f"{answer.where}: no column 'messages' (an older trace); name the sources "
                        "of the run under 'prompts'")
    if cells["messages"] is None:
        raise DataError(_templated(answer.where, cells["prompt_id"]))
    messages = tuple(read_message(item, answer.where) for item in answer.json("messages"))
    if not all(isinstance(message.content, str) for message in messages):
        raise DataError(f"{answer.where}: prompt {cells['prompt_id']!r} has images, which a trace "
                        "does not hold; name the sources of the run under 'prompts'")
    return Prompt(id=cells["prompt_id"], messages=messages, reference=answer.json("reference"),
                  source=cells["source"], task=cells["task"], meta=answer.json("meta"))


def _known_prompt(answer: TracedAnswer, known: Mapping[str, Prompt]) -> Prompt:
    prompt_id = answer.cells["prompt_id"]
    prompt = known.get(prompt_id)
    if prompt is None:
        raise DataError(f"{answer.where}: prompt {prompt_id!r} is in none of the sources under "
                        "'prompts'; name those that the run was given")
    if prompt.rendered is not None:
        raise DataError(_templated(answer.where, prompt_id))
    if "\n".join(message.text for message in prompt.messages) != answer.cells["prompt_text"]:
        raise DataError(f"{answer.where}: prompt {prompt_id!r} has another text than in the "
                        "sources under 'prompts'; name those that the run was given")
    return prompt


def _templated(where: str, prompt_id: str) -> str:
    return (f"{where}: prompt {prompt_id!r} already went through a chat template; only messages "
            "can become a demonstration")
