r"""Language consistency: question, thinking and answer in the same language, Chinese or English.

With Z the Chinese characters and E the English words of a text::

    language = none   if Z + E = 0 (numbers and formulas only)
             = zh     if Z / (Z + E) > 0.5
             = en     otherwise

    score = 1  if thinking and answer are each in the question's language, or in none
          = 0  otherwise, or if there is no answer

Commands of LaTeX and fenced code count as no words. When the question itself has no language, the
answer's is the one that the thinking is held against. ``Prompt.meta["language"]`` (zh or en)
takes the place of the question's, for tasks such as translation.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from safeladder.config import StrictModel
from safeladder.errors import DataError
from safeladder.render.think import split_think
from safeladder.types import Prompt, Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.words import HAN, LATIN_WORD

Language = Literal["zh", "en"]

_MARKUP = re.compile(r"\\[a-zA-Z]++|</?+[a-zA-Z]++>|<\|[a-z_]{1,20}\|>")


def language_of(text: str) -> Language | None:
    """The language of a text by the formula above; None when it has no words."""
    prose = _MARKUP.sub(" ", " ".join(text.split("```")[::2]))
    chinese = sum(1 for _ in HAN.finditer(prose))
    english = sum(1 for _ in LATIN_WORD.finditer(prose))
    if chinese + english == 0:
        return None
    return "zh" if chinese > english else "en"


class LanguageConsistency(StrictModel):
    """1 when thinking and answer keep to the question's language; see the module.

    Classes: ``consistent``, ``mixed``, ``no_answer``. Parts: ``thinking`` and ``answer``, each 1
    or 0. The last user message is the question.
    """

    type: Literal["language"] = "language"
    name: str = "language"

    cases: ClassVar[tuple[Case, ...]]

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Compare; raises DataError when ``meta["language"]`` is neither zh nor en."""
        thinking, answer = split_think(trajectory.response)
        if not answer.strip():
            return self._verdict(False, False, "no_answer", "nothing outside the thinking")
        said = language_of(answer)
        wanted = _wanted(trajectory.prompt) or said
        thought = language_of(thinking or "")
        thinking_fits, answer_fits = thought in (wanted, None), said in (wanted, None)
        if wanted is None or (thinking_fits and answer_fits):
            return self._verdict(True, True, "consistent", "")
        return self._verdict(thinking_fits, answer_fits, "mixed",
                             f"wanted {wanted}, thinking {thought}, answer {said}")

    def _verdict(self, thinking: bool, answer: bool, verdict_class: str, reason: str) -> Verdict:
        return Verdict(self.name, float(thinking and answer), verdict_class, reason=reason,
                       parts={"thinking": float(thinking), "answer": float(answer)})


def _wanted(prompt: Prompt) -> Language | None:
    given = prompt.meta.get("language")
    if given is not None:
        if given not in ("zh", "en"):
            raise DataError(f"language: the prompt's meta['language'] must be zh or en, found "
                            f"{given!r:.40}")
        return given  # type: ignore[no-any-return]  # one of the two, as just checked
    questions = [message for message in prompt.messages if message.role == "user"]
    return language_of(questions[-1].text) if questions else None


_ZH = "\u7b54\u6848\u662f\u56db\u3002"
_THINK_ZH = "<think>\u4e8c\u52a0\u4e8c\u7b49\u4e8e\u56db</think>"
_THINK_EN = "<think>two and two make four</think>"
_CHINESE = {"language": "zh"}
_ENGLISH = {"language": "en"}
LanguageConsistency.cases = (
    Case("good", f"{_THINK_EN}It is four.", 1.0, None, "consistent", _ENGLISH),
    Case("good", f"{_THINK_ZH}{_ZH}", 1.0, None, "consistent", _CHINESE),
    Case("good", f"{_THINK_ZH}\u7528 Python \u7684 print \u51fd\u6570\u3002 ```python\nprint(four)"
         "```", 1.0, None, "consistent", _CHINESE),
    Case("good", f"{_THINK_ZH}$\\frac{{8}}{{2}} = 4$", 1.0, None, "consistent", _CHINESE),
    Case("bad", f"{_THINK_ZH}It is four.", 0.0, None, "mixed", _ENGLISH),
    Case("bad", f"{_THINK_EN}{_ZH}", 0.0, None, "mixed", _CHINESE),
    Case("bad", f"{_THINK_ZH}It is four.", 0.0, None, "mixed"),
    Case("bad", f"{_THINK_EN}{_ZH}", 0.0, None, "mixed", _ENGLISH),
    Case("bad", _THINK_EN, 0.0, None, "no_answer", _ENGLISH),
    *(Case("hostile", f"{_THINK_ZH}It is four. {text}", 0.0, None, None, _CHINESE)
      for text in HOSTILE_TEXTS),
    *(Case("hostile", text, 1.0, None, None, _ENGLISH) for text in HOSTILE_TEXTS),
)
