"""Runs rows of known decoder families: prompts in batches, then one step for all rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from safeladder.engine.local.decoder import FastDecoder
from safeladder.engine.local.kv import KVCache, PrefixCache
from safeladder.engine.local.runner import Counters, PromptInput, chunks, token_logprobs

_ENCODE_TOKENS = 8192
"""Most padded tokens encoded by one call, to bound memory."""


class FastRunner:
    """The batch of one :class:`FastDecoder`; rows may join at any time.

    Args:
        decoder: one policy version.
        idle_caches: buffers that may be used, from other versions too; they are given back when
            there are no rows.
        prefixes: keys and values of this version.
        counters: where work is counted.
    """

    def __init__(self, decoder: FastDecoder, idle_caches: list[KVCache],
                 prefixes: PrefixCache, counters: Counters) -> None:
        self._decoder = decoder
        self._idle_caches = idle_caches
        self._cache: KVCache | None = None
        self._prefixes = prefixes
        self._counters = counters

    def is_open(self, rows: int) -> bool:
        """Always."""
        return True

    def accepts(self, prompt: PromptInput, before: Sequence[PromptInput]) -> bool:
        """Every text prompt; the sampler sends prompts with images elsewhere."""
        return not prompt.media

    def admit(self, prompts: Sequence[PromptInput], repeats: Sequence[int]) -> Tensor:
        """Encode each prompt once and append its rows; return (sum(repeats), vocabulary) logits."""
        kvs: list[Tensor] = []
        last: list[Tensor] = []
        for chunk in chunks([len(prompt.token_ids) for prompt in prompts], _ENCODE_TOKENS):
            some = [prompts[i].token_ids for i in chunk]
            pasts = [self._prefixes.lookup(ids) for ids in some]
            reused = [0 if past is None else past.shape[3] for past in pasts]
            encoded = self._decoder.encode(
                [ids[start:] for ids, start in zip(some, reused, strict=True)], pasts)
            self._counters.reused_tokens += sum(reused)
            self._counters.encoded_tokens += sum(map(len, some)) - sum(reused)
            for p, (ids, start) in enumerate(zip(some, reused, strict=True)):
                last.append(encoded.hidden[p, len(ids) - start - 1])
                kvs.append(encoded.kvs[p])
                self._prefixes.insert(ids, encoded.kvs[p].clone)
        if self._cache is None:
            self._cache = self._idle_caches.pop() if self._idle_caches else (
                self._decoder.new_cache())
        self._cache.admit(kvs, repeats)
        logits = self._decoder.logits(torch.stack(last))
        return logits.repeat_interleave(torch.tensor(repeats, device=logits.device), dim=0)

    def step(self, token_ids: Tensor) -> Tensor:
        """Feed every row its last token; return (R, vocabulary) logits."""
        assert self._cache is not None
        self._counters.steps += 1
        return self._decoder.step(token_ids, self._cache)

    def remember(self, row: int, token_ids: tuple[int, ...]) -> None:
        """Keep a row for prompts that continue it; its last token was never fed to the model."""
        assert self._cache is not None
        known = token_ids[:-1]
        self._prefixes.insert(known, partial(self._cache.row, row, len(known)))

    def drop(self, finished: Sequence[int]) -> list[int]:
        """Remove rows; return the old index of each row left, in its new order."""
        assert self._cache is not None
        order = self._cache.drop(finished)
        if not order:
            self._idle_caches.append(self._cache)
            self._cache = None
        return order

    def reset(self) -> None:
        """Forget all rows; what they wrote may not be finite, so the buffers go too."""
        self._cache = None

    def score(self, prompts: Sequence[PromptInput], temperatures: Sequence[float]) -> list[Tensor]:
        """fp32 log-probabilities of each row's tokens, (T,) each; position 0 is 0."""
        rows = [prompt.token_ids for prompt in prompts]
        scores: dict[int, Tensor] = {}
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for chunk in chunks([len(rows[i]) for i in by_length], _ENCODE_TOKENS):
            indices = [by_length[i] for i in chunk]
            encoded = self._decoder.encode([rows[i] for i in indices])
            self._counters.scored_tokens += sum(len(rows[i]) for i in indices)
            for p, index in enumerate(indices):
                hidden = encoded.hidden[p, : len(rows[index]) - 1]
                scores[index] = token_logprobs(
                    partial(self._logits_of, hidden), rows[index], temperatures[index],
                    self._decoder.spec.vocab_size)
        return [scores[i] for i in range(len(rows))]

    def _logits_of(self, hidden: Tensor, part: slice) -> Tensor:
        return self._decoder.logits(hidden[part])
