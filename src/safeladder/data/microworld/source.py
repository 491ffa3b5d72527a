"""Recipe sources of the microworld: ``{type: microworld, family: safety, split: train, ...}``."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from safeladder.data.microworld.balance import Split
from safeladder.data.microworld.chains import check_strategies, with_chain
from safeladder.data.microworld.corpus import corpus_texts
from safeladder.data.microworld.families import Family, demonstrate, family_prompts, level_of
from safeladder.data.microworld.safety import FORMS, Form, safety_prompts
from safeladder.data.source import Source
from safeladder.types import Prompt


class MicroworldSource(Source):
    """Prompts of one family, drawn from a seed."""

    type: Literal["microworld"]
    family: Family
    split: Split
    count: int = Field(ge=1)
    seed: int = 0
    level: int | None = Field(
        default=None, description="difficulty; its meaning is the family's own "
        "(docs/microworld.md); default: an easy one")
    forms: tuple[Form, ...] = Field(
        default=FORMS, min_length=1, description="of safety prompts: text, object_image, "
        "scene_image, wrapped; equally many of each")
    teacher: dict[str, float] = Field(
        default_factory=dict, description="behaviour -> share; each row then ends in a response "
        "that behaves so (ideal, or a flaw of the family); empty: prompts alone")
    strategies: dict[str, float] = Field(
        default_factory=dict, description="strategy -> share; the teacher's reasoning is then a "
        "chain of such a strategy (docs/rungs/cot_sft.md); empty: the family's plain reasoning")
    noise: float = Field(
        default=0.0, ge=0, le=1, description="probability that the teacher's chain misjudges, and "
        "its answer with it; meta.misjudged says of each row whether it does")

    @model_validator(mode="after")
    def _taught(self) -> MicroworldSource:
        if self.strategies and not self.teacher:
            raise ValueError("strategies are a teacher's: say how it answers (teacher: {ideal: 1})")
        if self.noise and not self.strategies:
            raise ValueError("noise is in a chain's judgement: name the chains (strategies)")
        if any(share < 0 for share in self.strategies.values()) or (
                self.strategies and not sum(self.strategies.values())):
            raise ValueError("strategies: shares must be at least 0, and one above")
        check_strategies(self.family, self.strategies)
        return self

    def build(self, base: Path) -> list[Prompt]:
        """The prompts, with demonstrations if there is a teacher."""
        if self.family == "safety":
            level = level_of("safety", self.level)
            prompts = safety_prompts(self.split, self.count, self.seed, self.forms, level)
        else:
            prompts = family_prompts(self.family, self.split, self.count, self.seed, self.level)
        if self.teacher:
            rng = random.Random(f"teacher {self.family} {self.split} {self.seed}")
            names, shares = list(self.teacher), list(self.teacher.values())
            prompts = [demonstrate(prompt, rng.choices(names, shares)[0], rng)
                       for prompt in prompts]
        if self.strategies:
            # A generator of their own: the answers are those of the same source without chains.
            rng = random.Random(f"chains {self.family} {self.split} {self.seed}")
            names, shares = list(self.strategies), list(self.strategies.values())
            prompts = [with_chain(prompt, rng.choices(names, shares)[0], rng,
                                  rng.random() < self.noise) for prompt in prompts]
        return self.finish(prompts)


class MicroworldCorpus(Source):
    """Pretraining texts of the microworld."""

    type: Literal["microworld_corpus"]
    count: int = Field(ge=1)
    seed: int = 0

    def build(self, base: Path) -> list[Prompt]:
        """Rendered rows: no chat template is applied to them."""
        return self.finish(
            Prompt(id=f"corpus-{self.seed}-{i}", messages=(), source="microworld_corpus",
                   rendered=f" {text}")
            for i, text in enumerate(corpus_texts(self.count, self.seed)))
