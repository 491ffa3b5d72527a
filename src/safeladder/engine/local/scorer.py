"""Class outputs and the comparison of continuations, batched over concurrent calls.

Both are about the outputs after the last token of a row: a :class:`LocalScorer` returns them, a
:class:`LocalChoices` reads the log-probabilities of a few continuations from them. Calls that are
made together (``asyncio.gather``) are computed together, in batches of rows of like length. Rows
of known families take the hand-written forward; all others the model's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from safeladder.engine.local.decoder import FastDecoder, image_logits
from safeladder.engine.local.families import DecoderSpec, agrees
from safeladder.engine.local.kv import Span
from safeladder.engine.local.media import ExpandedRow, collate, expand_row
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.runner import chunks
from safeladder.engine.local.vision import ImageEncoder, images_agree
from safeladder.errors import ModelError
from safeladder.types import FloatArray, Media

_MAX_TOKENS = 8192
"""Padded tokens of one batch, to bound memory."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Ask:
    """One call: a row, and the continuations to compare (none for class outputs)."""

    row: ExpandedRow
    choices: tuple[tuple[int, ...], ...]
    future: asyncio.Future[FloatArray]

    @property
    def length(self) -> int:
        return len(self.row.token_ids)


@dataclass(frozen=True)
class _Encoded:
    """A row's outputs after its last token (fp32), and its keys and values where there are any."""

    logits: Tensor
    past: Span | None


class _Pooled(Generic[Result]):
    """Collects the calls that are made in one turn of the event loop."""

    def __init__(self, loaded: LoadedModel, max_tokens: int) -> None:
        self._loaded, self._max_tokens = loaded, max_tokens
        self._model: Any = loaded.model
        self._waiting: list[_Ask] = []
        self._pump: asyncio.Task[None] | None = None
        spec = DecoderSpec.from_model(loaded.model)
        decoder = None if spec is None else FastDecoder(spec)
        if spec is None or decoder is None or not agrees(
                spec, loaded.model, decoder.sequence_logits):
            decoder = None
        self._decoder = decoder
        self._images = None if decoder is None else _images(loaded, decoder)
        config: Any = loaded.config.get_text_config()
        self._max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self._num_ids = int(config.vocab_size)

    async def _submit(
        self, token_ids: Sequence[int], media: Sequence[Media],
        choices: tuple[tuple[int, ...], ...] = (),
    ) -> FloatArray:
        ids = [int(token) for token in token_ids]
        if not ids or min(ids) < 0 or max(ids) >= self._num_ids:
            raise ModelError(f"a row needs at least one token, each in [0, {self._num_ids}); got "
                             f"{len(ids)} tokens: another model's tokenizer?")
        row = expand_row(self._loaded, ids, media)
        if self._images is not None:
            row = self._images.located(row)
        longest = len(row.token_ids) + max(map(len, choices), default=0)
        if self._max_positions is not None and longest > self._max_positions:
            raise ModelError(f"{longest} tokens exceed the model's {self._max_positions} positions")
        ask = _Ask(row, choices, asyncio.get_running_loop().create_future())
        self._waiting.append(ask)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())
        return await ask.future

    async def _run(self) -> None:
        await asyncio.sleep(0)  # calls that are made together should all arrive
        while self._waiting:
            asks, self._waiting = self._waiting, []
            for batch in self._batches(asks):
                self._answer([ask for ask in batch if not ask.future.done()])
                await asyncio.sleep(0)

    def _answer(self, batch: Sequence[_Ask]) -> None:
        try:
            with torch.no_grad():
                results = self._compute(batch) if batch else []
        except Exception as error:
            for ask in batch:
                ask.future.set_exception(error)
            return
        for ask, result in zip(batch, results, strict=True):
            ask.future.set_result(result.numpy(force=True).astype(np.float32))

    def _batches(self, asks: Sequence[_Ask]) -> list[list[_Ask]]:
        """Rows of like length whose image tensors fit together where the model joins them."""
        by_form: dict[object, list[_Ask]] = {}
        for ask in asks:
            form: object = None
            if self._images is None:
                form = tuple((name, value.shape[1:]) for name, value in ask.row.tensors.items())
            by_form.setdefault(form, []).append(ask)
        made = []
        for group in by_form.values():
            group.sort(key=lambda ask: ask.length)
            made += [[group[i] for i in chunk]
                     for chunk in chunks([ask.length for ask in group], self._max_tokens)]
        return made

    def _encode(self, rows: Sequence[ExpandedRow]) -> list[_Encoded]:
        """The outputs after the last token of each row of one batch."""
        if self._decoder is not None and (self._images is not None or not rows[0].images):
            seen = [] if self._images is None else self._images.seen(rows, [0] * len(rows))
            encoded = self._decoder.encode([row.token_ids.tolist() for row in rows], seen=seen)
            last = torch.stack([encoded.hidden[i, len(row.token_ids) - 1]
                                for i, row in enumerate(rows)])
            logits = self._decoder.logits(last)
            return [_Encoded(logits[i], encoded.spans[i]) for i in range(len(rows))]
        outputs = self._outputs(rows)
        return [_Encoded(outputs[i, len(row.token_ids) - 1].float(), None)
                for i, row in enumerate(rows)]

    def _outputs(self, rows: Sequence[ExpandedRow]) -> Tensor:
        """(B, S, outputs) of the model's own forward, padded on the right."""
        outputs: Tensor = self._model(**collate(self._loaded, rows), use_cache=False).logits
        return outputs

    def _compute(self, batch: Sequence[_Ask]) -> list[Tensor]:
        raise NotImplementedError


class LocalScorer(_Pooled[FloatArray]):
    """Implements :class:`safeladder.engine.base.Scorer` for a model with a classification head.

    Args:
        loaded: of a :class:`~safeladder.engine.local.classifier.Classifier`; its weights must not
            change while the scorer is in use.
        max_tokens: padded tokens computed at a time.
    """

    def __init__(self, loaded: LoadedModel, max_tokens: int = _MAX_TOKENS) -> None:
        super().__init__(loaded, max_tokens)

    async def score(self, token_ids: Sequence[int], media: Sequence[Media] = ()) -> FloatArray:
        """Return the (classes,) outputs (logits) after the last token.

        Raises:
            ModelError: no tokens, ids of another tokenizer, too many tokens, or images and image
                tokens that do not fit.
        """
        return await self._submit(token_ids, media)

    def _compute(self, batch: Sequence[_Ask]) -> list[Tensor]:
        return [encoded.logits for encoded in self._encode([ask.row for ask in batch])]


class LocalChoices(_Pooled[FloatArray]):
    """Implements :class:`safeladder.engine.base.ChoiceScorer`.

    The prompt is computed once. A choice's first token is read from the prompt's outputs; further
    tokens go on from the prompt's keys and values on the hand-written path, and cost a row of
    their own on the model's own forward.

    Args:
        loaded: the model; its weights must not change while this is in use.
        max_tokens: padded tokens computed at a time.
    """

    def __init__(self, loaded: LoadedModel, max_tokens: int = _MAX_TOKENS) -> None:
        super().__init__(loaded, max_tokens)

    async def choice_logprobs(
        self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]],
        media: Sequence[Media] = (),
    ) -> FloatArray:
        """Return (K,) log p(choice_k | prompt), summed over its tokens, at temperature 1.

        Raises:
            ModelError: as :meth:`LocalScorer.score`; or a choice is empty.
        """
        kept = tuple(tuple(int(token) for token in choice) for choice in choices)
        if not kept or not all(kept):
            raise ModelError("choices need at least one token each")
        return await self._submit(prompt_ids, media, kept)

    def _compute(self, batch: Sequence[_Ask]) -> list[Tensor]:
        encoded = self._encode([ask.row for ask in batch])
        totals = [found.logits.log_softmax(-1)[[choice[0] for choice in ask.choices]]
                  for ask, found in zip(batch, encoded, strict=True)]
        longer = [(a, k) for a, ask in enumerate(batch)
                  for k, choice in enumerate(ask.choices) if len(choice) > 1]
        width = max((batch[a].length for a, _ in longer), default=1)
        per_call = max(1, self._max_tokens // width)
        for start in range(0, len(longer), per_call):
            some = longer[start:start + per_call]
            for (a, k), value in zip(some, self._rest(batch, encoded, some), strict=True):
                totals[a][k] += value
        return totals

    def _rest(self, batch: Sequence[_Ask], encoded: Sequence[_Encoded],
              which: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Log-probabilities of the tokens after the first of each choice, summed."""
        choices = [batch[a].choices[k] for a, k in which]
        if self._decoder is not None and encoded[which[0][0]].past is not None:
            seen = [] if self._images is None else [
                self._images.behind(batch[a].row, len(choice) - 1)
                for (a, _), choice in zip(which, choices, strict=True)]
            made = self._decoder.encode([choice[:-1] for choice in choices],
                                        [encoded[a].past for a, _ in which], seen)
            outputs = [self._decoder.logits(made.hidden[i, : len(choice) - 1])
                       for i, choice in enumerate(choices)]
        else:
            rows = [_longer(batch[a].row, choice[:-1])
                    for (a, _), choice in zip(which, choices, strict=True)]
            padded = self._outputs(rows)
            outputs = [padded[i, len(row.token_ids) - len(choice) + 1: len(row.token_ids)].float()
                       for i, (row, choice) in enumerate(zip(rows, choices, strict=True))]
        return [_summed(logits, choice[1:])
                for logits, choice in zip(outputs, choices, strict=True)]


def _images(loaded: LoadedModel, decoder: FastDecoder) -> ImageEncoder | None:
    """The vision half of a known model, compared once with the model's own forward."""
    encoder = ImageEncoder.of(loaded)
    if encoder is not None and images_agree(
            loaded, decoder.spec, partial(image_logits, decoder, encoder)):
        return encoder
    return None


def _longer(row: ExpandedRow, ids: Sequence[int]) -> ExpandedRow:
    more = np.asarray(ids, np.int64)
    return ExpandedRow(np.concatenate([row.token_ids, more]), row.positions, row.images)


def _summed(logits: Tensor, targets: Sequence[int]) -> Tensor:
    wanted = torch.tensor(targets, device=logits.device)
    return logits.log_softmax(-1).gather(-1, wanted[:, None]).sum()
