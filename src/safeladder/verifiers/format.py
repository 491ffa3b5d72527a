"""The shape of a reasoning response: one think block, then the answer.

Only the response is read (``Trajectory.response``: the assistant's text with whatever the
template pre-filled of it), so nothing in the prompt can satisfy or break the format.
All searches are plain string searches, linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import islice
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.render.think import CLOSE as THINK_CLOSE
from safeladder.render.think import OPEN as THINK_OPEN
from safeladder.render.think import split_think
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case

ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"

END_OF_TURN = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>", "<eos>", "<|end|>")
"""Texts of end-of-turn tokens, should a decoder keep them: one may end the response."""

PLACEHOLDERS = frozenset({"reasoning process here", "thinking process here", "your reasoning here"})
"""Texts that prompts show inside an example think block: copying one is no thinking."""

_WORD = re.compile(r"[^\W_]+")


class Sections(NamedTuple):
    """A response taken apart. ``problem`` is empty when it is well formed."""

    think: str
    answer: str
    problem: str


def read_response(
    response: str, min_think_words: int = 1, end_of_turn: tuple[str, ...] = END_OF_TURN,
) -> Sections:
    """Take ``<think>...</think><answer>...</answer>`` apart, or say what is wrong.

    Each tag occurs exactly once, in this order, with nothing but whitespace before, between and
    after the blocks; one end-of-turn text may follow. The think block needs
    ``min_think_words`` words (runs of letters or digits) and is no placeholder.
    """
    for tag in (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE):
        count = response.count(tag)
        if count != 1:
            return _broken(f"{tag} occurs {count} times, expected once")
    opened, closed = response.find(THINK_OPEN), response.find(THINK_CLOSE)
    start, end = response.find(ANSWER_OPEN), response.find(ANSWER_CLOSE)
    if not opened < closed < start < end:
        return _broken("tags out of order")
    think = response[opened + len(THINK_OPEN):closed]
    problem = (_problem_before(response[:opened]) or _problem_of_think(think, min_think_words)
               or _problem_outside(response[closed + len(THINK_CLOSE):start],
                                   response[end + len(ANSWER_CLOSE):], end_of_turn))
    if problem:
        return _broken(problem)
    return Sections(think, response[start + len(ANSWER_OPEN):end], "")


def think_text(response: str) -> str:
    """What was thought (:func:`safeladder.render.think.split_think`); empty without thinking."""
    return split_think(response).think or ""


def after_think(response: str) -> str:
    """What was said: all that a reader gets to see, the think block left out."""
    return split_think(response).answer


def answer_text(response: str) -> str | None:
    """The content of the one answer block outside of thinking; None if there are none or more."""
    said = after_think(response)
    if said.count(ANSWER_OPEN) != 1 or said.count(ANSWER_CLOSE) != 1:
        return None
    start, end = said.find(ANSWER_OPEN) + len(ANSWER_OPEN), said.find(ANSWER_CLOSE)
    return said[start:end] if start <= end else None


class ThinkFormat(StrictModel):
    """1 when the response is one closed, non-empty think block and then an answer, else 0.

    Only the response is read: a block in the prompt, or in its template's example, counts for
    nothing. The answer is anything to be seen (``needs_answer: false`` takes none as well) but a
    further think tag or a bare end-of-turn text. The verifier ``language`` looks at its language.
    Classes: ``well_formed``, ``bad_format``.
    """

    type: Literal["format"] = "format"
    name: str = "format"
    min_think_words: int = Field(default=1, ge=1, description="words a think block needs")
    needs_answer: bool = Field(default=True, description="whether something must follow the block")

    cases: ClassVar[tuple[Case, ...]]

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Judge the response's shape."""
        problem = self._problem(trajectory.response)
        if problem:
            return Verdict(self.name, 0.0, "bad_format", reason=problem)
        return Verdict(self.name, 1.0, "well_formed")

    def _problem(self, response: str) -> str:
        for tag in (THINK_OPEN, THINK_CLOSE):
            count = response.count(tag)
            if count != 1:
                return f"{tag} occurs {count} times, expected once"
        opened, closed = response.find(THINK_OPEN), response.find(THINK_CLOSE)
        if closed < opened:
            return "tags out of order"
        think = response[opened + len(THINK_OPEN):closed]
        problem = (_problem_before(response[:opened])
                   or _problem_of_think(think, self.min_think_words))
        if problem or not self.needs_answer or is_visible(response[closed + len(THINK_CLOSE):]):
            return problem
        return f"no answer after {THINK_CLOSE}"


def is_visible(text: str) -> bool:
    """Whether a reader sees anything: not space, control, format or end-of-turn characters only."""
    text = text.strip()
    for ending in END_OF_TURN:
        text = text.removesuffix(ending)
    return any(unicodedata.category(char)[0] not in "ZC" for char in text)


def _broken(problem: str) -> Sections:
    return Sections("", "", problem)


def _problem_before(text: str) -> str:
    return f"text before {THINK_OPEN}" if text.strip() else ""


def _problem_of_think(think: str, min_words: int) -> str:
    words = sum(1 for _ in islice(_WORD.finditer(think), min_words))
    if words < min_words:
        return "empty thinking" if words == 0 else f"thinking has fewer than {min_words} words"
    if len(think) < 100 and think.strip(" \t\r\n.").casefold() in PLACEHOLDERS:
        return "placeholder instead of thinking"
    return ""


def _problem_outside(between: str, tail: str, end_of_turn: tuple[str, ...]) -> str:
    if between.strip():
        return f"text between {THINK_CLOSE} and {ANSWER_OPEN}"
    tail = tail.strip()
    return f"text after {ANSWER_CLOSE}" if tail and tail not in end_of_turn else ""


ThinkFormat.cases = (
    Case("good", "<think>2 + 2</think>4", score=1.0, verdict_class="well_formed"),
    Case("good", "\n<think>\nwhy not\n</think>\n\nHello.", score=1.0),
    Case("bad", "4", score=0.0, verdict_class="bad_format"),
    Case("bad", "<think></think>4", score=0.0),
    Case("bad", "<think> \n ... \u200b</think>4", score=0.0),
    Case("bad", "<think>reasoning process here</think>4", score=0.0),
    Case("bad", "<think>never closed", score=0.0),
    Case("bad", "<think>2 + 2</think>", score=0.0),
    Case("bad", "<think>2 + 2</think> \n\u200b<|im_end|>", score=0.0),
    Case("bad", "</think>a<think>b", score=0.0),
    Case("bad", "Sure! <think>a</think>b", score=0.0),
    Case("bad", "<think>a</think>b<think>c</think>", score=0.0),
    *(Case("hostile", text, score=0.0) for text in HOSTILE_TEXTS),
)
