"""Instructions ``combination:*``, ``startend:*`` and ``punctuation:*``: begin, end and parts."""

from __future__ import annotations

from safeladder.verifiers.ifeval.arguments import Arguments, Check, Instruction

SEPARATOR = "******"
"""What separates two responses."""


def repeat_prompt(arguments: Arguments) -> Check:
    """The text begins with the prompt, word for word (upper and lower case equal)."""
    prompt = arguments.text("prompt_to_repeat").strip().lower()
    return lambda text: text.strip().lower().startswith(prompt)


def two_responses(arguments: Arguments) -> Check:
    """Two different texts with ``******`` between them; it may stand at the ends, too."""
    def check(text: str) -> bool:
        parts = [part.strip() for part in text.split(SEPARATOR)]
        said = [part for part in parts if part]
        return all(parts[1:-1]) and len(said) == 2 and said[0] != said[1]
    return check


def end_checker(arguments: Arguments) -> Check:
    """The text ends with the phrase (upper and lower case equal); a quote may follow."""
    phrase = arguments.text("end_phrase").strip().lower()
    return lambda text: text.strip().strip('"').lower().endswith(phrase)


def quotation(arguments: Arguments) -> Check:
    """The text stands in double quotes."""
    def check(text: str) -> bool:
        text = text.strip()
        return len(text) > 1 and text[0] == text[-1] == '"'
    return check


def no_comma(arguments: Arguments) -> Check:
    """No comma anywhere."""
    return lambda text: "," not in text


INSTRUCTIONS: dict[str, Instruction] = {
    "combination:repeat_prompt": repeat_prompt,
    "combination:two_responses": two_responses,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "punctuation:no_comma": no_comma,
}
