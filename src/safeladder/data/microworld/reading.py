"""Exercises in reading: what a passage says is said again, in another order.

A searcher takes from a passage the value of the relation that was asked for. A question practises
that once in about a hundred tokens, an exercise in every sentence. Values are drawn anew for each
exercise, so none can be known by heart, and no fact of the world is told.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

from pydantic import Field

from safeladder.data.microworld.knowledge import TOWNS, VALUES, Fact
from safeladder.data.microworld.search import EVIDENCE
from safeladder.data.source import Source
from safeladder.render.actions import information, passage_text
from safeladder.render.think import CLOSE, OPEN
from safeladder.types import Message, Prompt


class ReadingExercises(Source):
    """Passages in the words of the search environment, and what they say in another order.

    Old maps among them: an exercise is in reading, not in what to believe.
    """

    type: Literal["reading_exercises"]
    count: int = Field(ge=1)
    seed: int = 0

    def build(self, base: Path) -> list[Prompt]:
        """The exercises; their task is ``reading`` unless ``task`` says otherwise."""
        rng = random.Random(f"reading {self.seed}")
        return self.finish(self._exercise(number, rng) for number in range(self.count))

    def _exercise(self, number: int, rng: random.Random) -> Prompt:
        town, asked = rng.choice(TOWNS), rng.choice(list(VALUES))
        told = {relation: Fact(town, relation, rng.choice(values), "unknown", "train").sentence
                for relation, values in VALUES.items()}
        year, title = rng.choice([(9, town), (rng.randint(2, 5), f"old map of {town}")])
        shown = f"in year {year} : {' '.join(rng.sample(list(told.values()), len(told)))}"
        answer = told.pop(asked)
        others = rng.sample(list(told.values()), len(told))
        thought = f"{' '.join(others)} {answer.removesuffix(' .')} , {EVIDENCE['passage']}"
        question = f"{information(passage_text(title, shown))} tell me the {asked} of {town} ."
        return Prompt(
            id=f"reading-{self.seed}-{number}",
            messages=(Message("user", question),
                      Message("assistant", f"{OPEN} {thought} {CLOSE} {answer}")),
            reference={"family": "reading", "town": town, "relation": asked},
            source="microworld_reading", task="reading",
            meta={"family": "reading", "split": "train"})
