"""Words, sentences and languages, by rules that are written down and give the same every time.

The published code asks nltk (``punkt``, ``RegexpTokenizer``) and langdetect. Here no model is
downloaded: words and sentences are rules, the language is py3langid's (extra ``ifeval``), which
carries its model in the package and draws no random numbers.
"""

from __future__ import annotations

import re

from safeladder.errors import import_extra

_WORD = re.compile(r"\w++")
_CASED_WORD = re.compile(r"\w++(?:[-'\u2019./&]\w++)*+")
_SENTENCE_END = re.compile(
    "[.!?\u2026]++[\"'\u201d\u2019)\\]}*_`]*+(?=\\s|$)|[\u3002\uff01\uff1f\u0964\u06d4\u061f]++")
_TOKEN_BEFORE = re.compile(r"\S+\Z")
_LOOK_BACK = 20
"""Characters before a full stop that are searched for its word; abbreviations are shorter."""
MAX_LANGUAGE_CHARS = 3000
"""The language of a text is that of its first so many characters."""

_ABBREVIATIONS = (
    "mr mrs ms dr prof rev hon gen col capt lt sgt st sr jr messrs vs e.g i.e cf viz nos vol "
    "pp fig figs eq approx dept est inc ltd co corp mt ave blvd rd p.s p.p.s a.m p.m u.s u.k ph.d "
    "jan feb mar apr jun jul aug sep sept oct nov dec")
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
"""Words (without their last full stop) after which a full stop ends no sentence."""


def count_words(text: str) -> int:
    r"""Number of runs of word characters (``\w+``), as published: "don't" is two."""
    return sum(1 for _ in _WORD.finditer(text))


def count_capital_words(text: str) -> int:
    """Number of words without a lower-case letter and with a capital one: NASA, A, COVID-19.

    A hyphen, apostrophe, full stop, slash or ampersand between word characters joins them.
    """
    return sum(1 for match in _CASED_WORD.finditer(text) if match.group().isupper())


def count_sentences(text: str) -> int:
    """Number of sentences; linear time.

    A sentence ends at a run of ``. ! ?`` or an ellipsis (closing quotes, brackets and markdown
    may follow) before white space or the end, and at a full-width or Indic or Arabic full stop,
    question or exclamation mark. It holds a word. What follows the last end is a sentence if it
    holds a word. Line breaks end nothing, as in nltk's.

    A full stop does not end a sentence after one of ``ABBREVIATIONS``, after a single letter
    ("J. Smith") and after a number or letter that opens a line ("1. Wash it"; nltk's ends one
    there); an ellipsis does not before a lower-case letter.
    """
    count = start = 0
    for match in _SENTENCE_END.finditer(text):
        if match.group()[0] in ".\u2026" and not _ends_sentence(text, match):
            continue
        if _WORD.search(text, start, match.start()):
            count += 1
        start = match.end()
    return count + bool(_WORD.search(text, start))


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    if match.group()[:2] == ".." or match.group()[0] == "\u2026":
        return not text[match.end():match.end() + _LOOK_BACK].lstrip()[:1].islower()
    before = text[max(0, match.start() - _LOOK_BACK):match.start()]
    token = _TOKEN_BEFORE.search(before)
    if token is None:
        return True
    word = token.group().strip("\"'([{*_\u201c\u2018").casefold()
    opens_line = not before[:token.start()].rpartition("\n")[2].strip(" \t>#*_")
    if opens_line and (word.isdigit() or len(word) == 1):
        return False
    return word not in ABBREVIATIONS and not (len(word) == 1 and word.isalpha())


def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language; None for a text without letters.

    Only the first ``MAX_LANGUAGE_CHARS`` characters are read, in lower case, so that a text in
    capitals is recognised.

    Raises:
        MissingExtra: py3langid is not installed.
    """
    py3langid = import_extra("py3langid", "ifeval", "the ifeval verifier")
    head = text[:MAX_LANGUAGE_CHARS].lower()
    if not any(char.isalpha() for char in head):
        return None
    return str(py3langid.classify(head)[0])
