"""Multiple choice: the letter, or the text, of exactly one option.

How an answer is read, and what is refused, says :mod:`safeladder.verifiers.choice_text`. An
answer that states no single option is ``unparsable`` and scores 0: the official MMMU parser draws
an option at random there, which rewards saying nothing with 1 / number of options.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

from safeladder.config import StrictModel
from safeladder.errors import DataError
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.choice_text import LETTERS, read_choice
from safeladder.verifiers.text_match import last_answer, normalised


class Question(NamedTuple):
    """What a reference says."""

    letter: str
    options: Mapping[str, str]
    """Letter -> text; the text is empty where only letters are known."""


class Choice(StrictModel):
    """1 when the answer states the right option and no other, else 0.

    Read is the last ``<answer>`` block if there is one, else what follows the thinking. The
    reference is a letter from A to J, or ``{"answer": "B", "options": ["Paris", "Lyon"]}``, options
    also as ``{"A": "Paris", ...}`` and the answer also as the right option's text. With options,
    letters beyond them are none, and an option may be named by its text.

    Classes: ``correct``, ``wrong``, ``unparsable``.
    """

    type: Literal["choice"] = "choice"
    name: str = "choice"

    cases: ClassVar[tuple[Case, ...]]

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Compare; raises DataError when the reference names no option."""
        question = read_question(trajectory.prompt.reference, self.name)
        reading = read_choice(last_answer(trajectory.response), question.options)
        if reading.letter is None:
            return Verdict(self.name, 0.0, "unparsable", reason=reading.reason)
        if reading.letter == question.letter:
            return Verdict(self.name, 1.0, "correct")
        return Verdict(self.name, 0.0, "wrong",
                       reason=f"{reading.letter}, expected {question.letter}")


def read_question(reference: Any, name: str = "choice") -> Question:
    """Read a reference as :class:`Choice` describes it.

    Raises:
        DataError: no such form, or the answer is no option.
    """
    options: Any = None
    answer = reference
    if isinstance(reference, Mapping):
        answer, options = reference.get("answer"), reference.get("options")
    if isinstance(options, Mapping):
        options = tuple((str(key).strip("() .").upper(), str(text))
                        for key, text in options.items())
    elif isinstance(options, list | tuple):
        options = tuple(zip(LETTERS, map(str, options), strict=False)
                        ) if len(options) <= len(LETTERS) else ()
    elif options is None:
        options = tuple((letter, "") for letter in LETTERS)
    question = isinstance(answer, str) and isinstance(options, tuple) and _question(answer, options)
    if not question:
        raise DataError(f"{name}: the prompt's reference must be a letter of A to {LETTERS[-1]}, "
                        f"or a mapping with such an answer and its options, found "
                        f"{reference!r:.80}")
    return question


@lru_cache(maxsize=4096)
def _question(answer: str, options: tuple[tuple[str, str], ...]) -> Question | None:
    table = dict(options)
    if not table or len(table) != len(options) or not set(table) <= set(LETTERS):
        return None
    letter = answer.strip("() .").upper()
    if letter in table:
        return Question(letter, table)
    right = [key for key, text in table.items() if text and normalised(text) == normalised(answer)]
    return Question(right[0], table) if len(right) == 1 else None


_T = "<think>A dog? (C)? I think so.</think>"
_GOLD = {"answer": "B", "options": ["a cat", "a dog", "a horse", "a cat and a dog"]}


def _cases() -> tuple[Case, ...]:
    good = ("B", "(B)", "B.", "**B**", "b", "(b)", "Answer: B", "The answer is (B).",
            "\\boxed{B}", "\\boxed{\\text{(B) a dog}}", "<answer>B</answer>", "B. a dog",
            "It says woof. **Answer:** B", "A dog.", "The answer is a dog.",
            "I would say that it is a dog.", "(A) is wrong, so the answer is B because it barks.",
            "Answer: A. Wait, no. Answer: B", "The dog's bark gives it away: it is a dog.",
            "A dog. It has a tail.", "Horse? No.\nThe answer is a dog.",
            "Not (C), since it barks: option B is correct.",
            "\u7b54\u6848\uff1aB", "\u6545\u9009 B\u3002", "(A) a cat\n(B) a dog\n(C) a horse\nB")
    wrong = ("A", "The answer is (A).", "\\boxed{C}", "a cat", "It is a cat and a dog.",
             "Answer: B. Sorry, the answer is C.", "<answer>B</answer><answer>D</answer>")
    unparsable = ("", "A or B", "B or C", "(A) (B) (C) (D)", "The answer is either A or B.",
                  "\\boxed{A, B}", "<answer>A B C D</answer>", "Answer: B or maybe C",
                  "Answer: B. Or perhaps (C).", "A. a cat B. a dog C. a horse", "not (B)",
                  "The answer is not B.", "The answer cannot be B.", "It is not a dog.",
                  "Answer: B. a horse", "Answer: E", "A difficult question, I think.",
                  "(A) a cat\n(B) a dog", "a cat or a dog?", "a horse and a dog", "Answer: A/B")
    return (*(Case("good", _T + text, 1.0, _GOLD, "correct") for text in good),
            *(Case("bad", _T + text, 0.0, _GOLD, "wrong") for text in wrong),
            *(Case("bad", _T + text, 0.0, _GOLD, "unparsable") for text in unparsable),
            Case("good", f"{_T}Answer: J", 1.0, "J", "correct"),
            Case("bad", f"{_T}A dog is what I see.", 0.0, "A", "unparsable"),
            Case("bad", f"{_T}I think so.", 0.0, "I", "unparsable"),
            Case("bad", "<think>Answer: B", 0.0, _GOLD, "unparsable"),
            Case("bad", "<think>\\boxed{B}</think>", 0.0, _GOLD, "unparsable"),
            *(Case("hostile", text, 0.0, _GOLD) for text in HOSTILE_TEXTS),
            *(Case("hostile", f"{_T}<answer>{text}</answer>", 0.0, _GOLD)
              for text in HOSTILE_TEXTS))


Choice.cases = _cases()
