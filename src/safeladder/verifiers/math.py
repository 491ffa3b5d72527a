r"""Mathematical equality (extra ``math``), inside killable workers.

Where the answer is read says :mod:`safeladder.verifiers.math_text`, what is equal
:mod:`safeladder.verifiers.math_forms`, and which expressions are, math-verify
(:mod:`safeladder.verifiers.math_expressions`). math-verify alone takes 10 for 10%, 3 m for 3 cm,
101_3 for 101_2, (1, 2) for {1, 2}, 0.333333 for 1/3 and "9 = 8" for 8.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, FiniteFloat

from safeladder.config import StrictModel
from safeladder.errors import DataError
from safeladder.types import Prompt, Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.format import after_think, answer_text
from safeladder.verifiers.math_expressions import math_verify, same_equation, same_expression
from safeladder.verifiers.math_forms import Rules, is_written_out, same_answer, squeezed
from safeladder.verifiers.math_text import MAX_CHARS, stated_answer
from safeladder.verifiers.workers import Isolation

MAX_DEPTH = 30
"""Open brackets at once; an answer with more is not parsed: it takes seconds from a few hundred."""

MAX_OPERATORS = 200
"""Operators that an answer may have beyond those of its reference; more take seconds."""

_OPERATOR = re.compile(r"[-+*/^=<>]|\\(?:frac|cdot|times|div)\b")
MAX_POWER = 2000
"""Power of an unknown that an answer may have beyond its reference; it may be multiplied out."""
_BOUNDS = re.compile(r"\\(?:sum|prod|int)\s*(?:_\s*(?:\{[^{}]*\}|\w))?\s*\^\s*(?:\{[^{}]*\}|\w)")
"""The bounds of a sum, a product, an integral: what stands above is no power."""
_POWER = re.compile(r"([A-Za-z)\]}])\s*\^[\s{]*-?(\d+)")
_WORK = re.compile(r"[-+*/^!(|]|\\[a-zA-Z]+\s*[\[{]|\\(?:sum|prod|int|lim|times|cdot|div)\b")
"""Signs that something is left to work out."""


class Gold(NamedTuple):
    """What a reference says."""

    answer: str
    tolerance: float | None
    """Largest absolute difference of numbers; None: the verifier's own relative one."""


class MathAnswer(StrictModel):
    r"""1 when the answer is mathematically equal to the reference, else 0.

    Read is the one ``<answer>`` block if there is one, else what follows the think block (its last
    ``MAX_CHARS`` characters): there the last ``\boxed{}``, else the last formula, else the end of
    the prose. Several answers ("5 or 15") are a list and equal to a list only.

    The reference is the gold answer's text, a number, or a mapping with ``answer`` and perhaps
    ``tolerance`` (absolute, as OlympiadBench's ``error``); LaTeX without dollar signs is fine.

    An expression that stands in the question and not in the gold answer is ``wrong``: "factor
    x^2 - 1" is not answered by x^2 - 1. Classes: ``correct``, ``wrong``, ``unparsable``.
    """

    type: Literal["math"] = "math"
    name: str = "math"
    tolerance: FiniteFloat = Field(
        default=1e-8, ge=0, lt=1, description="largest relative difference of two numbers")
    evaluated: bool = Field(
        default=True, description="a gold answer that is a number wants a number, not an "
        "expression of its value")
    isolate: Isolation | None = Field(
        default=Isolation(), description="null: in this process, where nothing can stop it")

    needs: ClassVar[tuple[str, str]] = ("math_verify", "math")
    cases: ClassVar[tuple[Case, ...]]

    def prepare(self) -> None:
        """Import math-verify and build its grammar, outside the first verdict's time limit."""
        math_verify()
        same_expression("\\sqrt{2}", "x", 0.0)

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Compare; raises DataError when the reference cannot be read."""
        gold = read_gold(trajectory.prompt.reference, self.name)
        said = answer_text(trajectory.response)
        if said is None:
            said = after_think(trajectory.response)[-MAX_CHARS:]
        if not said.strip() or len(said) > MAX_CHARS:
            return self._unparsable("no answer, or one far too long")
        if _depth(said) > MAX_DEPTH:
            return self._unparsable("brackets nested too deeply")
        answer, reason = stated_answer(said)
        if answer is None:
            return self._unparsable(reason)
        if _outgrows(answer, gold.answer):
            return self._unparsable("far more to work out than in the reference")
        if _echoes(answer, gold.answer, trajectory.prompt):
            return Verdict(self.name, 0.0, "wrong", reason="the question's own expression")
        if same_answer(gold.answer, answer, _rules(self.tolerance, gold.tolerance, self.evaluated)):
            return Verdict(self.name, 1.0, "correct")
        return Verdict(self.name, 0.0, "wrong", reason=f"read {answer!r:.80}")

    def _unparsable(self, reason: str) -> Verdict:
        return Verdict(self.name, 0.0, "unparsable", reason=reason)


@functools.lru_cache(maxsize=64)
def _rules(relative: float, absolute: float | None, evaluated: bool) -> Rules:
    return Rules(relative, absolute, evaluated,
                 functools.partial(same_expression, relative=relative),
                 functools.partial(same_equation, relative=relative))


def read_gold(reference: Any, name: str = "math") -> Gold:
    """Read a reference as :class:`MathAnswer` describes it.

    Raises:
        DataError: no such form, or a gold answer that does not even equal itself.
    """
    tolerance = None
    if isinstance(reference, Mapping):
        tolerance, reference = reference.get("tolerance"), reference.get("answer")
    if (isinstance(reference, bool) or not isinstance(reference, int | float | str)
            or isinstance(tolerance, bool) or not isinstance(tolerance, int | float | None)
            or not _equals_itself(str(reference))):
        raise DataError(f"{name}: the prompt's reference is no answer that can be compared: "
                        f"{reference!r:.80}")
    return Gold(str(reference), tolerance)


@functools.lru_cache(maxsize=4096)
def _equals_itself(gold: str) -> bool:
    return same_answer(gold, gold, _rules(0.0, None, True))


def _echoes(answer: str, gold: str, prompt: Prompt) -> bool:
    """Whether the answer repeats an expression of the question that still has to be worked out."""
    if not _WORK.search(answer) or is_written_out(answer) or squeezed(answer) in squeezed(gold):
        return False
    asked = "".join(m.text[-20_000:] for m in prompt.messages if m.role == "user")
    return squeezed(answer) in squeezed(asked)


def _outgrows(answer: str, gold: str) -> bool:
    """Whether working the answer out would take much longer than the gold answer does."""
    if len(_OPERATOR.findall(answer)) > MAX_OPERATORS + len(_OPERATOR.findall(gold)):
        return True
    return _power(answer) > max(MAX_POWER, _power(gold))


def _power(text: str) -> int:
    """An upper bound of the highest power: the largest exponent of a letter, times those of all
    brackets, since one may stand in the other.
    """
    letters, brackets = 1, 1
    for base, exponent in _POWER.findall(_BOUNDS.sub(" ", text[:MAX_CHARS])):
        value = int(exponent[:9])
        if base.isalpha():
            letters = max(letters, value)
        else:
            brackets *= max(value, 1)
    return letters * brackets


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


_T = "<think>easy</think>"
MathAnswer.cases = (
    Case("good", f"{_T}<answer>$\\frac{{2}}{{4}}$</answer>", 1.0, "\\frac{1}{2}", "correct"),
    Case("good", f"{_T}It is \\boxed{{x^2 + 2x + 1}}.", 1.0, "(x+1)^2", "correct"),
    Case("good", f"{_T}<answer>0.5</answer>", 1.0, "\\frac12"),
    Case("good", f"{_T}<answer>5</answer>", 1.0, 5.0),
    Case("good", f"{_T}\\boxed{{-2, 1}}", 1.0, "1, -2"),
    Case("good", f"{_T}\\boxed{{1 + \\sqrt{{2}}, 1 - \\sqrt{{2}}}}", 1.0, "1 \\pm \\sqrt{2}"),
    Case("good", f"{_T}<answer>x - y = 2</answer>", 1.0, "2x = 2y + 4"),
    Case("good", f"{_T}<answer>12 apples</answer>", 1.0, "12"),
    Case("good", f"{_T}<answer>9.82</answer>", 1.0, {"answer": "9.8", "tolerance": 0.05}),
    Case("bad", f"{_T}<answer>15</answer>", 0.0, "5", "wrong"),
    Case("bad", f"{_T}<answer>$\\frac{{2}}{{3}}$</answer>", 0.0, "\\frac{1}{2}", "wrong"),
    Case("bad", f"{_T}<answer>5 or 15</answer>", 0.0, "5", "wrong"),
    Case("bad", f"{_T}\\boxed{{15}} or \\boxed{{5}}", 0.0, "5", "wrong"),
    Case("bad", f"{_T}<answer>10\\%</answer>", 0.0, "10", "wrong"),
    Case("bad", f"{_T}<answer>[0, 1]</answer>", 0.0, "(0, 1)", "wrong"),
    Case("bad", f"{_T}<answer>3 m</answer>", 0.0, "3 \\text{ cm}", "wrong"),
    Case("bad", f"{_T}<answer>2^{{10}}</answer>", 0.0, "1024", "wrong"),
    Case("bad", f"{_T}<answer>not 5</answer>", 0.0, "5", "unparsable"),
    Case("bad", f"{_T}<answer></answer>", 0.0, "5", "unparsable"),
    Case("bad", "<think>\\boxed{5}", 0.0, "5", "unparsable"),
    *(Case("hostile", text, 0.0, "5") for text in HOSTILE_TEXTS),
    *(Case("hostile", f"{_T}<answer>{text}</answer>", 0.0, "5") for text in HOSTILE_TEXTS),
)
