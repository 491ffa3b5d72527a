"""Passages and their index: BM25 (Robertson and Walker 1994; the variant of Lucene) with bm25s.

Ranking is deterministic: by score, ties by the order of the passages. A passage that shares no
word with the query is no result. Words are runs of letters and digits, case ignored; there are no
stop words and no stemming, so that it works on any language that parts its words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from safeladder.data.files import read_jsonl
from safeladder.errors import DataError, import_extra

_WORD = re.compile(r"\w+")


class Document(NamedTuple):
    """A passage as a searcher may see it."""

    title: str
    text: str


class Hit(NamedTuple):
    """One result: what is shown before the passage is read."""

    number: int
    """The passage's place in the index, from 0."""
    title: str
    abstract: str
    score: float


class PassageIndex:
    """Documents, searched by BM25 over title and text.

    Args:
        documents: at least one.
        abstract_words: words of the text that a result shows.

    Raises:
        DataError: no documents, or none with a word.
        MissingExtra: bm25s is not installed.
    """

    def __init__(self, documents: Sequence[Document], abstract_words: int = 30) -> None:
        bm25s = import_extra("bm25s", "search", "searching passages")
        words = [_words(f"{document.title} {document.text}") for document in documents]
        if not any(words):
            raise DataError("no passages to search: give at least one with words in it")
        self.documents = tuple(documents)
        self._abstract_words = abstract_words
        self._bm25: Any = bm25s.BM25()
        self._bm25.index(words, show_progress=False)

    def search(self, query: str, k: int) -> list[Hit]:
        """The k best results, fewer where fewer share a word with the query."""
        words = _words(query)
        if not words:
            return []
        scores = self._bm25.get_scores(words)
        order = np.argsort(-scores, kind="stable")[:k]
        return [Hit(int(i), self.documents[i].title, self._abstract(self.documents[i].text),
                    float(scores[i])) for i in order if scores[i] > 0]

    def _abstract(self, text: str) -> str:
        return " ".join(text.split()[:self._abstract_words])


def read_documents(path: Path) -> list[Document]:
    """The passages of a file of JSON lines with ``title`` and ``text``.

    Raises:
        DataError: the file or a line cannot be used; file and line are named.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of passages")
    found = []
    for row in read_jsonl(path):
        title, text = row.cells.get("title"), row.cells.get("text")
        if not (isinstance(title, str) and isinstance(text, str) and title.strip()):
            raise DataError(f"{row.where}: a passage needs 'title' and 'text', both texts")
        found.append(Document(title, text))
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
