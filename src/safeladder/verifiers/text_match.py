r"""Exact match and token F1 against a list of accepted answers, in the manner of SQuAD.

Normalisation (arXiv 1606.05250): lower case, punctuation removed, the articles "a", "an", "the"
removed, white space collapsed. With the accepted answers g_j and P the answer, all normalised::

    exact = max_j [P = g_j]
    f1    = max_j 2 |P & g_j| / (|P| + |g_j|)     & the common tokens, counted as often as in both

Departures, each because the published rule gives a full score to something else:

1. Numbers keep their sign, decimal point and percent sign: SQuAD's rule makes 1.5 equal 15, -5
   equal 5 and 10% equal 10. Commas between digits go only where they part thousands.
2. "+" and "#" right after a letter stay: C++, C# and C are three answers.
3. An accepted answer of which nothing is left ("The", "A", "!") is compared as it is written.
4. A Chinese character is a token, and punctuation is Unicode's and not only ASCII's.

``published: true`` gives the first two up, for figures that are compared with others'. F1 knows no
order ("man bites dog"): where that matters, the score must be ``exact``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.errors import DataError
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.format import ANSWER_CLOSE, ANSWER_OPEN, END_OF_TURN, after_think
from safeladder.verifiers.words import HAN

MAX_CHARS = 100_000
"""A longer answer (characters) is no short answer and scores 0."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_POINT = re.compile(r"(?<=\d)[.,](?=\d)|(?<!\w)\.(?=\d)")
_MINUS = re.compile(r"(?<![\w)\]])[-\u2212](?=[.\d])")
_PERCENT = re.compile(r"(?<=\d)\s{0,4}%")
_NAME_SIGN = re.compile(r"(?<=[a-z])[+#]{1,2}(?!\w)")
_KEPT = {"point": "\ue000", "minus": "\ue001", "%": "\ue002", "+": "\ue003", "#": "\ue004"}
"""Private characters that stand for signs while punctuation is removed; any of them in the text
itself is dropped first."""


def last_answer(response: str) -> str:
    """The last complete answer block outside of thinking, else all that follows the thinking."""
    said = after_think(response)
    end = said.rfind(ANSWER_CLOSE)
    start = said.rfind(ANSWER_OPEN, 0, max(end, 0))
    if start >= 0:
        return said[start + len(ANSWER_OPEN):end]
    said = said.rstrip()
    for text in END_OF_TURN:
        said = said.removesuffix(text)
    return said


def normalised(text: str, published: bool = False) -> str:
    """SQuAD's normalisation, with the departures of the module unless ``published``."""
    text = text.lower()
    if not published:
        text = text.translate(_DROP_KEPT)
        text = _POINT.sub(_KEPT["point"], _THOUSANDS.sub("", text))
        text = _PERCENT.sub(_KEPT["%"], _MINUS.sub(_KEPT["minus"], text))
        text = _NAME_SIGN.sub(lambda m: "".join(_KEPT[c] for c in m.group()), text)
    text = text.translate(_punctuation())
    return " ".join(_ARTICLES.sub(" ", text).split())


def tokens(text: str) -> list[str]:
    """Tokens of a normalised text: parted by spaces, a Chinese character on its own."""
    return HAN.sub(r" \g<0> ", text).split()


def token_f1(answer: str, gold: str) -> float:
    """F1 of two normalised texts; 0 when either is empty."""
    found, wanted = tokens(answer), tokens(gold)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


class TextMatch(StrictModel):
    """Exact match or token F1, the best over all accepted answers; see the module.

    Read is the last ``<answer>`` block if there is one, else what follows the thinking. The
    reference is a text or number, a list of them, or a mapping with ``answer`` or ``answers`` and
    perhaps ``aliases``. Classes: ``correct`` (exact), ``partial`` (F1 above 0), ``wrong``,
    ``no_answer``. Parts: ``exact`` and ``f1``.
    """

    type: Literal["text_match"] = "text_match"
    name: str = "text_match"
    score: Literal["exact", "f1"] = "exact"
    published: bool = Field(default=False, description="SQuAD's own rule for numbers "
                            "and names: departures 1 and 2 of the module left out")

    cases: ClassVar[tuple[Case, ...]]

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Compare; raises DataError when the reference holds no answer."""
        golds = _golds(accepted(trajectory.prompt.reference, self.name), self.published)
        said = last_answer(trajectory.response)
        if not said.strip() or len(said) > MAX_CHARS:
            return self._verdict(0.0, 0.0, "no_answer")
        answer = normalised(said, self.published)
        plain = _collapsed(said)
        if any(answer == gold.text if gold.text else plain == gold.plain for gold in golds):
            return self._verdict(1.0, 1.0, "correct")
        f1 = max((token_f1(answer, gold.text) for gold in golds), default=0.0)
        return self._verdict(0.0, f1, "partial" if f1 > 0 else "wrong")

    def _verdict(self, exact: float, f1: float, verdict_class: str) -> Verdict:
        return Verdict(self.name, exact if self.score == "exact" else f1, verdict_class,
                       parts={"exact": exact, "f1": f1})


class _Gold(NamedTuple):
    text: str
    """Normalised; may be empty."""
    plain: str
    """Lower case and spaces only, for a gold of which normalisation leaves nothing."""


def accepted(reference: Any, name: str = "text_match") -> tuple[str, ...]:
    """All accepted answers of a reference, as text; a number 5.0 is "5.0" and "5".

    Raises:
        DataError: none, or one that is neither text nor number.
    """
    values: list[Any] = [reference]
    if isinstance(reference, Mapping):
        values = [reference[key] for key in ("answer", "answers", "aliases") if key in reference]
    flat = [one for value in values
            for one in (value if isinstance(value, list | tuple) else [value])]
    if not flat or any(isinstance(one, bool) or not isinstance(one, str | int | float)
                       or not str(one).strip() for one in flat):
        raise DataError(f"{name}: the prompt's reference must be an answer, a list of answers or a "
                        f"mapping with 'answer', found {reference!r:.80}")
    whole = [str(int(one)) for one in flat if isinstance(one, float) and one.is_integer()]
    return (*map(str, flat), *whole)


@lru_cache(maxsize=4096)
def _golds(texts: tuple[str, ...], published: bool) -> Sequence[_Gold]:
    return [_Gold(normalised(text, published), _collapsed(text)) for text in texts]


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


@lru_cache(maxsize=1)
def _punctuation() -> dict[int, None]:
    # No punctuation has a code point beyond the first two planes.
    marks = {code for code in range(0x20000)
             if unicodedata.category(chr(code)).startswith("P")}
    return dict.fromkeys(marks | {ord(c) for c in "$+<=>^`|~"})


_DROP_KEPT = {ord(mark): None for mark in _KEPT.values()}
_T = "<think>Paris or London?</think>"
_GOLD = {"answer": "the Eiffel Tower", "aliases": ["La tour Eiffel"]}
TextMatch.cases = (
    Case("good", f"{_T}<answer>Eiffel Tower.</answer>", 1.0, _GOLD, "correct"),
    Case("good", f"{_T}la Tour  Eiffel", 1.0, _GOLD, "correct"),
    Case("good", f"{_T}<answer>Lyon</answer> no: <answer>Paris</answer>", 1.0, ["Paris"]),
    Case("good", f"{_T}1,500.0<|im_end|>", 1.0, "1500.0"),
    Case("good", f"{_T}\u5317\u4eac\u3002", 1.0, "\u5317\u4eac"),
    Case("good", f"{_T}A", 1.0, "A"),
    Case("bad", f"{_T}<answer>Eiffel</answer>", 0.0, _GOLD, "partial"),
    Case("bad", f"{_T}<answer>tower Eiffel</answer>", 0.0, _GOLD, "partial"),
    Case("bad", f"{_T}<answer>Paris or London</answer>", 0.0, "Paris", "partial"),
    Case("bad", f"{_T}<answer>Lyon</answer>", 0.0, "Paris", "wrong"),
    Case("bad", f"{_T}<answer>15</answer>", 0.0, "1.5", "wrong"),
    Case("bad", f"{_T}5", 0.0, "-5", "wrong"),
    Case("bad", f"{_T}10%", 0.0, "10", "wrong"),
    Case("bad", f"{_T}C", 0.0, "C++", "wrong"),
    Case("bad", f"{_T}the", 0.0, "A", "wrong"),
    Case("bad", "<think>Paris", 0.0, "Paris", "no_answer"),
    Case("bad", "<think><answer>Paris</answer></think>", 0.0, "Paris", "no_answer"),
    *(Case("hostile", text, 0.0, _GOLD) for text in HOSTILE_TEXTS),
    *(Case("hostile", f"{_T}<answer>{text}</answer>", 0.0, _GOLD) for text in HOSTILE_TEXTS),
)
