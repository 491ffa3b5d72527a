"""Two-stage retrieval: a search shows titles and abstracts, a read shows one passage in full.

The context holds only what was chosen, and what to read is a decision that can be learned.
Source: arXiv 2507.16727. Departure: BM25 over any passages, where the paper searches Wikipedia with
a retriever that it does not name.
"""

from __future__ import annotations

from functools import cached_property

from safeladder.data.retrieval import Document, Hit, PassageIndex
from safeladder.errors import ToolError


class SearchTool:
    """A search engine over an index; failures are a :class:`~safeladder.errors.ToolError`."""

    def __init__(self, index: PassageIndex) -> None:
        self._index = index

    def search(self, query: str, k: int) -> list[Hit]:
        """Titles and abstracts of the k best passages, best first; ties in the index's order.

        Raises:
            ToolError: the index failed.
        """
        try:
            return self._index.search(query, k)
        except (ArithmeticError, LookupError, ValueError, TypeError) as error:
            raise ToolError(f"search: {type(error).__name__}: {error}") from error

    def read(self, which: int | str) -> Document:
        """A passage in full, by its number (:attr:`Hit.number`) or its title (the first of it).

        Raises:
            ToolError: there is none.
        """
        number = which if isinstance(which, int) else self._titles.get(title_key(which), -1)
        if not 0 <= number < len(self._index.documents):
            raise ToolError(f"read: no passage {which!r}")
        return self._index.documents[number]

    @cached_property
    def _titles(self) -> dict[str, int]:
        places = list(enumerate(self._index.documents))
        return {title_key(document.title): number for number, document in reversed(places)}


def title_key(title: str) -> str:
    """Titles are equal up to case and blanks."""
    return " ".join(title.casefold().split())
