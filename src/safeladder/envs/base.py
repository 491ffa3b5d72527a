"""What a policy acts in. An environment reads and writes messages; it never sees a token.

One environment serves all trajectories of a rollout at once, so what it remembers of one of them
lives in that one's :class:`Episode`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from safeladder.types import Media, Message, Prompt


@dataclass
class Episode:
    """One trajectory as its environment sees it.

    Example, after a search and before the second answer::

        Episode(prompt, [Message("assistant", "<search>x</search>"), Message("tool", "x is ...")])
    """

    prompt: Prompt
    """As :meth:`Environment.reset` returned it."""
    messages: list[Message] = field(default_factory=list)
    """What was said after the prompt: responses and environment messages, in order."""
    state: dict[str, Any] = field(default_factory=dict)
    """For the environment's own notes (budgets, seen pages); a rollout never reads it."""

    @property
    def response(self) -> str:
        """The newest response."""
        return self.messages[-1].text


@dataclass(frozen=True)
class StepResult:
    """What an environment answers to a response."""

    messages: tuple[Message, ...] = ()
    done: bool = True
    media: tuple[Media, ...] = ()
    """The images that the messages' image parts stand for, in order."""

    def __post_init__(self) -> None:
        if not self.done and not self.messages:
            raise ValueError("a StepResult that is not done needs messages to go on with")


class Environment(Protocol):
    """Raise plain errors: a rollout records them as ``error_environment``, and a
    :class:`~safeladder.errors.ToolError` as ``error_tool``. Never answer with an empty page.
    """

    @property
    def max_turns(self) -> int:
        """Responses per trajectory at most; one that needs more ends as ``truncated_turns``."""
        ...

    async def reset(self, prompt: Prompt) -> Prompt:
        """Return what the policy is shown (the prompt, perhaps with instructions added).

        Called once per group: all its trajectories begin with the same tokens.
        """
        ...

    async def step(self, episode: Episode) -> StepResult:
        """Answer the newest response, the last of ``episode.messages``."""
        ...


@dataclass(frozen=True)
class SingleTurn:
    """One question, one response, done."""

    max_turns: int = 1

    async def reset(self, prompt: Prompt) -> Prompt:
        """Return the prompt as it is."""
        return prompt

    async def step(self, episode: Episode) -> StepResult:
        """End the episode."""
        return StepResult()
