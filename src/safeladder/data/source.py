"""What every source of prompts has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.errors import DataError
from safeladder.types import Message, Prompt


class Source(StrictModel):
    """What all sources have."""

    source: str | None = Field(
        default=None, description="Prompt.source and head of ids; default: named after the data")
    weight: float | None = Field(
        default=None, gt=0, description="share in a mixture; all sources have one, or none")
    limit: int | None = Field(default=None, gt=0, description="take the first rows only")
    task: str | None = Field(
        default=None, description="Prompt.task of every row; default: the row's own, or general")
    system_prompt: str | None = Field(
        default=None, description="system message for rows that have none")

    def build(self, base: Path) -> list[Prompt]:
        """The prompts; relative paths start at ``base``."""
        raise NotImplementedError

    def finish(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """Apply limit, source, task and system_prompt to prompts not made from rows.

        Raises:
            DataError: a system prompt for a prompt that went through a chat template already.
        """
        return [self._finish(prompt) for prompt in islice(prompts, self.limit)]

    def _finish(self, prompt: Prompt) -> Prompt:
        messages = prompt.messages
        if self.system_prompt and prompt.rendered is not None:
            raise DataError(f"prompt {prompt.id} already went through a chat template, so "
                            "system_prompt cannot be added")
        if self.system_prompt and all(message.role != "system" for message in messages):
            messages = (Message("system", self.system_prompt), *messages)
        return replace(prompt, messages=messages, source=self.source or prompt.source,
                       task=self.task or prompt.task)
