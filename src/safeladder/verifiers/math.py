"""Mathematical equality through math-verify (extra ``math``), inside killable workers.

math-verify parses LaTeX and simplifies with sympy: slow on hostile input, and its own time limit
is an alarm that works in the main thread only and turns errors into "wrong". Both are switched
off here; the worker's deadline takes their place, and an error stays an abstention.
"""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar, Literal

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.errors import DataError, MissingExtra
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.format import after_think, answer_text
from safeladder.verifiers.workers import Isolation

MAX_CHARS = 1000
"""An answer longer than this (characters) is not parsed: it is no final answer."""
MAX_DEPTH = 30
"""Nor is one with more open brackets at once: parsing takes seconds from a few hundred on."""

_PROSE = re.compile(r"(?<!\\)[$]|\\boxed|\\\(|\\\[|(?<![\\a-zA-Z{])"
                    r"(?!(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|arc)[^a-z])[a-zA-Z]{3,}")
"""An answer that marks its mathematics, or holds words: math-verify looks for the expression in
it. Any other answer is taken as an expression, whole.
"""


class MathAnswer(StrictModel):
    r"""1 when the answer is mathematically equal to the reference, else 0.

    Read is the one ``<answer>`` block if there is one, else what follows the think block (its last
    ``MAX_CHARS`` characters), where math-verify picks ``\boxed{}`` or the last expression.
    Classes: ``correct``, ``wrong``, ``unparsable``. The reference is the gold answer's text, a
    number, or a mapping with ``answer``; LaTeX without dollar signs is fine.
    """

    type: Literal["math"] = "math"
    name: str = "math"
    isolate: Isolation | None = Field(
        default=Isolation(), description="null: in this process, where nothing can stop it")

    needs: ClassVar[tuple[str, str]] = ("math_verify", "math")
    cases: ClassVar[tuple[Case, ...]]

    def prepare(self) -> None:
        """Import math-verify and build its grammar, outside the first verdict's time limit."""
        _equal("1", "$1$")

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Compare; raises DataError when the reference cannot be parsed."""
        reference = trajectory.prompt.reference
        if isinstance(reference, dict) and "answer" in reference:
            reference = reference["answer"]
        if isinstance(reference, bool) or not isinstance(reference, int | float | str):
            raise DataError(f"{self.name}: the prompt's reference is no answer: {reference!r:.80}")
        answer = answer_text(trajectory.response)
        if answer is None:
            answer = after_think(trajectory.response)[-MAX_CHARS:]
        if not answer.strip() or len(answer) > MAX_CHARS:
            return Verdict(self.name, 0.0, "unparsable", reason="no answer, or one far too long")
        if _depth(answer) > MAX_DEPTH:
            return Verdict(self.name, 0.0, "unparsable", reason="brackets nested too deeply")
        equal = _equal(str(reference), answer)
        if equal is None:
            return Verdict(self.name, 0.0, "unparsable", reason="no expression in the answer")
        return Verdict(self.name, float(equal), "correct" if equal else "wrong")


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


def _equal(gold: str, answer: str) -> bool | None:
    """Whether any reading of the answer equals the gold; None if the answer has no reading."""
    try:
        import math_verify
    except ImportError:
        raise MissingExtra("math-verify", "math", "the math verifier") from None
    golds = _parse_gold(gold)
    whole = f"\\boxed{{{answer.strip()}}}"
    found = (_parse(answer) or _parse(whole)) if _PROSE.search(answer) else _parse(whole)
    if not found:
        return None
    failure: Exception | None = None
    for one_gold in golds:
        for one in found:
            try:
                if math_verify.verify(one_gold, one, timeout_seconds=None, raise_on_error=True):
                    return True
            # Another pair may still match; if none does, the first failure is raised.
            except Exception as error:
                failure = failure or error
    if failure is not None:
        raise failure
    return False


@functools.lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> tuple[Any, ...]:
    found = _parse(f"\\boxed{{{gold}}}") or _parse(gold)
    if not found:
        raise DataError(f"math: the reference cannot be parsed: {gold!r:.80}")
    return tuple(found)


def _parse(text: str) -> list[Any]:
    import math_verify

    return list(math_verify.parse(text, parsing_timeout=None, raise_on_error=True))


_T = "<think>easy</think>"
MathAnswer.cases = (
    Case("good", f"{_T}<answer>$\\frac{{2}}{{4}}$</answer>", 1.0, "\\frac{1}{2}", "correct"),
    Case("good", f"{_T}It is \\boxed{{x^2 + 2x + 1}}.", 1.0, "(x+1)^2", "correct"),
    Case("good", f"{_T}<answer>0.5</answer>", 1.0, "\\frac12"),
    Case("good", f"{_T}<answer>5</answer>", 1.0, 5.0),
    Case("bad", f"{_T}<answer>15</answer>", 0.0, "5", "wrong"),
    Case("bad", f"{_T}<answer>$\\frac{{2}}{{3}}$</answer>", 0.0, "\\frac{1}{2}", "wrong"),
    Case("bad", f"{_T}<answer></answer>", 0.0, "5", "unparsable"),
    Case("bad", "<think>\\boxed{5}", 0.0, "5", "unparsable"),
    *(Case("hostile", text, 0.0, "5") for text in HOSTILE_TEXTS),
)
