"""The sampler of the local engine.

A :class:`SamplingEngine` belongs to one model and makes a :class:`LocalSampler` for each policy
version; buffers outlive the versions. Requests of one sampler share one running batch: rows are
admitted in order of submission as others finish, so it does not matter how callers group them.

The computing happens in the event loop's thread, one token for all rows between two turns of the
loop. Nothing depends on timing: the same calls in the same order give the same batches and hence
the same bits. A row's tokens depend on its prompt, parameters and stream ``(seed, row)``; other
rows of the batch change its logits by rounding at most.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from safeladder.engine.base import Capability, SamplingParams
from safeladder.engine.local.decoder import FastDecoder, image_logits
from safeladder.engine.local.families import DecoderSpec, agrees
from safeladder.engine.local.fast import FastRunner
from safeladder.engine.local.generic import GenericRunner
from safeladder.engine.local.kv import Continuations, KVCache, PrefixCache
from safeladder.engine.local.media import expand_row
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.rows import Request, Rows
from safeladder.engine.local.runner import Counters, PromptInput, Runner
from safeladder.engine.local.scheduler import Scheduler
from safeladder.engine.local.vision import ImageEncoder, images_agree
from safeladder.errors import SamplingError, StaleSampler
from safeladder.types import Completion, FloatArray, Media

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingOptions:
    """How much is sampled at once, kept and shared."""

    max_rows: int = 128
    """Rows in the running batch; more wait. Small models on CPUs are fastest around 128: beyond
    that their keys and values no longer fit into the processor's cache."""
    max_cached_tokens: int = 16384
    """Tokens whose keys and values are kept, of prompts and of conversations that are continued,
    for prompts that begin with them; 0: none."""
    workers: int = 1
    """Threads that share the rows of a step (compiled code only). For small models several
    workers with one torch thread each are faster than one with several."""


@dataclass
class SamplingEngine:
    """Makes the samplers of one model.

    Args:
        loaded: the model; a trainer may change its weights between samplers.
        options: batch size, caches, threads.
        fast: use the hand-written forward where the model's family is known. It is compared with
            the model's own forward once; a difference switches it off with a warning.
    """

    loaded: LoadedModel
    options: SamplingOptions = field(default_factory=SamplingOptions)
    fast: bool = True
    idle_caches: list[KVCache] = field(default_factory=list)
    """Buffers that no sampler is using."""
    continuations: Continuations = field(init=False)
    _verified: bool | None = None
    _verified_images: bool | None = None

    def __post_init__(self) -> None:
        self.continuations = Continuations(patience=2 * self.options.max_rows)

    def sampler(
        self, policy_version: int = 0, current_version: Callable[[], int] | None = None,
        max_staleness: int = 0,
    ) -> LocalSampler:
        """A sampler of the current weights.

        Args:
            policy_version: number of these weights.
            current_version: returns the number of the model's weights now. Once it is more than
                ``max_staleness`` ahead, the sampler refuses. None: the weights never change.
            max_staleness: above 0 the sampler copies weights that it would else read in place.
        """
        return LocalSampler(self, Pin(policy_version, current_version, max_staleness),
                            keep=max_staleness > 0)

    def frozen_sampler(self, policy_version: int = 0) -> LocalSampler:
        """A sampler of a copy of the current weights; it never goes stale."""
        return LocalSampler(self, Pin(policy_version, None, 0), keep=True)

    def decoder(self, keep: bool) -> FastDecoder | None:
        """The hand-written forward with the current weights, if it can be used."""
        spec = DecoderSpec.from_model(self.loaded.model) if self.fast else None
        if spec is None or self._verified is False:
            return None
        decoder = FastDecoder(spec, keep, self.options.workers)
        if self._verified is None:
            self._verified = agrees(spec, self.loaded.model, decoder.sequence_logits)
            if not self._verified:
                _logger.warning(
                    "the hand-written forward of %s differs from the model's own: sampling goes "
                    "through the model's own, which is slower", spec.family)
                return None
        return decoder

    def image_encoder(self, decoder: FastDecoder, keep: bool) -> ImageEncoder | None:
        """The vision half for ``decoder`` with the current weights, if it can be used."""
        encoder = ImageEncoder.of(self.loaded)
        if encoder is None or self._verified_images is False:
            return None
        if self._verified_images is None:
            self._verified_images = images_agree(
                self.loaded, decoder.spec, partial(image_logits, decoder, encoder))
            if not self._verified_images:
                return None
        return encoder.frozen() if keep else encoder

    def generic_model(self, keep: bool) -> LoadedModel:
        """The model itself, or a copy that keeps the current weights."""
        if not keep:
            return self.loaded
        model = copy.deepcopy(self.loaded.model).eval().requires_grad_(False)
        return replace(self.loaded, model=model)


class Pin(NamedTuple):
    """Which weights a sampler belongs to, and how far they may have moved on."""

    policy_version: int
    current_version: Callable[[], int] | None
    max_staleness: int

    def check(self) -> None:
        """Raise :class:`StaleSampler` once the weights are too far ahead."""
        current = self.current_version() if self.current_version else self.policy_version
        if current - self.policy_version > self.max_staleness:
            raise StaleSampler(
                f"this sampler has the weights of version {self.policy_version}, the trainer is "
                f"at {current}: take a new one from trainer.sampler()")


class _Score(NamedTuple):
    prompt: PromptInput
    temperature: float
    future: asyncio.Future[FloatArray]


class _Lane:
    """A runner with its queue: known families in one, everything else in another."""

    def __init__(self, runner: Runner, scheduler: Scheduler, fast: bool) -> None:
        self.runner = runner
        self.scheduler = scheduler
        self.scores: list[_Score] = []
        # Modules of the model's own forward may keep tensors that training meets again, and
        # tensors made in inference mode cannot take part in it.
        self.no_gradient: Callable[[], AbstractContextManager[object]] = (
            torch.inference_mode if fast else torch.no_grad)

    @property
    def busy(self) -> bool:
        return bool(self.scores) or self.scheduler.busy

    def advance(self) -> None:
        with self.no_gradient():
            scores, self.scores = self.scores, []
            waiting = [score for score in scores if not score.future.done()]
            if waiting:
                self._score(waiting)
            self.scheduler.advance()

    def _score(self, scores: Sequence[_Score]) -> None:
        try:
            results = self.runner.score([score.prompt for score in scores],
                                        [score.temperature for score in scores])
        except Exception as error:
            for score in scores:
                score.future.set_exception(error)
            return
        for score, result in zip(scores, results, strict=True):
            score.future.set_result(result.numpy(force=True).astype(np.float32))

    def fail(self, error: BaseException) -> None:
        for score in self.scores:
            if not score.future.done():
                score.future.set_exception(error)
        self.scores = []
        self.scheduler.fail(error)


class LocalSampler:
    """Implements ``Sampler`` and ``StreamingSampler``; made by a :class:`SamplingEngine`.

    To be used from one event loop at a time. Log-probabilities of sampled tokens are those of
    softmax(logits / temperature) over the whole vocabulary, in fp32; greedy ones (temperature 0)
    are at temperature 1.
    """

    def __init__(self, engine: SamplingEngine, pin: Pin, keep: bool) -> None:
        self._engine = engine
        self._pin = pin
        self._pump: asyncio.Task[None] | None = None
        self.counters = Counters()
        config: Any = engine.loaded.config
        text_config = config.get_text_config()
        self._vocab_size = int(text_config.vocab_size)
        self._max_positions: int | None = getattr(text_config, "max_position_embeddings", None)
        decoder = engine.decoder(keep)
        self._images = None if decoder is None else engine.image_encoder(decoder, keep)
        self._fast = None if decoder is None else self._fast_lane(decoder)
        self._generic: _Lane | None = None
        if self._fast is None or (engine.loaded.processor is not None and self._images is None):
            self._generic = self._generic_lane(engine.generic_model(keep))

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Depends on dtype and on whether the model takes images."""
        found = {Capability.LOGPROBS, Capability.SEEDED}
        if next(self._engine.loaded.model.parameters()).dtype == torch.float32:
            found.add(Capability.EXACT_LOGPROBS)
        if self._engine.loaded.processor is not None:
            found.add(Capability.MEDIA)
        return frozenset(found)

    @property
    def policy_version(self) -> int:
        """Number of optimizer steps behind these weights."""
        return self._pin.policy_version

    @property
    def is_fast(self) -> bool:
        """Whether text goes through the hand-written forward."""
        return self._fast is not None

    @property
    def is_fast_with_images(self) -> bool:
        """Whether prompts with images do, too."""
        return self._images is not None

    async def sample(
        self, prompt_ids: Sequence[int], params: SamplingParams, n: int = 1,
        media: Sequence[Media] = (),
    ) -> list[Completion]:
        """Return n completions of one prompt; row i draws from the stream ``(seed, i)``.

        Raises:
            StaleSampler: the weights moved on, before or during the call.
            SamplingError: the prompt is empty or too long, or the logits are not finite.
            ModelError: images for a model that takes none.
        """
        return await self._submit(prompt_ids, params, n, media).future

    async def stream(
        self, prompt_ids: Sequence[int], params: SamplingParams, media: Sequence[Media] = (),
    ) -> AsyncIterator[int]:
        """Yield the tokens of row 0 of :meth:`sample` as they are drawn, the stop token last."""
        queue: asyncio.Queue[int | None] = asyncio.Queue()
        request = self._submit(prompt_ids, params, 1, media, queue)
        try:
            while (token := await queue.get()) is not None:
                yield token
            await request.future
        finally:
            request.future.cancel()

    async def logprobs(
        self, token_ids: Sequence[int], media: Sequence[Media] = (), temperature: float = 1.0,
    ) -> FloatArray:
        """Return (T,) log p(token_t | tokens before t) of logits / temperature; position 0 is 0.

        Concurrent calls are computed together.
        """
        self._pin.check()
        if temperature <= 0:
            raise ValueError(f"logprobs needs a temperature above 0, got {temperature}")
        prompt = self._checked(token_ids, 0, media)
        score = _Score(prompt, temperature, asyncio.get_running_loop().create_future())
        self._lane(prompt).scores.append(score)
        self._start()
        return await score.future

    def _submit(
        self, prompt_ids: Sequence[int], params: SamplingParams, n: int,
        media: Sequence[Media], stream: asyncio.Queue[int | None] | None = None,
    ) -> Request:
        self._pin.check()
        if n < 1:
            raise ValueError(f"sample needs n >= 1, got {n}")
        prompt = self._checked(prompt_ids, params.max_tokens, media)
        future: asyncio.Future[list[Completion]] = asyncio.get_running_loop().create_future()
        request = Request(prompt, params, n, future, stream)
        self._lane(prompt).scheduler.submit(request)
        self._start()
        return request

    def _checked(
        self, token_ids: Sequence[int], max_tokens: int, media: Sequence[Media],
    ) -> PromptInput:
        ids = tuple(int(token) for token in token_ids)
        if not ids:
            raise SamplingError("a prompt needs at least one token")
        if min(ids) < 0 or max(ids) >= self._vocab_size:
            raise SamplingError(f"token ids must be in [0, {self._vocab_size}), "
                                f"got {min(ids)} to {max(ids)}: another model's tokenizer?")
        expanded = expand_row(self._engine.loaded, ids, media)
        if self._images is not None:
            expanded = self._images.located(expanded)
        length = len(expanded.token_ids)
        if self._max_positions is not None and length + max_tokens > self._max_positions:
            raise SamplingError(
                f"{length} prompt tokens and max_tokens {max_tokens} exceed the model's "
                f"{self._max_positions} positions: lower max_tokens")
        return PromptInput(ids, tuple(media), expanded)

    def _lane(self, prompt: PromptInput) -> _Lane:
        if self._fast is not None and (not prompt.media or self._images is not None):
            return self._fast
        assert self._generic is not None
        return self._generic

    def _fast_lane(self, decoder: FastDecoder) -> _Lane:
        runner = FastRunner(decoder, self._engine.idle_caches, self._prefixes(), self.counters,
                            self._images)
        rows = Rows(decoder.spec.vocab_size, decoder.spec.device)
        return _Lane(runner, self._scheduler(runner, rows), fast=True)

    def _generic_lane(self, loaded: LoadedModel) -> _Lane:
        runner = GenericRunner(loaded, self._prefixes(), self.counters)
        return _Lane(runner, self._scheduler(runner, Rows(self._vocab_size, loaded.device)),
                     fast=False)

    def _scheduler(self, runner: Runner, rows: Rows) -> Scheduler:
        return Scheduler(runner, rows, self._pin.policy_version, self._engine.options.max_rows,
                         self.counters)

    def _prefixes(self) -> PrefixCache:
        return PrefixCache(self._engine.options.max_cached_tokens, self._engine.continuations)

    def _lanes(self) -> list[_Lane]:
        return [lane for lane in (self._fast, self._generic) if lane is not None]

    def _start(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Advance all lanes until nothing is left to do."""
        try:
            # Calls that are made together should be admitted together: let them all arrive.
            await asyncio.sleep(0)
            while any(lane.busy for lane in self._lanes()):
                for lane in self._lanes():
                    self._advance(lane)
                await asyncio.sleep(0)
        finally:
            # Only a loop that is being closed leaves work behind; nobody waits for it.
            for lane in self._lanes():
                if lane.busy:
                    lane.fail(SamplingError("the event loop was closed while sampling"))

    def _advance(self, lane: _Lane) -> None:
        try:
            self._pin.check()
            lane.advance()
        except Exception as error:
            # Every error belongs to those who wait, whoever's row it came from: the batch is one.
            lane.fail(error)
