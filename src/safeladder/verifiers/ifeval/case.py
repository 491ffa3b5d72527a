"""Instructions ``change_case:*`` and ``language:*``: how all of the text is written.

A text without letters is in no language and in no case; the published code lets it pass.
"""

from __future__ import annotations

from safeladder.verifiers.ifeval.arguments import Arguments, Check, Instruction
from safeladder.verifiers.ifeval.text import count_capital_words, language_of


def response_language(arguments: Arguments) -> Check:
    """The text is in the language of this ISO 639-1 code."""
    code = arguments.text("language").strip().lower().partition("-")[0]
    return lambda text: language_of(text) == code


def english_capital(arguments: Arguments) -> Check:
    """English, without any lower-case letter."""
    return lambda text: text.isupper() and language_of(text) == "en"


def english_lowercase(arguments: Arguments) -> Check:
    """English, without any capital letter."""
    return lambda text: text.islower() and language_of(text) == "en"


def capital_word_frequency(arguments: Arguments) -> Check:
    """Less than, or at least, so many words all in capitals (A and I are such words)."""
    wanted = arguments.bound("capital_relation", "capital_frequency")
    return lambda text: wanted(count_capital_words(text))


INSTRUCTIONS: dict[str, Instruction] = {
    "language:response_language": response_language,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "change_case:capital_word_frequency": capital_word_frequency,
}
