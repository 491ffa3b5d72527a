"""Instructions ``length_constraints:*``: words, sentences, paragraphs."""

from __future__ import annotations

from safeladder.verifiers.ifeval.arguments import Arguments, Check, Instruction
from safeladder.verifiers.ifeval.text import count_sentences, count_words

DIVIDER = "***"
"""What separates paragraphs where prompts ask for a number of them."""


def number_words(arguments: Arguments) -> Check:
    """Less than, or at least, so many words."""
    wanted = arguments.bound("relation", "num_words")
    return lambda text: wanted(count_words(text))


def number_sentences(arguments: Arguments) -> Check:
    """Less than, or at least, so many sentences."""
    wanted = arguments.bound("relation", "num_sentences")
    return lambda text: wanted(count_sentences(text))


def number_paragraphs(arguments: Arguments) -> Check:
    """Exactly so many paragraphs between dividers ``***``.

    A divider may open or close the text; an empty paragraph anywhere else is a failure.
    """
    wanted = arguments.count("num_paragraphs", at_least=1)

    def check(text: str) -> bool:
        paragraphs = [bool(part.strip()) for part in text.split(DIVIDER)]
        return all(paragraphs[1:-1]) and sum(paragraphs) == wanted
    return check


def nth_paragraph_first_word(arguments: Arguments) -> Check:
    """So many paragraphs between blank lines, the n-th of which begins with the word.

    Paragraphs are those with text in them, and the n-th is counted among these (the published
    code counts empty ones on the way to the n-th). Quotes before the word do not count; it ends at
    white space or at one of ``. , ? ! ' "``.
    """
    num_paragraphs = arguments.count("num_paragraphs", at_least=1)
    nth = arguments.count("nth_paragraph", at_least=1)
    word = arguments.text("first_word").strip().lower()

    def check(text: str) -> bool:
        paragraphs = [part for part in text.split("\n\n") if part.strip()]
        return (len(paragraphs) == num_paragraphs >= nth
                and _first_word(paragraphs[nth - 1]) == word)
    return check


def _first_word(paragraph: str) -> str:
    word = paragraph.split(maxsplit=1)[0].lstrip("'\"").lower()
    for i, char in enumerate(word):
        if char in ".,?!'\"":
            return word[:i]
    return word


INSTRUCTIONS: dict[str, Instruction] = {
    "length_constraints:number_words": number_words,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
}
