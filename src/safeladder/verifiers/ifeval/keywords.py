"""Instructions ``keywords:*``: words that must, must not, or must so often be there.

Keywords are text, not regular expressions as in the published code; upper and lower case are
equal. As published, they may stand inside longer words ("intern" is found in "internship"), except
forbidden words, which are whole words.
"""

from __future__ import annotations

import re

from safeladder.verifiers.ifeval.arguments import Arguments, Check, Instruction


def existence(arguments: Arguments) -> Check:
    """Every keyword occurs."""
    keywords = [word.lower() for word in arguments.texts("keywords")]

    def check(text: str) -> bool:
        lowered = text.lower()
        return all(word in lowered for word in keywords)
    return check


def frequency(arguments: Arguments) -> Check:
    """The keyword occurs less than, or at least, so many times (without overlaps)."""
    keyword = arguments.text("keyword").lower()
    wanted = arguments.bound("relation", "frequency")
    return lambda text: wanted(text.lower().count(keyword))


def forbidden_words(arguments: Arguments) -> Check:
    """None of the words occurs as a whole word."""
    words = "|".join(re.escape(word) for word in arguments.texts("forbidden_words"))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
    return lambda text: pattern.search(text) is None


def letter_frequency(arguments: Arguments) -> Check:
    """The letter (or other single character) occurs less than, or at least, so many times."""
    letter = arguments.single_character("letter").lower()
    wanted = arguments.bound("let_relation", "let_frequency")
    return lambda text: wanted(text.lower().count(letter))


INSTRUCTIONS: dict[str, Instruction] = {
    "keywords:existence": existence,
    "keywords:frequency": frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
}
