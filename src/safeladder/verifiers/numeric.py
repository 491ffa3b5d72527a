r"""Exact numeric answers (AIME, AMC, GSM8K): the whole number is compared, never a substring.

Logic-RL's math evaluation counted an answer as right when the gold string occurred anywhere in
it, so that "5" matched "15". Here one number is extracted by a stated mode and compared as an
exact fraction: 142, 142.0 and 142.00 are equal, 15 and 5 are not.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field, FiniteFloat

from safeladder.config import StrictModel
from safeladder.errors import DataError
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.format import after_think, answer_text

Where = Literal["answer", "boxed", "last"]

_MAX_DIGITS = 64
MAX_FORMS = 16
"""Ways in which an answer may write its one number (5, 5.0, 10/2); more are more numbers."""
_NUMBER = re.compile(
    r"(?<![\w.])(?<!\d,)(?<!\d/)(?:(?<![\w)\]}] )[-+\u2212] ?+)?+"
    r"(?:\\[dt]?frac\{\d{1,64}\}\{\d{1,64}\}"
    r"|(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?+(?:/\d++)?+)(?!\w|[.,/]\d)")
_BRACE = re.compile(r"[{}]")
_WRAPPERS = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|left|right|quad)(?![a-zA-Z])"
                       r"|\\[\[\]()$%,;: ]")
_OPERATORS = re.compile(r"[\\^*/+!<>\u221a\u03c0]")
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def numbers_in(text: str) -> list[Fraction]:
    r"""All numbers that stand alone, in order: 12, -3.50, 1,234, 3/4, \frac{3}{4}.

    Not numbers: digits glued to letters ("x5"), to further dots or commas ("1.2.3", "1,2"), or
    longer than 64 characters. Linear time.
    """
    values = (to_fraction(match.group()) for match in _NUMBER.finditer(text))
    return [value for value in values if value is not None]


def last_number(text: str) -> Fraction | None:
    """The last of :func:`numbers_in`, the only one that is converted."""
    written = _NUMBER.findall(text)
    values = (to_fraction(form) for form in reversed(written))
    return next((value for value in values if value is not None), None)


def to_fraction(text: str) -> Fraction | None:
    """Read one number as :func:`numbers_in` writes them; None if it is none."""
    text = text.strip().replace("\u2212", "-").replace(",", "").replace(" ", "")
    if len(text) > _MAX_DIGITS:
        return None
    match = _FRACTION.fullmatch(text)
    if match:
        text = f"{match.group(1)}{match.group(2)}/{match.group(3)}"
    if not re.fullmatch(r"[-+]?\d+(?:\.\d+)?(?:/\d+)?", text, re.ASCII):
        return None
    above, _, below = text.partition("/")
    if below and int(below) == 0:
        return None
    return Fraction(above) / Fraction(below or 1)


def single_number(text: str) -> Fraction | str:
    r"""The one number an answer states, or why it does not state one.

    Words, units, ``x =`` and LaTeX wrappers may stand around it; equal repetitions count once.
    Several numbers and expressions (\sqrt{5}, 10^5, 5!) are refused: no number in them is it.
    """
    text = text.replace("**", " ")
    written = {match.group() for match in _NUMBER.finditer(text)}
    if len(written) > MAX_FORMS:
        return f"{len(written)} different numbers in the answer, expected one"
    distinct = {value for form in written if (value := to_fraction(form)) is not None}
    if len(distinct) != 1:
        return f"{len(distinct)} different numbers in the answer, expected one"
    if _OPERATORS.search(_WRAPPERS.sub("", _NUMBER.sub("", text))):
        return "an expression, not a number"
    return distinct.pop()


def boxed_text(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}`` with balanced braces; None if there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed")
    for match in _BRACE.finditer(text, begin):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return text[begin + 1:match.start()]
    return None


class NumericAnswer(StrictModel):
    r"""1 when the response's number equals the reference, else 0.

    Only what follows the think block is read. ``where`` lists the places to look in; the first
    place that is there decides, and except for ``last`` it must hold exactly one number
    (:func:`single_number`), so a list of guesses is unparsable:

    - ``answer``: the one ``<answer>`` block;
    - ``boxed``: the last ``\boxed{}``;
    - ``last``: the last number of all (lenient; for models that were never told a format).

    Classes: ``correct``, ``wrong``, ``unparsable``. The reference is a number, its text, or a
    mapping with ``answer``.
    """

    type: Literal["numeric"] = "numeric"
    name: str = "numeric"
    where: tuple[Where, ...] = Field(default=("answer", "boxed"), min_length=1)
    tolerance: FiniteFloat = Field(default=0.0, ge=0, description="largest absolute difference")

    cases: ClassVar[tuple[Case, ...]]

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Compare; raises DataError when the reference is no number."""
        gold = self._gold(trajectory.prompt.reference)
        found = self._extract(trajectory.response)
        if not isinstance(found, Fraction):
            return Verdict(self.name, 0.0, "unparsable", reason=found)
        if abs(found - gold) <= Fraction(self.tolerance):
            return Verdict(self.name, 1.0, "correct")
        return Verdict(self.name, 0.0, "wrong", reason=f"{found}, expected {gold}")

    def _extract(self, response: str) -> Fraction | str:
        said = after_think(response)
        for where in self.where:
            if where == "last":
                last = last_number(said)
                return "no number" if last is None else last
            place = answer_text(response) if where == "answer" else boxed_text(said)
            if place is None:
                continue
            if where == "answer":
                place = boxed_text(place) or place
            return single_number(place)
        return f"none of: {', '.join(self.where)}"

    def _gold(self, reference: Any) -> Fraction:
        if isinstance(reference, dict) and "answer" in reference:
            reference = reference["answer"]
        if isinstance(reference, int | float | str):
            gold = to_fraction(str(reference))
            if gold is not None:
                return gold
        raise DataError(f"{self.name}: the prompt's reference is no number: {reference!r:.80}")


_T = "<think>2 + 3</think>"
NumericAnswer.cases = (
    Case("good", f"{_T}<answer>5</answer>", 1.0, 5, "correct"),
    Case("good", f"{_T}<answer>The answer is $\\boxed{{5.0}}$.</answer>", 1.0, "5"),
    Case("good", f"{_T}So it is \\boxed{{\\frac{{10}}{{2}}}}.", 1.0, 5.0),
    Case("good", f"{_T}<answer>1,005</answer>", 1.0, {"answer": "1005"}),
    Case("bad", f"{_T}<answer>15</answer>", 0.0, 5, "wrong"),
    Case("bad", f"{_T}<answer>5 or 15</answer>", 0.0, 5, "unparsable"),
    Case("bad", f"{_T}<answer>-5</answer>", 0.0, 5, "wrong"),
    Case("bad", "<think>so <answer>5</answer>", 0.0, 5, "unparsable"),
    Case("bad", f"{_T}5", 0.0, 5, "unparsable"),
    *(Case("hostile", text, 0.0, 5) for text in HOSTILE_TEXTS),
    *(Case("hostile", f"{_T}<answer>{text}</answer>", 0.0, 5) for text in HOSTILE_TEXTS),
)
