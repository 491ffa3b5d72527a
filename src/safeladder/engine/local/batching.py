"""Which rows share a micro-batch, and where each of their tokens goes.

A row is cut in two at its last untrained leading token:

    token_ids   [ p p p p | p r r r ]        p: prompt, r: trained
    part          prefix  |  own             the very last token predicts nothing and is left out

Every own token but masked ones predicts a trained token. Rows with equal prefixes (the G
trajectories of a prompt) share one: its keys and values are computed once, its gradient is the
sum over the rows. Nothing is padded but attention scores. The result of a step does not depend on
the cut into micro-batches, because ``Datum.weights`` carry the normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safeladder.engine.local.media import ExpandedImage, ExpandedRow
from safeladder.types import Datum, IntArray

Item = TypeVar("Item")
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Row:
    """The part of one datum that takes part in the computation.

    ``start`` and ``stop`` count tokens as the model sees them, images at their full length.
    """

    index: int
    """Its place in the data given to the trainer."""
    datum: Datum
    start: int
    """First own position: ``token_ids[:start]`` is the prefix."""
    stop: int
    """One past the last trained position."""
    positions: IntArray
    """(num_trained,) positions of the trained tokens in the datum."""
    shown: ExpandedRow | None = None
    """The datum as the model sees it, where it has images and the packed path takes it."""

    def with_images(self, shown: ExpandedRow) -> Row:
        """The row with its images at their full length."""
        first, last = shown.positions[self.positions[[0, -1]] - 1].tolist()
        return replace(self, start=first, stop=last + 2, shown=shown)

    @property
    def token_ids(self) -> IntArray:
        """(S,) as the model sees them."""
        return self.datum.token_ids if self.shown is None else self.shown.token_ids

    @property
    def own_length(self) -> int:
        """Own tokens: the positions start .. stop - 2."""
        return self.stop - 1 - self.start

    @property
    def num_trained(self) -> int:
        """Trained tokens."""
        return len(self.positions)

    @property
    def predicting(self) -> IntArray:
        """(num_trained,) own tokens, counted from 0, that predict the trained ones."""
        before: IntArray = self.positions - 1
        if self.shown is not None:
            before = self.shown.positions[before]
        chosen: IntArray = before - self.start
        return chosen

    @property
    def prefix(self) -> bytes:
        """Equal where two rows may share their prefixes: the same tokens and images."""
        images = [] if self.shown is None else [
            image.digest for image in self.shown.images if image.places[0] < self.start]
        return self.token_ids[: self.start].tobytes() + "".join(images).encode()

    def trained(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """The entries of a (T,) array of the datum that belong to trained tokens."""
        chosen: NDArray[Scalar] = values[self.positions]
        return chosen


def rows_of(data: Sequence[Datum]) -> list[Row]:
    """The rows that train at all."""
    rows = []
    for index, datum in enumerate(data):
        trained = np.flatnonzero(datum.mask)
        if len(trained):
            rows.append(Row(index, datum, int(trained[0]) - 1, int(trained[-1]) + 1, trained))
    return rows


@dataclass(frozen=True)
class Family:
    """Rows of one micro-batch with equal prefixes."""

    rows: tuple[Row, ...]

    @property
    def prefix_length(self) -> int:
        """Tokens of the shared prefix."""
        return self.rows[0].start

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed: the prefix once, each row's own."""
        return self.prefix_length + sum(row.own_length for row in self.rows)


Plan = tuple[Family, ...]
"""The families of one micro-batch."""


def plan_packed(rows: Sequence[Row], max_tokens: int, num_workers: int = 1) -> list[Plan]:
    """Cut rows into micro-batches of at most ``max_tokens`` computed tokens.

    Long rows come first and rows of like length stand together, so that attention is padded
    little. A row longer than the budget gets a micro-batch of its own. With several workers the
    budget shrinks until each has something to do. The cut depends on the rows alone.
    """
    by_prefix: dict[bytes, list[Row]] = {}
    for row in rows:
        by_prefix.setdefault(row.prefix, []).append(row)
    groups = [Family(tuple(group)) for group in by_prefix.values()]
    total = sum(group.num_tokens for group in groups)
    budget = min(max_tokens, -(-total // num_workers))
    families = [family for group in groups for family in _split(group, budget)]
    families.sort(key=lambda f: (-f.rows[0].own_length, -f.prefix_length, f.rows[0].index))
    return _fill(families, [family.num_tokens for family in families], budget)


def _split(group: Family, budget: int) -> list[Family]:
    """Cut a family that is too large; each part computes the prefix anew."""
    if group.num_tokens <= budget:
        return [Family(tuple(sorted(group.rows, key=lambda row: -row.own_length)))]
    ordered = sorted(group.rows, key=lambda row: -row.own_length)
    room = max(budget - group.prefix_length, 1)
    return [Family(part) for part in _fill(ordered, [row.own_length for row in ordered], room)]


def _fill(items: Sequence[Item], sizes: Sequence[int], budget: int) -> list[tuple[Item, ...]]:
    """Next-fit: consecutive items until the budget is full."""
    parts: list[tuple[Item, ...]] = []
    current: list[Item] = []
    used = 0
    for item, size in zip(items, sizes, strict=True):
        if current and used + size > budget:
            parts.append(tuple(current))
            current, used = [], 0
        current.append(item)
        used += size
    if current:
        parts.append(tuple(current))
    return parts


@dataclass(frozen=True)
class Padding:
    """Between ragged rows in one flat array and a (rows, width) rectangle.

    ``pad`` and ``unpad`` are None when all rows have one length: both are then the same array.
    """

    num_rows: int
    width: int
    """Longest row."""
    pad: Tensor | None
    """(num_rows * width,) flat index of each cell; free cells point anywhere (0)."""
    unpad: Tensor | None
    """(flat,) cell of each token."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Padding:
        """The rectangle for rows of these lengths."""
        width = max(lengths, default=0)
        if all(length == width for length in lengths):
            return cls(len(lengths), width, None, None)
        steps = np.arange(width)
        filled = steps[None] < np.asarray(lengths)[:, None]
        starts = np.cumsum([0, *lengths[:-1]])
        pad = np.where(filled, starts[:, None] + steps[None], 0)
        unpad = np.flatnonzero(filled.reshape(-1))
        return cls(len(lengths), width, torch.from_numpy(pad.reshape(-1)).to(device),
                   torch.from_numpy(unpad).to(device))


@dataclass(frozen=True)
class BatchImages:
    """The different images of one micro-batch, U embeddings in all, and where they go."""

    images: tuple[ExpandedImage, ...]
    places: Tensor
    """(n,) which of the N tokens are of images."""
    sources: Tensor
    """(n,) the embedding of each."""
    num_embeddings: int
    """U."""


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch as index tensors: the prefixes' tokens, then the rows' own tokens."""

    token_ids: Tensor
    """(N,)"""
    positions: Tensor
    """(N,) distance from the row's first token; (3, N) where a row's model counts positions along
    three axes.
    """
    num_prefix: int
    """The first so many of the N tokens belong to prefixes."""
    prefixes: Padding
    own: Padding
    family_of_row: Tensor
    """(rows,)"""
    rows_per_family: int | None
    """Set when all families have as many rows."""
    prefix_bias: Tensor | None
    """(rows, prefixes.width) 0, or -inf beyond a shorter prefix; None when none is shorter."""
    predicting: Tensor | None
    """(n,) own tokens that predict a trained one; None when all do."""
    targets: Tensor
    """(n,) the trained tokens' ids."""
    temperature: Tensor | None
    """(n,) or None when all are 1."""
    rows: tuple[Row, ...]
    images: BatchImages | None = None

    @classmethod
    def single(cls, token_ids: Tensor, dtype: torch.dtype, shown: ExpandedRow | None = None,
               ) -> PackedBatch:
        """One row (T,), as the model sees it, of which every token's output is wanted."""
        ones = np.ones(len(token_ids) + 1, np.float32)
        ones[0] = 0
        ids = np.append(token_ids.numpy(force=True), 0)
        datum = Datum(token_ids=ids, mask=ones, advantages=ones, weights=ones)
        if shown is not None:
            shown = replace(shown, positions=np.arange(len(token_ids)))
        row = Row(0, datum, 0, len(ids), np.arange(1, len(ids)), shown)
        return pack((Family((row,)),), dtype, token_ids.device)


def pack(plan: Plan, dtype: torch.dtype, device: torch.device) -> PackedBatch:
    """Lay out one micro-batch."""
    rows = tuple(row for family in plan for row in family.rows)
    pieces = [_Piece(family.rows[0], 0, family.prefix_length) for family in plan]
    pieces += [_Piece(row, row.start, row.stop - 1) for row in rows]
    sizes = [len(family.rows) for family in plan]
    lengths = [family.prefix_length for family in plan]
    own_lengths = [row.own_length for row in rows]
    counts = [row.num_trained for row in rows]
    predicting = np.concatenate([row.predicting for row in rows])
    if len(predicting) < sum(own_lengths):
        predicting += np.repeat(np.cumsum([0, *own_lengths[:-1]]), counts)
    temperatures = np.repeat([row.datum.temperature for row in rows], counts)
    family_of_row = np.repeat(np.arange(len(plan)), sizes)
    prefix_bias = None
    if len(set(lengths)) > 1:
        beyond = np.arange(max(lengths))[None] >= np.asarray(lengths)[family_of_row][:, None]
        prefix_bias = torch.zeros(beyond.shape, dtype=dtype).masked_fill_(
            torch.from_numpy(beyond), -torch.inf).to(device)

    def tensor(array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return PackedBatch(
        token_ids=tensor(np.concatenate([piece.token_ids for piece in pieces])),
        positions=tensor(_positions(pieces)),
        num_prefix=sum(lengths), prefixes=Padding.of(lengths, device),
        own=Padding.of(own_lengths, device),
        family_of_row=tensor(family_of_row),
        rows_per_family=sizes[0] if len(set(sizes)) == 1 else None,
        prefix_bias=prefix_bias,
        predicting=None if len(predicting) == sum(own_lengths) else tensor(predicting),
        targets=tensor(np.concatenate([row.trained(row.datum.token_ids) for row in rows])),
        temperature=None if (temperatures == 1).all()
        else torch.from_numpy(temperatures).to(device, dtype),
        rows=rows, images=_images(pieces, device),
    )


@dataclass(frozen=True)
class _Piece:
    """Consecutive tokens of one row, which stand together in a micro-batch."""

    row: Row
    start: int
    stop: int

    @property
    def token_ids(self) -> IntArray:
        return self.row.token_ids[self.start : self.stop]


def _positions(pieces: Sequence[_Piece]) -> IntArray:
    """(N,), or (3, N) as soon as one row has three axes."""
    plain = [np.arange(piece.start, piece.stop) for piece in pieces]
    axes = [None if piece.row.shown is None else piece.row.shown.axes for piece in pieces]
    if all(found is None for found in axes):
        return np.concatenate(plain)
    return np.concatenate([
        np.broadcast_to(positions, (3, len(positions))) if found is None
        else found[:, piece.start : piece.stop].numpy()
        for piece, positions, found in zip(pieces, plain, axes, strict=True)], axis=1)


def _images(pieces: Sequence[_Piece], device: torch.device) -> BatchImages | None:
    first: dict[str, int] = {}
    images: list[ExpandedImage] = []
    places: list[IntArray] = []
    sources: list[IntArray] = []
    offset = total = 0
    for piece in pieces:
        for image in () if piece.row.shown is None else piece.row.shown.images:
            inside = np.flatnonzero((image.places >= piece.start) & (image.places < piece.stop))
            if not len(inside):
                continue
            if image.digest not in first:
                first[image.digest] = total
                images.append(image)
                total += len(image.places)
            places.append(image.places[inside] - piece.start + offset)
            sources.append(inside + first[image.digest])
        offset += piece.stop - piece.start
    if not images:
        return None
    return BatchImages(tuple(images), torch.from_numpy(np.concatenate(places)).to(device),
                       torch.from_numpy(np.concatenate(sources)).to(device), total)
