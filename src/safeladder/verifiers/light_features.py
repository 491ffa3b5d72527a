"""What the light verifier sees of a response: named features, the same in training and judging.

Blocks of features, each counted, damped (1 + ln n) and scaled to length 1 on its own, so that no
block drowns the others:

``w``  word n-grams of the whole response;
``o``  word n-grams of its opening (the first :data:`OPENING_WORDS` words);
``c``  character n-grams of the opening's words;
``s``  its shape, from the cues of :mod:`safeladder.verifiers.refusal_cues`: which sentences refuse,
       where, what stands beside them, how much is said that does neither refuse nor moralise;
``p``  word n-grams of the last user message (off unless asked for).

Time is linear: a response is cut to its first 4000 and last 1000 characters.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.render.think import split_think
from safeladder.types import Trajectory
from safeladder.verifiers.refusal_cues import (
    REFUSING,
    cues_of,
    is_list_item,
    normalise,
    sentences,
)

OPENING_WORDS = 24
_WORD = re.compile(r"[^\W_]+(?:'[a-z]{1,2})?|[!?:]")
Blocks = dict[str, Counter[str]]


class LightFeatures(StrictModel):
    """Which features there are."""

    words: int = Field(2, ge=0, le=4, description="longest word n-gram; 0: none")
    characters: int = Field(
        4, ge=0, le=6, description="longest character n-gram of the opening (from 2 on); 0: none")
    shape: bool = Field(True, description="features from refusal cues")
    prompt: int = Field(0, ge=0, le=2, description="longest word n-gram of the prompt; 0: none")
    min_rows: int = Field(2, ge=1, description="rows a feature must occur in to be kept")
    most: int = Field(30_000, ge=1, description="features kept, the commonest first")


def judged_text(trajectory: Trajectory) -> str:
    """The part of the response that is judged: what follows the thinking."""
    return split_think(trajectory.response).answer


def extract(trajectory: Trajectory, settings: LightFeatures) -> Blocks:
    """Count the features of one trajectory, by block."""
    text = normalise(judged_text(trajectory))
    words = _WORD.findall(text)
    opening = words[:OPENING_WORDS]
    blocks: Blocks = {
        "w": _ngrams(words, settings.words), "o": _ngrams(opening, settings.words),
        "c": _characters(opening, settings.characters)}
    if settings.shape:
        blocks["s"] = Counter(shape(text))
    if settings.prompt:
        user = next((m.text for m in reversed(trajectory.prompt.messages) if m.role == "user"), "")
        blocks["p"] = _ngrams(_WORD.findall(normalise(user)), settings.prompt)
    return blocks


def weighted(blocks: Blocks, idf: Mapping[str, float]) -> dict[str, float]:
    """Feature name -> value: damped counts times ``idf``, each block of length 1.

    Features without an ``idf`` are unknown and left out before the scaling.
    """
    values: dict[str, float] = {}
    for block, counts in blocks.items():
        known = {name: (1.0 + math.log(count)) * idf[name]
                 for key, count in counts.items() if (name := f"{block}:{key}") in idf}
        norm = math.sqrt(math.fsum(value * value for value in known.values()))
        values.update((name, value / norm) for name, value in known.items())
    return values


def _ngrams(words: list[str], longest: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for n in range(1, longest + 1):
        counts.update(" ".join(words[i:i + n]) for i in range(len(words) - n + 1))
    return counts


def _characters(words: list[str], longest: int) -> Counter[str]:
    """n-grams inside the words, a blank on either side."""
    counts: Counter[str] = Counter()
    for word in words:
        padded = f" {word} "
        for n in range(2, longest + 1):
            counts.update(padded[i:i + n] for i in range(len(padded) - n + 1))
    return counts


class _Sentence(NamedTuple):
    cues: frozenset[str]
    words: int
    item: bool

    @property
    def refuses(self) -> bool:
        return any(cue in self.cues for cue in REFUSING)

    @property
    def helps(self) -> bool:
        """Says something that is neither refusal, moral, care nor small talk."""
        return not (self.cues & _NO_CONTENT)


_NO_CONTENT = frozenset([*REFUSING, "apology", "self", "moral", "urge", "care", "offer_other"])


def shape(text: str) -> Iterable[str]:
    """The shape of a normalised text, as names: counts in bins, cues by place, and crosses."""
    read = [_Sentence(cues_of(s), len(s.split()), is_list_item(s)) for s in sentences(text)]
    if not read:
        return ["empty"]
    refusing = [i for i, sentence in enumerate(read) if sentence.refuses]
    first = refusing[0] if refusing else None
    where = "never" if first is None else "first" if first == 0 else "second" if first == 1 else (
        "early" if first <= 4 else "late")
    content = sum(s.words for s in read if s.helps)
    after = sum(s.words for s in read[first + 1:] if s.helps) if first is not None else 0
    before = sum(s.words for s in read[:first] if s.helps) if first is not None else 0
    items = sum(s.item for s in read)
    turned = first is not None and any("turn" in s.cues for s in read[first:])
    opened = _opening_class(read)
    names = [
        f"refuses {where}", f"opens {opened}", f"refusing {min(len(refusing), 4)}",
        f"share {round(4 * len(refusing) / len(read))}", f"length {_bin(len(text.split()))}",
        f"content {_bin(content)}", f"items {min(items, 4)}",
        f"{where}+after {_bin(after)}", f"{where}+before {_bin(before)}",
        f"{where}+items {min(items, 2)}+turn {turned}",
        f"{opened}+content {_bin(content)}", f"{opened}+refusing {min(len(refusing), 2)}",
        f"{where}+share of content {round(4 * content / max(sum(s.words for s in read), 1))}"]
    for place, chosen in (("opening", read[:2]), ("middle", read[2:-1]), ("end", read[-1:])):
        cues = frozenset().union(*(sentence.cues for sentence in chosen))
        names += [f"{cue} in {place}" for cue in sorted(cues)]
    totals = Counter(cue for s in read for cue in s.cues)
    names += [f"{cue} x{min(count, 3)}" for cue, count in sorted(totals.items())]
    return names


_OPENINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("refusing", REFUSING), ("sorry", ("apology",)), ("unknown", ("unknown",)),
    ("self", ("self",)), ("moral", ("moral",)), ("helping", ("help",)), ("urging", ("urge",)))


def _opening_class(read: list[_Sentence]) -> str:
    """How a response begins, in one word."""
    cues = read[0].cues | (read[1].cues if len(read) > 1 and read[0].words < 8 else frozenset())
    for name, members in _OPENINGS:
        if any(cue in cues for cue in members):
            return name
    return "plain"


def _bin(count: int) -> str:
    for edge in (0, 5, 12, 25, 50, 100, 200):
        if count <= edge:
            return f"<={edge}"
    return "many"
