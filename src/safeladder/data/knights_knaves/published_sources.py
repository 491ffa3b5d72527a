"""Recipe sources of puzzles in the published wording: the published ones, and new ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from safeladder.data.knights_knaves.perturb import Perturbation
from safeladder.data.knights_knaves.prompts import fresh_prompts, published_prompts
from safeladder.data.knights_knaves.published import Split
from safeladder.data.source import Source
from safeladder.types import Prompt


class _PuzzleSource(Source):
    people: tuple[Annotated[int, Field(ge=2, le=8)], ...] = Field(
        min_length=1, description="numbers of people, 2 to 8; prompts come in this order")
    template: Literal["chat", "instruct", "base"] = Field(
        default="chat",
        description="chat: system and user message, for the model's own template; instruct, base: "
        "the strings of Logic-RL, to which no template is applied")
    demonstrations: bool = Field(
        default=False, description="end with the assistant's message: chain of thought and answer")

    @field_validator("people", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _template_is_whole(self) -> Self:
        if self.template != "chat" and self.system_prompt is not None:
            raise ValueError(f"template {self.template} has its own system prompt")
        if self.template != "chat" and self.demonstrations:
            raise ValueError("demonstrations need template chat: a rendered prompt has no turns")
        return self

    def puzzles(self, people: int) -> list[Prompt]:
        """The prompts of one number of people."""
        raise NotImplementedError

    def build(self, base: Path) -> list[Prompt]:
        """The prompts."""
        return self.finish(p for people in self.people for p in self.puzzles(people))

    def _finish(self, prompt: Prompt) -> Prompt:
        if self.system_prompt is not None:
            # The default instruction would otherwise stay, and this one be left out.
            prompt = replace(prompt, messages=prompt.messages[1:])
        return super()._finish(prompt)


class KnightsKnavesSource(_PuzzleSource):
    """The published puzzles (see ``docs/data.md``), plain or perturbed."""

    type: Literal["knights_knaves"]
    split: Split = "train"
    perturbation: Perturbation | None = None

    def puzzles(self, people: int) -> list[Prompt]:
        """The prompts of one number of people."""
        return published_prompts(people, self.split, self.template, self.perturbation,
                                 self.demonstrations)


class FreshKnightsKnavesSource(_PuzzleSource):
    """Newly drawn puzzles in the published grammar and wording."""

    type: Literal["knights_knaves_fresh"]
    size: int = Field(gt=0, description="puzzles per number of people")
    seed: int = Field(ge=0, description="any but 1234, which draws the published puzzles")
    width: int = Field(default=2, ge=2, description="most operands of and, or")

    def puzzles(self, people: int) -> list[Prompt]:
        """The prompts of one number of people."""
        return fresh_prompts(people, self.size, self.seed, self.width, self.template,
                             self.demonstrations)
