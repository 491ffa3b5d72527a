"""The one parser of think tags: training, evaluation, judges and the terminal chat use it.

Imports nothing heavy, so a rule verifier may use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

OPEN = "<think>"
CLOSE = "</think>"


class ThinkSplit(NamedTuple):
    """A response taken apart; nothing is stripped."""

    think: str | None
    """What stands inside the think block; None without one."""
    answer: str
    """Everything outside the block: what a reader gets to see."""


def split_think(response: str) -> ThinkSplit:
    """Split a response into its reasoning and its answer, in time linear in its length.

    - The first ``</think>`` ends the reasoning, and the first ``<think>`` before it opens it.
      Tags do not nest: later ones are plain text, of the reasoning or of the answer. This is
      what serving stacks show their users, so no rule can be won by hiding text from a judge.
    - Without an opening tag the reasoning starts with the response.
    - Never closed: the reasoning runs to the end.
    - Text before the opening tag belongs to the answer, because a reader sees it.

    Examples: ``"<think>a</think>b"`` -> ``("a", "b")``; ``"<think>a"`` -> ``("a", "")``;
    ``"b"`` -> ``(None, "b")``; ``"x<think>a</think>b"`` -> ``("a", "xb")``.
    """
    close = response.find(CLOSE)
    start = response.find(OPEN, 0, close if close >= 0 else len(response))
    if close < 0 and start < 0:
        return ThinkSplit(None, response)
    before = response[:start] if start >= 0 else ""
    inside = start + len(OPEN) if start >= 0 else 0
    if close < 0:
        return ThinkSplit(response[inside:], before)
    return ThinkSplit(response[inside:close], before + response[close + len(CLOSE):])


PieceKind = Literal["answer", "think", "tag"]


class Piece(NamedTuple):
    """A stretch of a streamed response."""

    kind: PieceKind
    text: str


class ThinkStream:
    """:func:`split_think` for text that arrives bit by bit.

    The pieces joined are the text fed; the ``think`` and ``answer`` pieces joined are those of
    :func:`split_think`. One case differs, because the future is unknown: before a closing tag
    that was never opened, text has already been handed out as answer.
    """

    def __init__(self) -> None:
        self._state: Literal["before", "inside", "after"] = "before"
        self._held = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """Yield what is certain; the beginning of a possible tag is held back."""
        self._held += text
        while self._state != "after":
            kind, place, tag = self._next_tag()
            if tag is None:
                break
            yield from self._emit(kind, place)
            yield from self._emit("tag", len(tag))
            self._state = "inside" if tag == OPEN else "after"
        hold = 0 if self._state == "after" else _partial_tag(self._held)
        yield from self._emit(self._kind, len(self._held) - hold)

    def flush(self) -> Iterator[Piece]:
        """Yield what was held back; the response is over."""
        yield from self._emit(self._kind, len(self._held))

    @property
    def _kind(self) -> PieceKind:
        return "think" if self._state == "inside" else "answer"

    def _next_tag(self) -> tuple[PieceKind, int, str | None]:
        tags = (CLOSE,) if self._state == "inside" else (OPEN, CLOSE)
        found = [(place, tag) for tag in tags if (place := self._held.find(tag)) >= 0]
        if not found:
            return self._kind, 0, None
        place, tag = min(found)
        return self._kind, place, tag

    def _emit(self, kind: PieceKind, length: int) -> Iterator[Piece]:
        if length:
            yield Piece(kind, self._held[:length])
            self._held = self._held[length:]


def _partial_tag(text: str) -> int:
    """Length of the longest end of ``text`` that begins a tag."""
    for length in range(min(len(CLOSE) - 1, len(text)), 0, -1):
        end = text[-length:]
        if OPEN.startswith(end) or CLOSE.startswith(end):
            return length
    return 0
