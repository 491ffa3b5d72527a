"""Runs rows of known decoder families: prompts in batches, then one step for all rows at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from safeladder.engine.local.decoder import FastDecoder
from safeladder.engine.local.kv import KVCache, PrefixCache, Span
from safeladder.engine.local.runner import Counters, PromptInput, chunks, token_logprobs
from safeladder.engine.local.vision import ImageEncoder, Seen

_ENCODE_TOKENS = 8192
"""Most padded tokens encoded by one call, to bound memory."""


class FastRunner:
    """The batch of one :class:`FastDecoder`; rows may join at any time.

    Args:
        decoder: one policy version.
        idle_caches: buffers that may be used, from other versions too; they are given back when
            there are no rows.
        prefixes: keys and values of this version. Rows with images are found by the content of
            these: a conversation about an image sends it with every turn.
        counters: where work is counted.
        images: the vision half of this version, where the decoder may take images.
    """

    def __init__(self, decoder: FastDecoder, idle_caches: list[KVCache], prefixes: PrefixCache,
                 counters: Counters, images: ImageEncoder | None = None) -> None:
        self._decoder = decoder
        self._images = images
        self._idle_caches = idle_caches
        self._cache: KVCache | None = None
        self._prefixes = prefixes
        self._counters = counters

    def is_open(self, rows: int) -> bool:
        """Always."""
        return True

    def accepts(self, prompt: PromptInput, before: Sequence[PromptInput]) -> bool:
        """Always: rows of any prompts share the batch."""
        return True

    def admit(self, prompts: Sequence[PromptInput], repeats: Sequence[int]) -> Tensor:
        """Encode each different prompt once and append its rows; return their logits."""
        if self._cache is None:
            self._cache = self._idle_caches.pop() if self._idle_caches else (
                self._decoder.new_cache())
        keys = [prompt.key for prompt in prompts]
        different = dict(zip(keys, prompts, strict=True))
        place = {key: number for number, key in enumerate(different)}
        spans, last = self._encode(different)
        which = [place[key] for key in keys]
        self._cache.admit([spans[i] for i in which], repeats,
                          [prompt.offset for prompt in prompts])
        logits = self._decoder.logits(last)
        rows = torch.tensor(which).repeat_interleave(torch.tensor(repeats))
        return logits[rows.to(logits.device)]

    def _encode(
        self, prompts: Mapping[tuple[int, ...], PromptInput],
    ) -> tuple[list[Span], Tensor]:
        """Keys and values of each prompt, given by key, and the hidden states after the last
        tokens.
        """
        spans: list[Span] = []
        last: list[Tensor] = []
        keys = list(prompts)
        for chunk in chunks([len(key) for key in keys], _ENCODE_TOKENS):
            some = [keys[i] for i in chunk]
            shown = [prompts[key] for key in some]
            pasts = [self._prefixes.lookup(row) for row in some]
            reused = [0 if past is None else past.length for past in pasts]
            encoded = self._decoder.encode(
                [prompt.model_ids[start:] for prompt, start in zip(shown, reused, strict=True)],
                pasts, self._seen(shown, reused))
            self._counters.reused_tokens += sum(reused)
            self._counters.encoded_tokens += sum(map(len, some)) - sum(reused)
            for p, (row, start) in enumerate(zip(some, reused, strict=True)):
                last.append(encoded.hidden[p, len(row) - start - 1])
                spans.append(encoded.spans[p])
                self._prefixes.insert(row, encoded.spans[p].copy)
        return spans, torch.stack(last)

    def _seen(self, prompts: Sequence[PromptInput], starts: Sequence[int]) -> list[Seen | None]:
        """The images of each prompt from its token ``start`` on."""
        if self._images is None:
            return [None] * len(prompts)
        return self._images.seen([prompt.shown for prompt in prompts], starts)

    def step(self, token_ids: Tensor) -> Tensor:
        """Feed every row its last token; return (R, vocabulary) logits."""
        assert self._cache is not None
        self._counters.steps += 1
        return self._decoder.step(token_ids, self._cache)

    def remember(self, row: int, prompt: PromptInput, completion: tuple[int, ...]) -> None:
        """Keep a row for prompts that continue it; its last token was never fed to the model."""
        assert self._cache is not None
        known = prompt.key + completion[:-1]
        self._prefixes.insert_completion(known, partial(self._cache.row, row, len(known)))

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
        rows = [prompt.model_ids for prompt in prompts]
        scores: dict[int, Tensor] = {}
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for chunk in chunks([len(rows[i]) for i in by_length], _ENCODE_TOKENS):
            indices = [by_length[i] for i in chunk]
            encoded = self._decoder.encode(
                [rows[i] for i in indices],
                seen=self._seen([prompts[i] for i in indices], [0] * len(indices)))
            self._counters.scored_tokens += sum(len(rows[i]) for i in indices)
            for p, index in enumerate(indices):
                hidden = encoded.hidden[p, : len(rows[index]) - 1]
                shown = prompts[index].shown
                if shown is not None:
                    hidden = hidden[torch.from_numpy(shown.positions[:-1]).to(hidden.device)]
                scores[index] = token_logprobs(
                    partial(self._logits_of, hidden), prompts[index].token_ids,
                    temperatures[index], self._decoder.spec.vocab_size)
        return [scores[i] for i in range(len(rows))]

    def _logits_of(self, hidden: Tensor, part: slice) -> Tensor:
        return self._decoder.logits(hidden[part])
