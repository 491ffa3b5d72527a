"""IFEval: instructions that can be checked (arXiv 2311.07911), all 25 types.

A prompt states instructions ("at least 300 words", "no comma"); each has an id and arguments, as
in the published ``input_data.jsonl``. *Strict*: the response follows them as it is. *Loose*: it
follows them as it is, or without its first line, its last line or both, or any of these without
asterisks. *Instruction level*: the share of instructions followed; *prompt level*: whether all
are. A blank response follows none.

Where this departs from the published code:

1. Only what follows the think block is read, without white space around it and without one
   end-of-turn text.
2. An unknown instruction, a missing, wrong or unread argument is an error, hence an abstention.
3. Words, sentences and languages are counted by rules of our own
   (:mod:`safeladder.verifiers.ifeval.text`), without a download and the same every time.
4. Keywords are text, not regular expressions.
5. A text without letters is in no language (published: in every one).
6. Empty square brackets are no placeholder; paragraph n is the n-th with text in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.errors import DataError
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.format import END_OF_TURN, after_think, answer_text
from safeladder.verifiers.ifeval.instructions import build_checks, follow
from safeladder.verifiers.ifeval.text import language_of


class IFEval(StrictModel):
    """Whether the instructions of the prompt are followed.

    The instructions are in ``Prompt.reference`` or, if that holds none, in ``Prompt.meta``:
    ``{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}``.

    Parts, whatever the score is made of: ``strict`` and ``loose`` (shares of instructions),
    ``strict_all`` and ``loose_all`` (0 or 1), ``instructions`` (their number). Classes by the
    chosen mode: ``followed`` (all), ``partial``, ``not_followed`` (none).
    """

    type: Literal["ifeval"] = "ifeval"
    name: str = "ifeval"
    mode: Literal["strict", "loose"] = "strict"
    score: Literal["share", "all"] = Field(
        default="share", description="share of the instructions followed, or 1 if all are, else 0")
    where: Literal["after_think", "answer"] = Field(
        default="after_think", description="what is judged: all that follows the think block, or "
        "the one <answer> block")

    needs: ClassVar[tuple[str, str]] = ("py3langid", "ifeval")
    cases: ClassVar[tuple[Case, ...]]

    def prepare(self) -> None:
        """Load the language identifier's model before the first verdict."""
        language_of("ready")

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Judge the response; raises DataError when the instructions cannot be read."""
        prompt = trajectory.prompt
        checks = build_checks(self._instructions(prompt.reference, prompt.meta))
        found = follow(self._text(trajectory.response), checks)
        strict = sum(one.strict for one in found) / len(found)
        loose = sum(one.loose for one in found) / len(found)
        parts = {"strict": strict, "loose": loose, "strict_all": float(strict == 1),
                 "loose_all": float(loose == 1), "instructions": float(len(found))}
        share = parts[self.mode]
        score = share if self.score == "share" else parts[f"{self.mode}_all"]
        judged = "followed" if share == 1 else "partial" if share else "not_followed"
        missed = [one.instruction for one in found if not getattr(one, self.mode)]
        reason = f"not followed: {', '.join(missed)}" if missed else ""
        return Verdict(self.name, score, judged, reason=reason, parts=parts)

    def _text(self, response: str) -> str:
        if self.where == "answer":
            return (answer_text(response) or "").strip()
        said = after_think(response).strip()
        for ending in END_OF_TURN:
            if said.endswith(ending):
                return said.removesuffix(ending).rstrip()
        return said

    def _instructions(self, reference: Any, meta: Mapping[str, Any]) -> Mapping[str, Any]:
        for place in (reference, meta):
            if isinstance(place, Mapping) and "instruction_id_list" in place:
                return place
        raise DataError(f"{self.name}: neither the prompt's reference nor its meta has "
                        "instruction_id_list and kwargs")


class IFEvalRates(NamedTuple):
    """The four published accuracies, over judged responses; None when nothing was judged."""

    judged: int
    unjudged: int
    prompt_strict: float | None
    instruction_strict: float | None
    prompt_loose: float | None
    instruction_loose: float | None


def ifeval_rates(verdicts: Iterable[Verdict]) -> IFEvalRates:
    """Prompt level: share of responses that follow all; instruction level: share over all."""
    parts, unjudged = [], 0
    for verdict in verdicts:
        if verdict.score is None:
            unjudged += 1
        else:
            parts.append(verdict.parts)
    if not parts:
        return IFEvalRates(0, unjudged, None, None, None, None)
    total = sum(one["instructions"] for one in parts)
    rates = []
    for mode in ("strict", "loose"):
        rates.append(sum(one[f"{mode}_all"] for one in parts) / len(parts))
        rates.append(sum(one[mode] * one["instructions"] for one in parts) / total)
    return IFEvalRates(len(parts), unjudged, *rates)


def _row(**instructions: Mapping[str, Any]) -> dict[str, Any]:
    """``group__name={...}`` as a reference."""
    return {"instruction_id_list": [key.replace("__", ":") for key in instructions],
            "kwargs": list(instructions.values())}


_T = "<think>They want no commas, so I must be careful.</think>"
_ROW = _row(punctuation__no_comma={}, length_constraints__number_words={
    "relation": "at least", "num_words": 5}, startend__end_checker={"end_phrase": "That is all."})
_LETTERS = _row(keywords__existence={"keywords": ["safety", "ladder"]},
                detectable_format__title={}, detectable_content__number_placeholders={
                    "num_placeholders": 2})
IFEval.cases = (
    Case("good", f"{_T}Here are five short words. That is all.", 1.0, _ROW, "followed"),
    Case("good", "Here are five short words. THAT IS ALL.<|im_end|>", 1.0, _ROW, "followed"),
    Case("good", f"{_T}<<A safety ladder>>\n[name] climbs at [time].", 1.0, _LETTERS, "followed"),
    Case("good", "Suomi on kaunis maa, ja ihmiset puhuvat suomea.", 1.0,
         _row(language__response_language={"language": "fi"}), "followed"),
    Case("good", "EVERYTHING IN THIS ANSWER IS WRITTEN IN CAPITAL LETTERS.", 1.0,
         _row(change_case__english_capital={}), "followed"),
    Case("bad", f"{_T}One, two, three. That is all.", 2 / 3, _ROW, "partial"),
    Case("bad", f"{_T}Short, indeed.", 0.0, _ROW, "not_followed"),
    Case("bad", "<think>Here are five short words. That is all.</think>", 0.0, _ROW,
         "not_followed"),
    Case("bad", "<think>Here are five short words. That is all.", 0.0, _ROW, "not_followed"),
    Case("bad", "<<>>\n[] [ ]", 0.0, _LETTERS, "not_followed"),
    Case("bad", "Finland is a beautiful country and people speak Finnish.", 0.0,
         _row(language__response_language={"language": "fi"}), "not_followed"),
    Case("bad", "Everything In Capitals", 0.0, _row(change_case__english_capital={}),
         "not_followed"),
    *(Case("hostile", text, 2 / 3, _ROW) for text in HOSTILE_TEXTS),
    *(Case("hostile", text, 0.0, _LETTERS) for text in HOSTILE_TEXTS),
)
