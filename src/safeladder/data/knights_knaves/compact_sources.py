"""Recipe sources of the compact world: puzzles to solve, and a teacher's chains of thought."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from safeladder.data.knights_knaves.compact import (
    Puzzle,
    Split,
    Strategy,
    answer_text,
    draw_distinct,
    draw_puzzle,
    puzzle_text,
    response_text,
    role,
    walk_text,
)
from safeladder.data.source import Source
from safeladder.types import Message, Prompt


class _Drawn(Source):
    """What is drawn.

    ``distinct``: as many structures as puzzles; otherwise puzzles are drawn freely from the split.
    """

    people: list[int] = Field(min_length=1, description="2 to 5; ``count`` puzzles for each")
    count: int = Field(ge=1)
    split: Split
    seed: int = 0
    distinct: bool = False

    def puzzles(self) -> list[tuple[int, Puzzle]]:
        """The puzzles with their number among those with as many people."""
        drawn: list[tuple[int, Puzzle]] = []
        for num_people in self.people:
            rng = random.Random(f"{self.split} {num_people} {self.seed}")
            puzzles = (draw_distinct(rng, num_people, self.split, self.count) if self.distinct
                       else [draw_puzzle(rng, num_people, self.split) for _ in range(self.count)])
            drawn += enumerate(puzzles)
        return drawn


class CompactPuzzles(_Drawn):
    """Puzzles in compact English."""

    type: Literal["compact_puzzles"]

    def build(self, base: Path) -> list[Prompt]:
        """The prompts, people in the order given."""
        return self.finish(_prompt(puzzle, f"{self.split}-{self.seed}-{len(puzzle.names)}-{i}")
                           for i, puzzle in self.puzzles())


class CompactChains(_Drawn):
    """Puzzles with a teacher's response; each row draws its strategy by the shares given."""

    type: Literal["compact_chains"]
    strategies: dict[Strategy, float] = Field(
        description="shares of: sight, list, work, check (see compact.response_text)")

    def build(self, base: Path) -> list[Prompt]:
        """The demonstrations: the last message is the teacher's."""
        rng = random.Random(f"strategies {self.seed}")
        names, shares = list(self.strategies), list(self.strategies.values())
        rows = []
        for i, puzzle in self.puzzles():
            strategy = rng.choices(names, shares)[0]
            row_id = f"chain-{self.split}-{self.seed}-{len(puzzle.names)}-{i}"
            rows.append(_prompt(puzzle, row_id, response_text(puzzle, strategy),
                                {"strategy": strategy}))
        return self.finish(rows)


class CompactWalks(Source):
    """Pretraining texts: tries worked through, without question or answer."""

    type: Literal["compact_walks"]
    people: list[int] = Field(min_length=1, description="``count`` texts for each")
    count: int = Field(ge=1)
    seed: int = 0

    def build(self, base: Path) -> list[Prompt]:
        """Rendered rows: no chat template is applied to them."""
        rows = []
        for num_people in self.people:
            rng = random.Random(f"walks {num_people} {self.seed}")
            rows += [Prompt(id=f"walk-{self.seed}-{num_people}-{i}", messages=(),
                            source="compact_walks", rendered=walk_text(rng, num_people))
                     for i in range(self.count)]
        return self.finish(rows)


def _prompt(
    puzzle: Puzzle, row_id: str, response: str | None = None, meta: dict[str, Any] | None = None,
) -> Prompt:
    messages = [Message("user", puzzle_text(puzzle))]
    if response is not None:
        messages.append(Message("assistant", response))
    return Prompt(
        id=row_id, messages=tuple(messages), source="compact_knights_knaves", task="logic",
        reference={"names": list(puzzle.names), "roles": [role(k) for k in puzzle.solution]},
        meta={"people": len(puzzle.names), "structure": puzzle.structure,
              "answer": answer_text(puzzle), **(meta or {})})
