"""A sampler whose next-token distribution is a plain function: exact, seeded, instant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safeladder.engine.base import Capability, ChatReply, SamplingParams
from safeladder.engine.fake.script import Script, ScriptSource
from safeladder.engine.fake.tokens import ByteTokenizer
from safeladder.errors import ModelError, SamplingError, StaleSampler
from safeladder.render.decode import Tokenizer, decode
from safeladder.types import Completion, FinishReason, FloatArray, Media, Message

Logits = NDArray[np.float64]


class LanguageModel(Protocol):
    """Logits of the next token, as a function of all ids before it."""

    def begin(self, prompt_ids: Sequence[int]) -> None:
        """Hear which prompt is continued; raise :class:`SamplingError` to refuse it."""
        ...

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """(V,) unnormalised log-probabilities of the token after ``token_ids``."""
        ...


class TableModel:
    """Next-token logits that depend on the last token alone: row ``table[last]``."""

    def __init__(self, table: Logits) -> None:
        self._table = table

    def begin(self, prompt_ids: Sequence[int]) -> None:
        """Any prompt will do."""

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """(V,) the row of the last token."""
        row: Logits = self._table[token_ids[-1]]
        return row


class FakeSampler:
    """Implements ``Sampler``, ``StreamingSampler`` and, with a tokenizer, ``ChatSampler``.

    Args:
        model: the distribution; :meth:`scripted` makes one from texts.
        tokenizer: for :meth:`chat` alone.
        policy_version: what every completion carries.
        current_version: returns the trainer's version; a later one makes this sampler stale.
        fail_on_calls: numbers (from 1) of the calls that raise ``SamplingError``.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer | None = None, policy_version: int = 0,
        current_version: Callable[[], int] | None = None, fail_on_calls: Collection[int] = (),
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._policy_version = policy_version
        self._current_version = current_version
        self._fail_on_calls = frozenset(fail_on_calls)
        self.num_calls = 0

    @classmethod
    def scripted(
        cls, source: ScriptSource, tokenizer: Tokenizer | None = None,
        fail_on_calls: Collection[int] = (),
    ) -> FakeSampler:
        """A sampler that says what :class:`Script` says; the tokenizer defaults to bytes."""
        tokenizer = tokenizer or ByteTokenizer()
        return cls(Script(source, tokenizer), tokenizer, fail_on_calls=fail_on_calls)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Log-probabilities and seeds; no images."""
        return frozenset({Capability.LOGPROBS, Capability.SEEDED})

    @property
    def policy_version(self) -> int:
        """As given."""
        return self._policy_version

    async def sample(
        self, prompt_ids: Sequence[int], params: SamplingParams, n: int = 1,
        media: Sequence[Media] = (),
    ) -> list[Completion]:
        """Return n completions of one prompt; row i uses the stream ``(seed, i)``."""
        self._enter(media)
        self._model.begin(prompt_ids)
        return [self._row(prompt_ids, params, row) for row in range(n)]

    async def logprobs(
        self, token_ids: Sequence[int], media: Sequence[Media] = (), temperature: float = 1.0,
    ) -> FloatArray:
        """Return (T,) log p(token_t | tokens before t); position 0 is 0."""
        self._enter(media)
        values = [0.0, *(float(log_softmax(self._model.logits(token_ids[:t]), temperature)[token])
                         for t, token in enumerate(token_ids) if t)]
        return np.array(values, np.float32)

    async def stream(
        self, prompt_ids: Sequence[int], params: SamplingParams, media: Sequence[Media] = (),
    ) -> AsyncIterator[int]:
        """Yield the tokens of row 0 of :meth:`sample`, the stop token last."""
        for completion in await self.sample(prompt_ids, params, 1, media):
            for token_id in completion.token_ids:
                yield token_id

    async def chat(
        self, messages: Sequence[Message], params: SamplingParams, n: int = 1,
        media: Sequence[Media] = (),
    ) -> list[ChatReply]:
        """Return n replies; the tokenizer's chat template makes the prompt."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise ModelError("FakeSampler.chat needs a tokenizer: pass one when making it")
        ids = tokenizer.apply_chat_template(
            [m.to_dict() for m in messages], add_generation_prompt=True, tokenize=False)
        prompt_ids = tokenizer(ids, add_special_tokens=False)["input_ids"]
        replies = []
        for completion in await self.sample(prompt_ids, params, n, media):
            text_ids = [i for i in completion.token_ids if i not in tokenizer.all_special_ids]
            replies.append(ChatReply(decode(tokenizer, text_ids), completion.finish_reason,
                                     len(prompt_ids), len(completion.token_ids)))
        return replies

    def _enter(self, media: Sequence[Media]) -> None:
        current = self._current_version() if self._current_version else self._policy_version
        if current != self._policy_version:
            raise StaleSampler(f"this sampler has version {self._policy_version}, the weights "
                               f"{current}: take a new one from trainer.sampler()")
        self.num_calls += 1
        if self.num_calls in self._fail_on_calls:
            raise SamplingError(f"the fake engine was told to fail at call {self.num_calls}")
        if media:
            raise ModelError("the fake engine takes no images: leave them out of its prompts")

    def _row(self, prompt_ids: Sequence[int], params: SamplingParams, row: int) -> Completion:
        generator = np.random.default_rng([params.seed, row])
        ids, logprobs = list(prompt_ids), []
        finish_reason: FinishReason = "length"
        for count in range(params.max_tokens):
            scores = log_softmax(self._model.logits(ids), params.temperature)
            token_id = choose(scores, params, generator, count)
            ids.append(token_id)
            logprobs.append(float(scores[token_id]))
            if token_id in params.stop_token_ids:
                finish_reason = "stop"
                break
        return Completion(tuple(ids[len(prompt_ids):]), np.array(logprobs, np.float32),
                          finish_reason, self._policy_version)


def log_softmax(logits: Logits, temperature: float) -> Logits:
    """(V,) log-probabilities of logits / temperature; temperature 0 leaves the logits alone."""
    scaled = np.asarray(logits, np.float64) / (temperature or 1.0)
    scaled = scaled - scaled.max()
    result: Logits = scaled - np.log(np.exp(scaled).sum())
    return result


def choose(
    scores: Logits, params: SamplingParams, generator: np.random.Generator, count: int,
) -> int:
    """Draw one token: stop tokens only after ``min_tokens``, then top-k, then top-p.

    ``count`` tokens were drawn before. Equal scores are ordered by token id; those equal to the
    k-th all stay.
    """
    allowed = scores.copy()
    if count < params.min_tokens:
        allowed[list(params.stop_token_ids)] = -np.inf
    order = np.argsort(-allowed, kind="stable")
    if params.temperature == 0:
        return int(order[0])
    if params.top_k:
        order = order[allowed[order] >= allowed[order[min(params.top_k, len(order)) - 1]]]
    weights = np.exp(allowed[order])
    weights = weights / weights.sum()
    if params.top_p < 1:
        # the smallest set that reaches top_p: a token stays if those before it do not
        order = order[np.cumsum(weights) - weights < params.top_p]
        weights = weights[:len(order)] / weights[:len(order)].sum()
    return int(order[np.searchsorted(np.cumsum(weights), generator.random(), side="right")])
