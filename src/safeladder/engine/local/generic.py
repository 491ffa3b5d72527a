"""Runs rows of any Hugging Face causal or image-text model through its own ``forward``.

Rows are admitted in cohorts: a cohort of text prompts is padded on the left, as ``generate`` pads
it, and new rows wait until the cohort has finished (finished rows are dropped from the model's
cache at once). A prompt with images is a cohort of its own, because image models keep position
offsets of the last batch they saw. A model that returns no reorderable cache is run over the
whole sequence at every step: slow, and right.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from safeladder.engine.local.kv import PrefixCache, Span
from safeladder.engine.local.media import ExpandedRow, collate, expand_row
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.runner import Counters, PromptInput, chunks, token_logprobs

_FORWARD_TOKENS = 4096


class GenericRunner:
    """The batch of one Hugging Face model.

    Args:
        loaded: the model, evaluation mode.
        prefixes: keys and values of these weights. Text rows only, and only of models whose
            layers all attend to everything before them.
        counters: where work is counted.
    """

    def __init__(self, loaded: LoadedModel, prefixes: PrefixCache, counters: Counters) -> None:
        self._loaded = loaded
        self._model: Any = loaded.model
        # peft hides the signature of the model it wraps
        unwrapped: Any = getattr(self._model, "get_base_model", lambda: self._model)()
        self._inner: Any = getattr(unwrapped, "model", unwrapped)
        self._prefixes = prefixes
        self._counters = counters
        parameters = inspect.signature(unwrapped.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._takes_cache = "past_key_values" in parameters
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.int64)
        self._sequences: list[list[int]] = []
        self._has_media = False
        self._rope_deltas: Any = None

    def accepts(self, prompt: PromptInput, before: Sequence[PromptInput]) -> bool:
        """Text prompts share a cohort; a prompt with images is alone."""
        return not before or not (prompt.media or before[0].media)

    def is_open(self, rows: int) -> bool:
        """Whether rows may be admitted now."""
        return rows == 0

    def admit(self, prompts: Sequence[PromptInput], repeats: Sequence[int]) -> Tensor:
        """Start a cohort; return (sum(repeats), vocabulary) fp32 logits."""
        self._has_media = any(prompt.media for prompt in prompts)
        self._cache = None
        select = torch.repeat_interleave(torch.tensor(repeats))
        if self._has_media:
            logits = self._admit_media(prompts[0])
        else:
            logits = self._admit_text([prompt.token_ids for prompt in prompts])
        self._sequences = [list(prompts[i].token_ids) for i in select.tolist()]
        self._select(select)
        return logits[select.to(logits.device)]

    def step(self, token_ids: Tensor) -> Tensor:
        """Feed every row its last token; return (R, vocabulary) fp32 logits."""
        self._counters.steps += 1
        for sequence, token in zip(self._sequences, token_ids.tolist(), strict=True):
            sequence.append(token)
        if self._cache is None:
            return self._without_cache()
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        if self._rope_deltas is not None:
            # Other calls of the model since the last step may have left theirs.
            self._inner.rope_deltas = self._rope_deltas
        return self._forward(token_ids[:, None], positions=self._mask.sum(-1, keepdim=True) - 1)

    def remember(self, row: int, prompt: PromptInput, completion: tuple[int, ...]) -> None:
        """Keep a row for prompts that continue it; its last token was never fed to the model."""
        if not self._has_media and self._sliceable():
            known = prompt.token_ids + completion[:-1]
            self._prefixes.insert_completion(known, lambda: self._row(row, len(known)))

    def drop(self, finished: Sequence[int]) -> list[int]:
        """Remove rows; return the old index of each row left, in its new order."""
        gone = set(finished)
        order = [r for r in range(len(self._sequences)) if r not in gone]
        self._sequences = [self._sequences[r] for r in order]
        if order:
            self._select(torch.tensor(order))
        else:
            self.reset()
        return order

    def reset(self) -> None:
        """Forget all rows."""
        self._cache, self._sequences, self._has_media, self._rope_deltas = None, [], False, None

    def score(self, prompts: Sequence[PromptInput], temperatures: Sequence[float]) -> list[Tensor]:
        """fp32 log-probabilities of each row's tokens, (T,) each; position 0 is 0."""
        scores: dict[int, Tensor] = {}
        expanded = [self._expanded(prompt) for prompt in prompts]
        by_length = sorted(range(len(prompts)),
                           key=lambda i: (bool(prompts[i].media), len(expanded[i].token_ids)))
        batches = chunks([len(expanded[i].token_ids) for i in by_length], _FORWARD_TOKENS)
        for batch in [[by_length[i] for i in chunk] for chunk in batches]:
            alone = any(prompts[i].media for i in batch)
            for group in ([i] for i in batch) if alone else (batch,):
                inputs = collate(self._loaded, [expanded[i] for i in group])
                logits = self._model(**inputs).logits
                for p, i in enumerate(group):
                    places = torch.from_numpy(expanded[i].positions[:-1]).to(logits.device)
                    rows = logits[p, places].float()
                    self._counters.scored_tokens += len(expanded[i].token_ids)
                    scores[i] = token_logprobs(
                        rows.__getitem__, prompts[i].token_ids, temperatures[i], rows.shape[-1])
        return [scores[i] for i in range(len(prompts))]

    def _expanded(self, prompt: PromptInput) -> ExpandedRow:
        return prompt.expanded or expand_row(self._loaded, prompt.token_ids, prompt.media)

    def _admit_text(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        pasts = [self._prefixes.lookup(prompt) for prompt in prompts]
        reused = [0 if past is None else past.length for past in pasts]
        fresh = [prompt[start:] for prompt, start in zip(prompts, reused, strict=True)]
        self._counters.reused_tokens += sum(reused)
        self._counters.encoded_tokens += sum(map(len, fresh))
        cached, width = max(reused), max(map(len, fresh))
        ids = torch.zeros(len(prompts), width, dtype=torch.int64)
        mask = torch.zeros(len(prompts), cached + width, dtype=torch.int64)
        for p, (row, start) in enumerate(zip(fresh, reused, strict=True)):
            ids[p, width - len(row):] = torch.tensor(row)
            mask[p, cached - start:cached] = 1
            mask[p, cached + width - len(row):] = 1
        self._mask = mask.to(self._loaded.device)
        if cached:
            self._cache = self._padded_cache(pasts, cached)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, cached:]
        return self._forward(ids.to(self._loaded.device), positions)

    def _admit_media(self, prompt: PromptInput) -> Tensor:
        inputs = collate(self._loaded, [self._expanded(prompt)])
        self._mask = inputs["attention_mask"]
        self._counters.encoded_tokens += self._mask.shape[1]
        output = self._model(**inputs, use_cache=True)
        self._cache = output.past_key_values
        self._rope_deltas = getattr(self._inner, "rope_deltas", None)
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _forward(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": token_ids}
        if not self._has_media:
            inputs["attention_mask"] = self._mask
            if self._takes_positions:
                inputs["position_ids"] = positions
        # Rows with images have equal lengths, and the model knows best how it counts positions.
        if self._takes_cache:
            inputs |= {"past_key_values": self._cache, "use_cache": True}
        output = self._model(**inputs)
        cache = getattr(output, "past_key_values", None)
        self._cache = cache if hasattr(cache, "reorder_cache") else None
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _without_cache(self) -> Tensor:
        rows = [expand_row(self._loaded, sequence) for sequence in self._sequences]
        logits = self._model(**collate(self._loaded, rows)).logits
        ends = torch.tensor([len(row.token_ids) - 1 for row in rows], device=logits.device)
        last: Tensor = logits[torch.arange(len(rows), device=logits.device), ends].float()
        return last

    def _select(self, rows: Tensor) -> None:
        rows = rows.to(self._loaded.device)
        self._mask = self._mask[rows]
        if self._cache is not None:
            self._cache.reorder_cache(rows)

    def _sliceable(self) -> bool:
        """Whether a row of the cache is its keys and values in order, layer by layer."""
        from transformers.cache_utils import DynamicLayer

        layers: list[Any] = getattr(self._cache, "layers", None) or []
        return (bool(layers) and self._takes_positions
                and all(type(layer) is DynamicLayer for layer in layers)
                and len({layer.keys.shape for layer in layers}
                        | {layer.values.shape for layer in layers}) == 1)

    def _row(self, row: int, length: int) -> Span:
        columns = self._mask[row, : self._cache.get_seq_length()].nonzero()[:length, 0]
        layers = self._cache.layers
        return Span(torch.stack([layer.keys[row, :, columns] for layer in layers]),
                    torch.stack([layer.values[row, :, columns] for layer in layers]))

    def _padded_cache(self, pasts: Sequence[Span | None], length: int) -> Any:
        """A cache of ``length`` positions in which every row's cached prefix stands at the end."""
        from transformers import DynamicCache

        some = next(past for past in pasts if past is not None)
        num_layers, num_heads, _, head_dim = some.keys.shape
        padded = some.keys.new_zeros(num_layers, 2, len(pasts), num_heads, length, head_dim)
        for p, past in enumerate(pasts):
            if past is not None:
                padded[:, 0, p, :, length - past.length:] = past.keys
                padded[:, 1, p, :, length - past.length:] = past.values
        return DynamicCache([(layer[0], layer[1]) for layer in padded.unbind(0)])
