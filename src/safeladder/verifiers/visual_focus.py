"""Visual focus: does the reasoning speak of what the image really shows?

SafeWork-R1 (arXiv 2507.18576) rewards "visual focus" and does not define it; this is our own
definition. Let S be the entities that the image shows and A entities that it does not show (a list
that comes with the prompt, or the world's vocabulary), both without those that the text of the
prompt names: repeating the question is no looking. An entity is *affirmed* when the reasoning
mentions it at least once without a denial in front ("no", "not", "without", ... at most three
words before, in the same sentence). With

    h = entities of S affirmed                           (each counts once)
    f = entities of A affirmed + entities of S mentioned and only denied
    n = min(|S|, enough)

    score = max(-1, min(h, n) / n - f / n)

So saying nothing of the image scores 0, naming ``enough`` shown things and no other scores 1, and
naming what is not there costs as much as naming what is there earns. Keyword stuffing does not pay:
repeating adds nothing, naming the whole vocabulary scores -1 where |A| >= 2n, and naming entities
at random has an expected score of at most 0 wherever |A| >= |S|. Where fewer are known to be
absent, the verifier abstains, because it could not tell looking from guessing.

Limits: it counts names, not relations, and knows synonyms only where they are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.render.think import split_think
from safeladder.types import Prompt, Trajectory, Verdict
from safeladder.verifiers.base import abstention, not_applicable
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case

Entity: TypeAlias = str | list[str]
"""A name, or a list of names for the same thing; each of one or more words."""
DENIALS = frozenset({"no", "not", "without", "never", "neither", "nor", "none", "isn", "aren",
                     "doesn", "don", "cannot", "lacks", "missing"})
_REACH = 3
_TOKEN = re.compile(r"[^\W_]+|[.!?;\n]")
_ENDS = frozenset(".!?;\n")


class VisualFocus(StrictModel):
    """Score in [-1, 1] as the module says; parts ``shown`` (h), ``not_shown`` (f).

    Classes: ``focused`` (score at least 0.5), ``vague``, ``mistaken`` (score below 0),
    ``no_reasoning`` (score 0). Not applicable without a list of what the image shows, or when the
    prompt's text names all of it.
    """

    type: Literal["visual_focus"] = "visual_focus"
    name: str = "visual_focus"
    shown: str = Field(default="shown", description="column with the entities that the image shows")
    absent: str = Field(default="absent", description="column with entities that it does not show")
    vocabulary: list[Entity] = Field(
        default_factory=list, description="all entities of the world; what a prompt does not list "
        "as shown is absent")
    enough: int = Field(default=3, ge=1, description="shown entities that earn the full score")

    cases: ClassVar[tuple[Case, ...]]

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Judge the response's think block."""
        meta, prompt = trajectory.prompt.meta, trajectory.prompt
        if not meta.get(self.shown):
            return not_applicable(self.name, f"no column {self.shown!r} with what the image shows")
        named = _Names(_entities(meta[self.shown]), _entities(meta.get(self.absent, [])),
                       self.vocabulary)
        told = {key for key, _ in named.mentions(_text_of(prompt))}
        shown, absent = named.shown - told, named.absent - told
        if not shown:
            return not_applicable(self.name, "the text of the prompt names all that is shown")
        if len(absent) < len(shown):
            return abstention(self.name, f"{len(absent)} entities are known to be absent and "
                              f"{len(shown)} shown: looking cannot be told from guessing")
        think = split_think(trajectory.response).think
        if think is None or not think.strip():
            return Verdict(self.name, 0.0, "no_reasoning", parts={"shown": 0.0, "not_shown": 0.0})
        affirmed: set[int] = set()
        denied: set[int] = set()
        for key, is_denied in named.mentions(think):
            (denied if is_denied else affirmed).add(key)
        hits = len(shown & affirmed)
        false = len(absent & affirmed) + len(shown & (denied - affirmed))
        need = min(len(shown), self.enough)
        score = max(-1.0, (min(hits, need) - false) / need)
        label = "focused" if score >= 0.5 else "vague" if score >= 0 else "mistaken"
        return Verdict(self.name, score, label, parts={"shown": hits, "not_shown": false})


class _Names:
    """Entities by number, and how to find them in a text in one pass."""

    def __init__(self, shown: Sequence[Entity], absent: Sequence[Entity],
                 vocabulary: Sequence[Entity]) -> None:
        self._phrases: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        known: dict[tuple[str, ...], int] = {}
        self.shown = {self._add(entity, known) for entity in shown}
        self.absent = {self._add(entity, known) for entity in (*absent, *vocabulary)} - self.shown
        for phrases in self._phrases.values():
            phrases.sort(key=lambda item: -len(item[0]))

    def _add(self, entity: Entity, known: dict[tuple[str, ...], int]) -> int:
        names = [_words(name) for name in ([entity] if isinstance(entity, str) else entity)]
        names = [name for name in names if name]
        key = next((known[name] for name in names if name in known), len(known))
        for name in names:
            if name not in known:
                known[name] = key
                self._phrases.setdefault(name[0], []).append((name, key))
        return key

    def mentions(self, text: str) -> Iterator[tuple[int, bool]]:
        """(entity, denied) for every mention, the longest name first; linear in the text."""
        tokens = _TOKEN.findall(text.casefold())
        since_denial, place = _REACH + 1, 0
        while place < len(tokens):
            token = tokens[place]
            since_denial = (0 if token in DENIALS else
                            _REACH + 1 if token in _ENDS else since_denial + 1)
            # Most tokens are the beginning of no name; this test is what they cost.
            may_start = token in self._phrases or token[-1] == "s"
            found = next((item for form in _forms(token) for item in self._phrases.get(form, ())
                          if _is_at(tokens, place, item[0])), None) if may_start else None
            if found is None:
                place += 1
                continue
            yield found[1], since_denial <= _REACH
            place += len(found[0])


def _is_at(tokens: Sequence[str], place: int, name: tuple[str, ...]) -> bool:
    here = tokens[place:place + len(name)]
    return len(here) == len(name) and tuple(here[:-1]) == name[:-1] and name[-1] in _forms(here[-1])


def _forms(word: str) -> tuple[str, ...]:
    """The word, and what it is the plural of."""
    forms = [word]
    if word.endswith("s"):
        forms.append(word[:-1])
    if word.endswith("es"):
        forms.append(word[:-2])
    return tuple(forms)


def _words(name: str) -> tuple[str, ...]:
    return tuple(token for token in _TOKEN.findall(name.casefold()) if token not in _ENDS)


def _entities(value: Any) -> list[Entity]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ValueError(f"expected a list of entities, found {type(value).__name__}")
    return [item if isinstance(item, str) else [str(name) for name in item] for item in value]


def _text_of(prompt: Prompt) -> str:
    return "\n".join(message.text for message in prompt.messages)


_SEEN = {"shown": ["dog", ["bicycle", "bike"], "red car"],
         "absent": ["cat", "horse", "blue car", "tree", "boat", "lamp"]}


def _case(kind: Literal["good", "bad", "hostile"], response: str, score: float,
          label: str | None = None) -> Case:
    return Case(kind, response, score, verdict_class=label, meta=_SEEN)


VisualFocus.cases = (
    _case("good", "<think>A dog runs beside a bike and a red car.</think>Stop.", 1.0, "focused"),
    _case("good", "<think>Two dogs, a bicycle, the red car; no cat here.</think>ok", 1.0),
    _case("bad", "<think>The dog is near a cat.</think>ok", 0.0, "vague"),
    _case("bad", "<think>A horse in front of a boat.</think>ok", -2 / 3, "mistaken"),
    _case("bad", "<think>There is no dog in the image.</think>ok", -1 / 3),
    _case("bad", "<think>I think about it with care.</think>ok", 0.0, "vague"),
    _case("bad", "A dog, a bike and a red car.", 0.0, "no_reasoning"),
    _case("bad", "<think>dog bike red car cat horse blue car tree boat lamp</think>ok", -1.0),
    _case("bad", "<think>" + "dog " * 50 + "</think>ok", 1 / 3),
    *(_case("hostile", text, 0.0) for text in HOSTILE_TEXTS),
    *(_case("hostile", f"<think>{text}</think>", 0.0) for text in HOSTILE_TEXTS),
)
