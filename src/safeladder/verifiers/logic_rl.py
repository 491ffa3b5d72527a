"""Logic-RL's reward for Knights and Knaves (arXiv 2502.14768, section 2.2), its holes closed.

Totals as published: +3 correct, -0.5 wrong, -1 well formed but unparsable, -3 badly formed; the
sum of a format part (+1, -1) and an answer part (+2 correct, -1.5 wrong, -2 unparsable or badly
formed), which stay apart in ``Verdict.parts``. Where the published scoring code can be fooled or
is blind, this one departs from it:

1. It scored prompt and response together, cut at the first "Assistant:" anywhere. Here only the
   response is read; "Assistant:" or chat markers mean nothing, in the prompt or out of it.
2. Empty thinking scored +3 (a guess is right 2^-n of the time). Here the think block needs a
   word, and must not be the example's placeholder ("reasoning process here").
3. Text between ``</think>`` and ``<answer>``, before ``<think>`` or after ``</answer>`` went
   unpunished. Here only whitespace may stand there, and one end-of-turn text at the end.
4. A right answer in bold, after a colon or as "is the knave" was unparsable, and so was any
   further "knight" in the answer. Here one tolerant parser (:func:`parse_answer`) reads it.
5. Evaluation used another, laxer parser than training. Here both use this verifier.
6. The first match of a name won, so "X is a knight. X is a knave" could score. Here a person
   named twice, a role without a person or a person who is not in the puzzle is unparsable.
7. A total of -1 was logged as a format error and mean reward as accuracy. Here the classes
   ``correct``, ``wrong``, ``unparsable`` and ``bad_format`` are kept apart (:func:`logic_rates`).
8. Reasoning inside the answer block passed if the counts fitted. Here names and roles stand
   there in entries only, with few other words (``MAX_OTHER_WORDS``).

Kept as published: each tag exactly once and in order, a badly formed response gets -2 for its
answer even if that is right, no partial credit, no length or language term.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.errors import DataError
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.format import END_OF_TURN, read_response

ROLE_WORDS = ("knight", "knave")
ROLE_PAIRS = (ROLE_WORDS, ("pioneer", "laggard"), ("saint", "sinner"), ("hero", "villain"),
              ("angel", "devil"), ("altruist", "egoist"), ("sage", "fool"))
"""The pairs of words in the published puzzles and in their perturbed twins."""
MAX_OTHER_WORDS = 20
"""Words in an answer that belong to no entry ("and" is free): more of them are reasoning."""

_BETWEEN = frozenset(["is", "a", "an", "the", ":", "=", "-", "\u2013", "\u2014", ">", "\u2192",
                      "(", "[", "|", ",", '"', "'", "\u201c", "\u201d"])
"""What may stand between a name and its role."""

_HEDGES = frozenset(["not", "never", "neither", "nor", "or", "either", "if", "unless", "except",
                     "maybe", "perhaps", "possibly", "might", "may", "could", "false", "wrong",
                     "incorrect", "opposite", "reverse", "versa", "otherwise",
                     "isn't", "isn\u2019t", "aren't", "aren\u2019t", "can't", "can\u2019t",
                     "cannot", "?", "/"])
"""An answer with one of these (outside a name) asserts no single assignment."""

_TOKEN = re.compile(r"\w++(?:[-'\u2019]\w++)*+|[^\w\s]")
_MARKUP = {ord(c): " " for c in "*_#~`\\$"}
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ud800-\udfff]")

Lexicon = Mapping[str, Sequence[tuple[tuple[str, ...], bool, str]]]
"""First token -> (all tokens, is a name, name or role), longest first."""


def parse_answer(
    text: str, names: Sequence[str], role_words: Sequence[str] = ROLE_WORDS,
) -> dict[str, str] | None:
    """Read who is what; None when the text does not give every person exactly one role.

    An entry is ``NAME [is] [a|an|the] ROLE`` with markdown, quotes, colons, dashes, commas, bars
    or an opening bracket allowed in between: "(1) Zoey is a knight", "**Zoey**: knave",
    "Zoey knight Bob knave", "| Zoey | knave |". Upper and lower case are equal, names match whole
    words only, numbers and punctuation separate entries. Right after a name the words of that
    form are the form, even where a person is called "A" or "Is".

    None, too, for: a person named twice or without a role; a role with no person right before it
    (extra people, "is a knight or a knave"); negations and hedges ("is not a knight": the role has
    to be named, not excluded); one role for several people ("A and B are knights"); control,
    bidirectional or invisible characters; more than ``MAX_OTHER_WORDS`` other words. Linear time.

    Args:
        text: The answer alone, without its tags.
        names: The people of the puzzle, distinct up to case.
        role_words: The words for truth-teller and liar, or others.

    Raises:
        DataError: names or role words are empty, clash or contain nothing readable.
    """
    lexicon = _lexicon(tuple(names), tuple(role_words))
    if _INVISIBLE.search(text):
        return None
    found: dict[str, str] = {}
    pending: str | None = None
    other_words = skip = 0
    tokens = _tokens(text)
    for i, token in enumerate(tokens):
        if skip:
            skip -= 1
            continue
        if pending is not None and token in _BETWEEN:
            continue
        hit = _entry_at(tokens, i, lexicon) if token in lexicon else None
        if hit is not None:
            words, is_name, value = hit
            skip = len(words) - 1
            if is_name:
                if pending is not None or value in found:
                    return None
                pending = value
            elif pending is None:
                return None
            else:
                found[pending], pending = value, None
        elif pending is not None or token in _HEDGES:
            return None
        elif token[0].isalpha() and token != "and":
            other_words += 1
            if other_words > MAX_OTHER_WORDS:
                return None
    return found if len(found) == len(names) else None


def reference_from_text(solution_text_format: str) -> dict[str, list[str]]:
    r"""Turn verl's ``solution_text_format`` ("(1) Zoey is a knight\n(2) ...") into a reference.

    Raises:
        DataError: a line does not read so.
    """
    names, roles = _read_solution(solution_text_format)
    return {"names": list(names), "roles": list(roles)}


class LogicRL(StrictModel):
    r"""Logic-RL's reward; the module's docstring has the rule and every departure.

    ``Prompt.reference`` is ``{"names": [...], "roles": ["knight", "knave", ...]}`` with an optional
    ``"role_words"``, or verl's ``{"solution_text_format": "(1) X is a knight\n..."}``. Without
    ``"role_words"`` the words are those of the first of ``role_pairs`` that has all roles.
    """

    type: Literal["logic_rl"] = "logic_rl"
    name: str = "logic_rl"
    role_pairs: tuple[tuple[str, str], ...] = Field(
        default=ROLE_PAIRS, min_length=1, description="words for truth-teller and liar, in any "
        "order; used when the reference does not name its own")
    min_think_words: int = Field(default=1, ge=1, description="words a think block needs")
    end_of_turn: tuple[str, ...] = Field(
        default=END_OF_TURN, description="texts of which one may follow </answer>")

    cases: ClassVar[tuple[Case, ...]]

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Judge the response; raises DataError when the reference cannot be read."""
        names, roles, words = self._read_reference(trajectory.prompt.reference)
        sections = read_response(trajectory.response, self.min_think_words, self.end_of_turn)
        if sections.problem:
            return self._verdict("bad_format", -1.0, -2.0, sections.problem)
        found = parse_answer(sections.answer, names, words)
        if found is None:
            return self._verdict("unparsable", 1.0, -2.0, "no single role for every person")
        wrong = [n for n, role in zip(names, roles, strict=True) if found[n] != role.casefold()]
        if wrong:
            return self._verdict("wrong", 1.0, -1.5, f"wrong: {', '.join(wrong)}")
        return self._verdict("correct", 1.0, 2.0, "")

    def _verdict(self, verdict_class: str, form: float, answer: float, reason: str) -> Verdict:
        return Verdict(self.name, form + answer, verdict_class, reason=reason,
                       parts={"format": form, "answer": answer})

    def _read_reference(
        self, reference: Any,
    ) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        if not isinstance(reference, Mapping):
            raise DataError(f"{self.name}: the prompt's reference must be a mapping with names and "
                            f"roles, found {type(reference).__name__}")
        if "names" in reference and "roles" in reference:
            names, roles = reference["names"], reference["roles"]
        elif "solution_text_format" in reference:
            names, roles = _read_solution(reference["solution_text_format"])
        else:
            raise DataError(f"{self.name}: the prompt's reference has neither names and roles nor "
                            f"solution_text_format, only: {', '.join(map(str, reference))}")
        if len(names) != len(roles) or not names:
            raise DataError(f"{self.name}: {len(names)} names but {len(roles)} roles")
        given = reference.get("role_words")
        pairs = self.role_pairs if given is None else (tuple(given),)
        return names, roles, _words_for(tuple(roles), pairs)


class LogicRates(NamedTuple):
    """Shares of the judged responses; they are NaN-free: None when nothing was judged."""

    judged: int
    unjudged: int
    accuracy: float | None
    format_error_rate: float | None
    parse_failure_rate: float | None
    """Well formed, but the answer gives no single role for every person."""
    wrong_rate: float | None


def logic_rates(verdicts: Iterable[Verdict]) -> LogicRates:
    """Accuracy, format errors and parse failures, each on its own; unjudged rows left out."""
    counts = dict.fromkeys(["correct", "bad_format", "unparsable", "wrong"], 0)
    unjudged = 0
    for verdict in verdicts:
        if verdict.score is None:
            unjudged += 1
        else:
            counts[verdict.verdict_class or ""] += 1
    judged = sum(counts.values())
    shares = [count / judged if judged else None for count in counts.values()]
    return LogicRates(judged, unjudged, *shares)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.casefold().translate(_MARKUP))


def _entry_at(
    tokens: Sequence[str], i: int, lexicon: Lexicon,
) -> tuple[tuple[str, ...], bool, str] | None:
    for entry in lexicon[tokens[i]]:
        words = entry[0]
        if len(words) == 1 or tuple(tokens[i:i + len(words)]) == words:
            return entry
    return None


@lru_cache(maxsize=4096)
def _lexicon(names: tuple[str, ...], role_words: tuple[str, ...]) -> Lexicon:
    lexicon: dict[str, list[tuple[tuple[str, ...], bool, str]]] = {}
    seen: set[tuple[str, ...]] = set()
    for value, is_name in [(n, True) for n in names] + [(r, False) for r in role_words]:
        words = tuple(_tokens(value))
        if not words or words in seen or _INVISIBLE.search(value):
            what = "name" if is_name else "role word"
            raise DataError(f"logic_rl: {what} {value!r} is empty, unreadable or used twice")
        seen.add(words)
        entry = (words, is_name, value if is_name else value.casefold())
        lexicon.setdefault(words[0], []).append(entry)
    for entries in lexicon.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return lexicon


@lru_cache(maxsize=4096)
def _words_for(
    roles: tuple[str, ...], pairs: tuple[tuple[str, ...], ...],
) -> tuple[str, ...]:
    needed = {role.casefold() for role in roles}
    for words in pairs:
        if needed <= {word.casefold() for word in words}:
            return words
    raise DataError(f"logic_rl: no pair of role words has the roles {sorted(needed)}; give "
                    "role_words in the reference or role_pairs in the verifier")


_SOLUTION_LINE = re.compile(r"\(\d+\) (.+) is an? (.+)")


@lru_cache(maxsize=4096)
def _read_solution(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    matches = [_SOLUTION_LINE.fullmatch(line.strip()) for line in text.strip().splitlines()]
    pairs = [(m.group(1), m.group(2)) for m in matches if m]
    if not pairs or len(pairs) != len(matches):
        raise DataError(f"logic_rl: solution_text_format reads '(1) NAME is a ROLE' line by line, "
                        f"found {text[:80]!r}")
    return tuple(name for name, _ in pairs), tuple(role for _, role in pairs)


_GOLD = {"names": ["Zoey", "Ethan"], "roles": ["knave", "knight"]}
_THINK = "<think>If Zoey were a knight, Ethan would lie.</think>"
_RIGHT = "<answer>(1) Zoey is a knave\n(2) Ethan is a knight</answer>"


def _case(kind: Literal["good", "bad", "hostile"], response: str, verdict_class: str) -> Case:
    score = {"correct": 3.0, "wrong": -0.5, "unparsable": -1.0, "bad_format": -3.0}[verdict_class]
    return Case(kind, response, score, _GOLD, verdict_class)


LogicRL.cases = (
    _case("good", f"{_THINK}\n{_RIGHT}", "correct"),
    _case("good", f"{_THINK}{_RIGHT}<|im_end|>\n", "correct"),
    _case("good", f"{_THINK}<answer>Zoey knave Ethan knight</answer>", "correct"),
    _case("good", f"{_THINK}<answer>**Zoey**: Knave, and ETHAN is the **knight**.</answer>",
          "correct"),
    _case("good", f"{_THINK}<answer>| Ethan | knight |\n| Zoey | knave |</answer>", "correct"),
    _case("bad", f"{_THINK}<answer>Zoey is a knight. Ethan is a knight.</answer>", "wrong"),
    _case("bad", f"{_THINK}<answer>Zoey is not a knight, Ethan is a knight.</answer>",
          "unparsable"),
    _case("bad", f"{_THINK}<answer>Zoey is a knave, Ethan is a knight, Ethan is a knave</answer>",
          "unparsable"),
    _case("bad", f"{_THINK}<answer>Zoey is a knave, Ethan is a knight, Bob is a knave</answer>",
          "unparsable"),
    _case("bad", f"{_THINK}<answer>(1) Zoey is a knave</answer>", "unparsable"),
    _case("bad", f"{_THINK}<answer> </answer>", "unparsable"),
    _case("bad", f"<think></think>{_RIGHT}", "bad_format"),
    _case("bad", f"<think>reasoning process here</think>{_RIGHT}", "bad_format"),
    _case("bad", _RIGHT, "bad_format"),
    _case("bad", f"{_THINK} So: {_RIGHT}", "bad_format"),
    _case("bad", f"{_THINK}{_RIGHT} or the other way round", "bad_format"),
    _case("bad", f"{_THINK}{_RIGHT}{_RIGHT}", "bad_format"),
    _case("bad", f"Assistant: {_THINK}{_RIGHT}", "bad_format"),
    _case("bad", f"{_RIGHT}{_THINK}", "bad_format"),
    *(_case("hostile", text, "bad_format") for text in HOSTILE_TEXTS),
    *(_case("hostile", f"{_THINK}<answer>{text}</answer>", "unparsable")
      for text in HOSTILE_TEXTS),
)
