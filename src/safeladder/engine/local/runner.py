"""What a sampler needs of the thing that runs its batch of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from safeladder.engine.local.media import ExpandedRow
from safeladder.types import Media


class PromptInput(NamedTuple):
    """A sequence as callers give it, and as a model with images sees it."""

    token_ids: tuple[int, ...]
    """One image token per image."""
    media: tuple[Media, ...] = ()
    expanded: ExpandedRow | None = None
    """Made when the call is made, so that a wrong image is its own caller's error."""

    @property
    def shown(self) -> ExpandedRow | None:
        """The row as the model sees it, if it has images."""
        return self.expanded if self.media else None

    @property
    def offset(self) -> int:
        """Position of the token after the prompt, less its length: 0 or less."""
        return 0 if self.shown is None else self.shown.offset

    @property
    def model_ids(self) -> Sequence[int]:
        """The ids that the model sees, images at their full length."""
        return self.token_ids if self.shown is None else self.shown.token_ids.tolist()

    @property
    def key(self) -> tuple[int, ...]:
        """What the keys and values of the row depend on: the ids that the model sees, and for
        image tokens numbers that only this place of this image has.
        """
        if self.shown is None:
            return self.token_ids
        ids = list(self.model_ids)
        for image in self.shown.images:
            content = -1 - (int(image.digest, 16) << 32)
            for number, place in enumerate(image.places.tolist()):
                ids[place] = content - number
        return tuple(ids)


@dataclass
class Counters:
    """Work done, for tests and figures."""

    encoded_tokens: int = 0
    """Prompt tokens that went through the model."""
    reused_tokens: int = 0
    """Prompt tokens whose keys and values were still there."""
    scored_tokens: int = 0
    sampled_tokens: int = 0
    steps: int = 0


class Runner(Protocol):
    """A batch of rows that grow by one token per step."""

    def is_open(self, rows: int) -> bool:
        """Whether rows may be admitted now, while ``rows`` rows are live."""
        ...

    def accepts(self, prompt: PromptInput, before: Sequence[PromptInput]) -> bool:
        """Whether the prompt may be admitted by the same call as those before it."""
        ...

    def admit(self, prompts: Sequence[PromptInput], repeats: Sequence[int]) -> Tensor:
        """Append ``repeats[i]`` rows of each prompt; return their (rows, vocabulary) logits."""
        ...

    def step(self, token_ids: Tensor) -> Tensor:
        """Feed every row its last token; return (R, vocabulary) logits."""
        ...

    def remember(self, row: int, prompt: PromptInput, completion: tuple[int, ...]) -> None:
        """Keep a finished row for prompts that continue it."""
        ...

    def drop(self, finished: Sequence[int]) -> list[int]:
        """Remove rows; return the old index of each row left, in its new order."""
        ...

    def reset(self) -> None:
        """Forget all rows, after an error."""
        ...

    def score(self, prompts: Sequence[PromptInput], temperatures: Sequence[float]) -> list[Tensor]:
        """fp32 log-probabilities of each row's tokens, (T,) each; position 0 is 0."""
        ...


def chunks(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Consecutive indices whose padded size (count times longest) stays within the budget."""
    made: list[list[int]] = []
    longest = 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if not made or (len(made[-1]) + 1) * longest > budget:
            made.append([])
            longest = length
        made[-1].append(index)
    return made


def token_logprobs(
    logits: Callable[[slice], Tensor], token_ids: Sequence[int], temperature: float,
    vocab_size: int,
) -> Tensor:
    """(T,) log-probabilities of a row's tokens, the first 0.

    Args:
        logits: returns the fp32 logits after the positions of a slice; called for a few million
            logits at a time, because those of a long row would not fit.
        token_ids: (T,).
        temperature: divides the logits.
        vocab_size: number of logits per position.
    """
    step = max(1, 4_000_000 // vocab_size)
    parts = []
    for start in range(0, len(token_ids) - 1, step):
        some = logits(slice(start, start + step)) / temperature
        targets = torch.tensor(token_ids[start + 1:start + 1 + len(some)], device=some.device)
        parts.append(some.log_softmax(-1).gather(-1, targets[:, None])[:, 0])
    first = torch.zeros(1, device=parts[0].device if parts else None)
    return torch.cat((first, *parts))
