"""What the two trained verifiers have in common: views in, verdicts out, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from safeladder.errors import ConfigError, MissingExtra, SafeLadderError
from safeladder.types import (
    Completion,
    FloatArray,
    Media,
    Message,
    Prompt,
    Trajectory,
    Verdict,
)
from safeladder.verifiers.base import abstention, describe
from safeladder.verifiers.rubric import Rubric, View

_AT_ONCE = 1024
"""Trajectories whose views exist at a time."""


class Encoded(Protocol):
    """Token ids with one image token per image (``render.RenderedPrompt``)."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Of the whole prompt, the assistant's turn opened."""
        ...

    @property
    def media(self) -> tuple[Media, ...]:
        """The images, in order."""
        ...


class Encoder(Protocol):
    """Between text and a model's token ids (``render.Renderer``)."""

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """What ends an assistant's turn."""
        ...

    def plain(self, text: str) -> str:
        """Text in which no special token is spelled."""
        ...

    def render(self, prompt: Prompt) -> Encoded:
        """The prompt's ids; a last message of the assistant is continued."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text as it is."""
        ...

    def response_text(self, rendered: Any, completion: Completion) -> str:
        """The text of a completion of a rendered prompt, its stop token left out."""
        ...


class ModelVerifier:
    """Asks a model for class scores; the rubric does the rest.

    A row that cannot be shown to the model, or that the model cannot take (too long, an image
    that is none), is that row's abstention; errors of the set-up are raised.

    Args:
        name: what verdicts and metrics call it.
        rubric: what is asked and what answers are worth.
        encoder: a renderer of the model's tokenizer.
        origin: names the model.
    """

    def __init__(self, name: str, rubric: Rubric, encoder: Encoder, origin: str = "") -> None:
        self.name, self.rubric = name, rubric
        self._encoder = encoder
        self._origin = f"{origin}:{rubric.digest}" if origin else rubric.digest

    async def verify_many(self, trajectories: Sequence[Trajectory]) -> list[Verdict]:
        """Judge all; what the model computes is batched over them."""
        verdicts: list[Verdict] = []
        for start in range(0, len(trajectories), _AT_ONCE):
            part = trajectories[start:start + _AT_ONCE]
            verdicts += await asyncio.gather(*(self._judge(one) for one in part))
        return verdicts

    async def class_scores(self, view: View) -> tuple[FloatArray, str]:
        """(K,) class scores (logits or log-probabilities) of one view, and the model's reasons."""
        raise NotImplementedError

    async def scores_of(self, trajectory: Trajectory) -> FloatArray:
        """(K,) class scores of the answer, before any temperature (calibration reads them).

        Raises:
            SafeLadderError: the row cannot be shown to the model.
        """
        views = self.rubric.views(trajectory, self._encoder.plain)
        return (await self.class_scores(views[0]))[0]

    async def _judge(self, trajectory: Trajectory) -> Verdict:
        try:
            views = self.rubric.views(trajectory, self._encoder.plain)
            answers = await asyncio.gather(
                *(self.class_scores(view) for view in views if not view.empty))
            waiting = iter(answers)
            scores = [None if view.empty else next(waiting)[0] for view in views]
            verdict = self.rubric.verdict(self.name, views, scores)
        except (ConfigError, MissingExtra):
            raise
        except SafeLadderError as error:
            return abstention(self.name, describe(error))
        reasons = " | ".join(reason for _, reason in answers if reason)
        return replace(verdict, origin=self._origin, reason=reasons or verdict.reason)


def rendered_view(encoder: Encoder, view: View, *more: Message) -> Encoded:
    """The ids of a view, after further messages if there are any."""
    return encoder.render(Prompt("view", (*view.messages, *more), media=view.media))
