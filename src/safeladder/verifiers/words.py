"""Words of English and Chinese text: what length, repetition, language and text match count.

A Chinese (or Japanese) character is a word of its own, because no spaces part them; elsewhere a
word is a run of letters, digits and underscores. Linear time.
"""

from __future__ import annotations

import re

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_KANA = "\u3040-\u30ff"

WORD = re.compile(rf"[{_HAN}{_KANA}]|[^\W{_HAN}{_KANA}]++")
HAN = re.compile(f"[{_HAN}]")
LATIN_WORD = re.compile(r"(?<![^\W\d_])[A-Za-z]++(?:['\u2019][A-Za-z]++)?+(?![^\W\d_])")
"""Runs of Latin letters, "don't" being one; not parts of words in other scripts."""

CHARS_PER_WORD = 16
"""No prose has longer words on average, its spaces included."""


def words(text: str) -> list[str]:
    """The words in order, as they are written."""
    return WORD.findall(text)
