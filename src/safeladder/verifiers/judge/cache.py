"""Replies of judges, kept by content: what was asked once is not paid for again.

One SQLite file in a folder. Every reply is a transaction of its own, so a program killed at any
moment leaves all replies that had come by then, and several programs may share the folder. The
reply is kept, not the verdict: a stricter way of reading it needs no new call.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from safeladder.errors import StorageError

_TABLE = """
create table if not exists replies (
    key text primary key, judge text not null, text text not null, finish_reason text not null,
    prompt_tokens integer, completion_tokens integer, seconds real not null)
"""
_WAIT = 30.0
"""Seconds to wait for another program that is writing."""


class StoredReply(NamedTuple):
    """A judge's words, and what they cost."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    """None: the server did not say."""
    completion_tokens: int | None
    seconds: float


def content_key(*parts: Any) -> str:
    """SHA-256 of JSON values: equal content, equal key."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class ReplyCache:
    """Key -> reply. Without a folder it lives and ends in memory.

    Raises:
        StorageError: the folder cannot be written, or holds something else under that name.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._where = "memory" if folder is None else str(folder / "replies.sqlite")
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            # Commands run a loop of their own in whatever thread they are called from.
            self._base = sqlite3.connect(
                ":memory:" if folder is None else self._where, timeout=_WAIT,
                isolation_level=None, check_same_thread=False)
            self._base.execute("pragma journal_mode=wal")
            self._base.execute("pragma synchronous=normal")
            self._base.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error

    def get(self, key: str) -> StoredReply | None:
        """The reply kept under ``key``.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            row = self._base.execute(
                "select text, finish_reason, prompt_tokens, completion_tokens, seconds "
                "from replies where key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return None if row is None else StoredReply(*row)

    def put(self, key: str, judge: str, reply: StoredReply) -> None:
        """Keep a reply; the first one of a key stays.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            self._base.execute("insert or ignore into replies values (?, ?, ?, ?, ?, ?, ?)",
                               (key, judge, *reply))
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            self._base.close()

    def _failure(self, error: Exception) -> StorageError:
        return StorageError(f"{self._where}: the judge's replies cannot be kept ({error}); choose "
                            "another folder, or remove the file to begin anew")
