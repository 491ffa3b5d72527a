"""The engine boundary: what a loop may ask of the machine that holds the weights.

Only :class:`~safeladder.types.Datum`, :class:`~safeladder.types.Completion`, parameter
dataclasses, media and paths cross this line. An implementation declares what it can do in
``capabilities`` and passes the contract suite of every protocol and capability it declares
(``tests/contract``). Calls on one trainer run in the order in which they were submitted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from safeladder.types import Completion, Datum, FloatArray, Media, Message


class Capability(StrEnum):
    """What an implementation can do beyond the verbs of its protocol."""

    LOGPROBS = "logprobs"
    """Scores given tokens."""
    EXACT_LOGPROBS = "exact_logprobs"
    """Sampler and trainer agree on log-probabilities to fp32 rounding (1e-4)."""
    SEEDED = "seeded"
    """Equal seeds give equal tokens, row by row."""
    MEDIA = "media"
    """Takes images."""
    TRAINS = "trains"
    """Implements :class:`Trainer`."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. Row i of n uses the stream ``(seed, i)``, whatever else is in the batch."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy; otherwise logits are divided by it, and log-probabilities are those."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    stop_token_ids: tuple[int, ...] = ()
    """Sampling ends after one of these; it is part of the completion."""
    min_tokens: int = 0
    """Stop tokens cannot be sampled before this many tokens."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.min_tokens > self.max_tokens:
            raise ValueError("SamplingParams needs max_tokens >= 1 and min_tokens <= max_tokens")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError("SamplingParams needs temperature >= 0, 0 < top_p <= 1, top_k >= 0")


@dataclass(frozen=True)
class OptimParams:
    """Hyper-parameters of one optimizer step; schedules live with the caller."""

    learning_rate: float
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    """Global L2 norm; inf switches clipping off."""
    muon_learning_rate: float | None = None
    """Set: hidden matrices take Muon with this rate, all else AdamW. None: AdamW everywhere."""


@dataclass(frozen=True)
class Stats:
    """Figures of one trainer call, mergeable over micro-batches, ranks and minibatches.

    ``sums`` are plain sums (``loss`` is already normalised by the weights); ``means`` holds
    ``(sum, count)`` pairs and ``maxima`` running maxima.
    """

    sums: Mapping[str, float] = field(default_factory=dict)
    means: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    maxima: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Stats) -> Stats:
        sums = {k: self.sums.get(k, 0.0) + other.sums.get(k, 0.0)
                for k in dict.fromkeys([*self.sums, *other.sums])}
        means = {}
        for key in dict.fromkeys([*self.means, *other.means]):
            total, count = self.means.get(key, (0.0, 0.0))
            more_total, more_count = other.means.get(key, (0.0, 0.0))
            means[key] = (total + more_total, count + more_count)
        maxima = dict(self.maxima)
        for key, value in other.maxima.items():
            maxima[key] = max(value, maxima.get(key, value))
        return Stats(sums, means, maxima)

    def without(self, name: str) -> Stats:
        """The same without one mean."""
        means = {key: value for key, value in self.means.items() if key != name}
        return Stats(self.sums, means, self.maxima)

    def scalars(self) -> dict[str, float]:
        """One number per name; a mean over nothing is left out."""
        means = {k: total / count for k, (total, count) in self.means.items() if count}
        return {**self.sums, **means, **self.maxima}


@runtime_checkable
class Loss(Protocol):
    """A per-token loss. Implemented in ``safeladder.algos``; engines call it with tensors.

    It takes a ``safeladder.algos.base.LossInputs`` and returns a ``LossOutput``; the engine sums
    ``loss_T * weights_T``. ``needs`` names the log-probabilities it reads beside the live ones.
    """

    @property
    def needs(self) -> frozenset[Literal["old", "ref", "entropy"]]:
        """Which optional inputs must be there (``entropy``: with gradient)."""
        ...

    def __call__(self, inputs: Any) -> Any:
        """Return the per-token loss and its metrics."""
        ...


class Sampler(Protocol):
    """Something that continues token sequences, pinned to one ``policy_version``.

    Every call raises :class:`~safeladder.errors.StaleSampler` once the weights have moved on
    (unless the sampler is frozen or within its allowed staleness).
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this sampler can do."""
        ...

    @property
    def policy_version(self) -> int:
        """Number of optimizer steps behind these weights."""
        ...

    async def sample(
        self, prompt_ids: Sequence[int], params: SamplingParams, n: int = 1,
        media: Sequence[Media] = (),
    ) -> list[Completion]:
        """Return n completions of one prompt."""
        ...

    async def logprobs(
        self, token_ids: Sequence[int], media: Sequence[Media] = (), temperature: float = 1.0,
    ) -> FloatArray:
        """Return (T,) log p(token_t | tokens before t) of logits / temperature; position 0 is 0."""
        ...


class StreamingSampler(Protocol):
    """A sampler that can hand out tokens one by one (the terminal chat, a server)."""

    def stream(
        self, prompt_ids: Sequence[int], params: SamplingParams, media: Sequence[Media] = (),
    ) -> AsyncIterator[int]:
        """Yield token ids as they are sampled, the stop token last."""
        ...


@dataclass(frozen=True)
class ChatReply:
    """What a chat endpoint answered."""

    text: str
    finish_reason: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ChatSampler(Protocol):
    """Something that answers chat messages: an endpoint, or a Sampler behind a template."""

    async def chat(
        self, messages: Sequence[Message], params: SamplingParams, n: int = 1,
        media: Sequence[Media] = (),
    ) -> list[ChatReply]:
        """Return n replies."""
        ...


class Trainer(Protocol):
    """Something that moves weights."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this trainer can do."""
        ...

    @property
    def policy_version(self) -> int:
        """Number of optimizer steps taken."""
        ...

    async def forward(self, data: Sequence[Datum]) -> list[FloatArray]:
        """Return one (T,) array of log-probabilities per datum, 0 where mask is 0.

        They are those of logits / ``datum.temperature``, as in :meth:`forward_backward`.
        """
        ...

    async def forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        """Add the gradient of ``sum(loss_T * weights_T)`` over all data to what is there.

        Raises:
            NonFiniteLoss: the loss or a gradient is NaN or infinite; nothing was updated.
        """
        ...

    async def optim_step(self, params: OptimParams) -> Stats:
        """Clip, update, clear the gradient, count one policy version up."""
        ...

    async def sampler(self) -> Sampler:
        """A sampler of the current weights."""
        ...

    async def frozen_sampler(self) -> Sampler:
        """A sampler of a copy of the current weights that never goes stale (a reference)."""
        ...

    async def save_state(self, path: Path) -> None:
        """Write weights, optimizer and version to the folder ``path`` (must not exist)."""
        ...

    async def load_state(self, path: Path) -> None:
        """Restore what :meth:`save_state` wrote, to the bit."""
        ...

    async def save_checkpoint(self, path: Path) -> None:
        """Write a Hugging Face checkpoint (weights, config, tokenizer) to the folder ``path``."""
        ...


class Scorer(Protocol):
    """A classifier or value head over tokens."""

    async def score(self, token_ids: Sequence[int], media: Sequence[Media] = ()) -> FloatArray:
        """Return the head's outputs for one sequence."""
        ...


class ChoiceScorer(Protocol):
    """Something that compares continuations of one prompt at about the price of one."""

    async def choice_logprobs(
        self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]],
        media: Sequence[Media] = (),
    ) -> FloatArray:
        """Return (K,) log p(choice_k | prompt), summed over the tokens of each choice."""
        ...
