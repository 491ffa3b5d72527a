"""Endless, resumable streams of prompts: mixtures, curricula, seeded order.

The order is a pure function of data, plan and seed: epoch e of part p of stage s is the permutation
drawn with ``default_rng((seed, s, p, e))``. So the position is a few counts, and a stream that was
interrupted goes on with the same prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from safeladder.config import StrictModel
from safeladder.data.source import Source
from safeladder.data.sources import build_source
from safeladder.data.splits import key_of
from safeladder.errors import ConfigError, DataError
from safeladder.types import Prompt


class CurriculumSpec(StrictModel):
    """In which order the prompts of several sources come."""

    type: Literal["mixed", "staged"] = Field(
        default="mixed", description="mixed: all at once; staged: level after level")
    by: str = Field(
        default="sources",
        description="staged: sources (each is a level, as listed), or an entry of meta whose "
        "values, ascending, are the levels (people, steps)")
    epochs: int = Field(
        default=1, ge=1, description="staged: passes over each level; the last goes on without end")
    prompts: int | None = Field(
        default=None, ge=1, description="staged: prompts per level, instead of epochs")
    shuffle: bool = Field(default=True, description="a new seeded order each epoch")
    prefilled: bool = Field(
        default=False,
        description="a last message of the assistant is the start of the response; false: refused, "
        "since it is mostly a demonstration that must not be in an RL prompt")


@dataclass(frozen=True)
class Part:
    """Prompts drawn together, with their share of a stage."""

    name: str
    prompts: Sequence[Prompt]
    weight: float = 1.0
    """Relative to the other parts of the stage."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise DataError(f"{self.name}: no prompts to draw from")
        if not self.weight > 0:
            raise ConfigError(f"{self.name}: weight must be positive, got {self.weight}")

    def fingerprint(self) -> str:
        """A hash of all prompts, in order: text, images, references, meta."""
        digest = hashlib.sha256()
        for prompt in self.prompts:
            digest.update(_prompt_bytes(prompt))
        return digest.hexdigest()[:16]


def _prompt_bytes(prompt: Prompt) -> bytes:
    content = [prompt.id, [message.to_dict() for message in prompt.messages], prompt.reference,
               prompt.source, prompt.task, [media.digest for media in prompt.media],
               dict(prompt.meta), prompt.rendered]
    try:
        return json.dumps(content, sort_keys=True).encode() + b"\n"
    except TypeError as error:
        raise DataError(f"prompt {prompt.id}: reference and meta must be JSON values: {error}"
                        ) from None


@dataclass(frozen=True)
class Stage:
    """What is drawn from for a number of prompts."""

    name: str
    parts: tuple[Part, ...]
    num_prompts: int | None = None
    """None: without end."""

    def __post_init__(self) -> None:
        if not self.parts or (self.num_prompts is not None and self.num_prompts < 1):
            raise ConfigError(f"stage {self.name}: needs parts and at least one prompt")


class PromptStream:
    """Prompts without end, in a reproducible order.

    Within a stage the next prompt comes from the part that is furthest behind its share, so after
    k prompts every part has had its weight times k, give or take one, in every batch.
    Each part is passed through in shuffled epochs. The last stage goes on without end.

    Example::

        stream = PromptStream.of(prompts, seed=0)
        batch = stream.take(8)
        state = stream.state_dict()      # JSON values
        ...
        stream.load_state_dict(state)    # goes on after those 8
    """

    def __init__(self, stages: Sequence[Stage], seed: int, shuffle: bool = True) -> None:
        if not stages:
            raise ConfigError("a stream needs at least one stage")
        self.stages = tuple(stages)
        self.seed = seed
        self.shuffle = shuffle
        self.taken = 0
        """Prompts handed out so far."""
        self._stage = 0
        self._counts = [0] * len(self.stages[0].parts)
        self._orders: dict[tuple[int, int], tuple[int, list[int]]] = {}

    @classmethod
    def of(cls, prompts: Sequence[Prompt], seed: int, shuffle: bool = True) -> PromptStream:
        """A stream over one set of prompts."""
        return cls([Stage("all", (Part("all", prompts),))], seed, shuffle)

    @property
    def prompts(self) -> list[Prompt]:
        """Every prompt that can come, in the order of stages and parts."""
        return [p for stage in self.stages for part in stage.parts for p in part.prompts]

    @property
    def stage(self) -> Stage:
        """Where the next prompt comes from."""
        return self.stages[self._stage]

    def take(self, count: int) -> list[Prompt]:
        """Return the next ``count`` prompts; they may span two stages."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Prompt:
        stage, total = self.stage, sum(self._counts)
        weights = [part.weight for part in stage.parts]
        behind = [w / sum(weights) * (total + 1) - c
                  for w, c in zip(weights, self._counts, strict=True)]
        at = behind.index(max(behind))
        part = stage.parts[at]
        epoch, position = divmod(self._counts[at], len(part.prompts))
        prompt = part.prompts[self._order(at, epoch)[position]]
        self._counts[at] += 1
        self.taken += 1
        if total + 1 == stage.num_prompts and self._stage + 1 < len(self.stages):
            self._stage += 1
            self._counts = [0] * len(self.stage.parts)
        return prompt

    def _order(self, part: int, epoch: int) -> list[int]:
        size = len(self.stage.parts[part].prompts)
        if not self.shuffle:
            return list(range(size))
        cached = self._orders.get((self._stage, part))
        if cached is None or cached[0] != epoch:
            rng = np.random.default_rng((self.seed, self._stage, part, epoch))
            cached = (epoch, [int(i) for i in rng.permutation(size)])
            self._orders[self._stage, part] = cached
        return cached[1]

    def state_dict(self) -> dict[str, Any]:
        """The position as JSON values, with hashes of the plan and of the data it belongs to."""
        return {"stage": self._stage, "counts": list(self._counts), "taken": self.taken,
                "plan": self._plan(), "data": self._fingerprints}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a position.

        Raises:
            DataError: data, curriculum or seed are not those of the saved state.
        """
        if state["plan"] != self._plan():
            raise DataError("the curriculum, its weights or the seed changed since the state was "
                            "saved; restore the recipe, or start the rung anew without --resume")
        saved, current = state["data"], self._fingerprints
        changed = [name for name in current if saved.get(name) != current[name]]
        if changed:
            raise DataError(f"the data of {', '.join(changed)} changed since the state was saved; "
                            "restore it, or start the rung anew without --resume")
        self._stage = int(state["stage"])
        self._counts = [int(count) for count in state["counts"]]
        self.taken = int(state["taken"])

    def _plan(self) -> str:
        plan = [self.seed, self.shuffle, [
            [stage.name, stage.num_prompts, [[part.name, part.weight] for part in stage.parts]]
            for stage in self.stages]]
        return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        # Cached: images are read for their hash.
        return {f"{stage.name}/{part.name}": part.fingerprint()
                for stage in self.stages for part in stage.parts}


def build_stream(
    specs: Sequence[Source], curriculum: CurriculumSpec, seed: int, base: Path | None = None,
) -> PromptStream:
    """The stream that a recipe describes.

    With weights, each source is a part of its own; without, the sources are one set, so that an
    epoch sees every prompt once.

    Raises:
        ConfigError: some sources have a weight and some have none.
        DataError: the data cannot be used.
    """
    built = [(spec, build_source(spec, base)) for spec in specs]
    if len({spec.weight is None for spec in specs}) > 1:
        raise ConfigError("data: give every source a weight, or none")
    for _, prompts in built:
        _check_prompts(prompts, curriculum)
    parts = [Part(f"{number}:{spec.source or prompts[0].source}", prompts, spec.weight or 1.0)
             for number, (spec, prompts) in enumerate(built)]
    weighted = bool(specs) and specs[0].weight is not None
    if curriculum.type == "mixed":
        stages = [Stage("mixed", _parts_of_stage(parts, weighted))]
    elif curriculum.by == "sources":
        stages = [_stage(part.name, (part,), curriculum) for part in parts]
    else:
        stages = _levels(parts, curriculum, weighted)
    return PromptStream(stages, seed, curriculum.shuffle)


def _check_prompts(prompts: Sequence[Prompt], curriculum: CurriculumSpec) -> None:
    for prompt in prompts:
        if prompt.rendered is None and prompt.messages[-1].role == "assistant" \
                and not curriculum.prefilled:
            raise DataError(
                f"prompt {prompt.id} ends with the assistant's message; leave it out with "
                "demonstration: drop, or set curriculum.prefilled if the response starts with it")


def _parts_of_stage(parts: Sequence[Part], weighted: bool) -> tuple[Part, ...]:
    if weighted:
        return tuple(parts)
    return (Part("all", [prompt for part in parts for prompt in part.prompts]),)


def _stage(name: str, parts: tuple[Part, ...], curriculum: CurriculumSpec) -> Stage:
    one_pass = sum(len(part.prompts) for part in parts)
    return Stage(name, parts, curriculum.prompts or curriculum.epochs * one_pass)


def _levels(parts: Sequence[Part], curriculum: CurriculumSpec, weighted: bool) -> list[Stage]:
    levels: dict[Any, dict[int, list[Prompt]]] = {}
    for number, part in enumerate(parts):
        for prompt in part.prompts:
            level = key_of(prompt, curriculum.by)
            levels.setdefault(level, {}).setdefault(number, []).append(prompt)
    try:
        ordered = sorted(levels)
    except TypeError:
        raise DataError(f"curriculum.by {curriculum.by!r}: the values have no order: "
                        f"{list(levels)[:5]}") from None
    stages = []
    for level in ordered:
        chosen = [Part(parts[number].name, prompts, parts[number].weight)
                  for number, prompts in levels[level].items()]
        stages.append(_stage(f"{curriculum.by} {level}", _parts_of_stage(chosen, weighted),
                             curriculum))
    return stages
