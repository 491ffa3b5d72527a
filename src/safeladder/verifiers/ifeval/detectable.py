"""Instructions ``detectable_format:*`` and ``detectable_content:*``: marks one can look for."""

from __future__ import annotations

import json
import re

from safeladder.verifiers.ifeval.arguments import Arguments, Check, Instruction

CONSTRAINED_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
FENCES = ("```json", "```Json", "```JSON", "```")

_PLACEHOLDER = re.compile(r"\[[^\[\]\n]*+\]")
_EMPHASIS = re.compile(r"\*[^\n*]*+\*")
_STRONG = re.compile(r"\*\*[^\n*]*+\*\*")
_POSTSCRIPTS = {"P.P.S": re.compile(r"p\.\s?p\.\s?s"), "P.S.": re.compile(r"p\.\s?s\.")}


def number_placeholders(arguments: Arguments) -> Check:
    """At least so many placeholders in square brackets, such as [address].

    One is the innermost pair of brackets in a line with something in it: an empty pair, which
    the published code counts, holds no place for anything.
    """
    wanted = arguments.count("num_placeholders")
    return lambda text: _count_placeholders(text) >= wanted


def postscript(arguments: Arguments) -> Check:
    """The postscript's marker occurs, upper and lower case equal ("P. S." for "P.S.", too)."""
    marker = arguments.text("postscript_marker").strip()
    pattern = _POSTSCRIPTS.get(marker) or re.compile(re.escape(marker.lower()))
    return lambda text: pattern.search(text.lower()) is not None


def number_bullet_lists(arguments: Arguments) -> Check:
    """Exactly so many lines that begin with ``-``, or with one ``*`` and something after it."""
    wanted = arguments.count("num_bullets")
    return lambda text: sum(map(_is_bullet, text.split("\n"))) == wanted


def constrained_response(arguments: Arguments) -> Check:
    """One of ``CONSTRAINED_ANSWERS`` occurs."""
    return lambda text: any(answer in text for answer in CONSTRAINED_ANSWERS)


def number_highlighted_sections(arguments: Arguments) -> Check:
    """At least so many stretches like ``*this*`` or ``**this**`` within a line."""
    wanted = arguments.count("num_highlights")

    def check(text: str) -> bool:
        found = sum(bool(m.group().strip("*").strip()) for m in _EMPHASIS.finditer(text))
        found += sum(bool(m.group()[2:-2].strip()) for m in _STRONG.finditer(text))
        return found >= wanted
    return check


def multiple_sections(arguments: Arguments) -> Check:
    """At least so many section marks: the given word and a number ("SECTION 2")."""
    word = arguments.text("section_spliter").strip()
    pattern = re.compile(rf"{re.escape(word)}\s?\d")
    wanted = arguments.count("num_sections", at_least=1)
    return lambda text: sum(1 for _ in pattern.finditer(text)) >= wanted


def json_format(arguments: Arguments) -> Check:
    """The whole text is JSON; a markdown fence around it is allowed.

    JSON that is nested deeper than Python's own parser goes (about 1000 levels) is not followed.
    """
    return _is_json


def title(arguments: Arguments) -> Check:
    """A line has a title in double angular brackets, such as <<poem of joy>>."""
    return lambda text: any(map(_has_title, text.split("\n")))


def _count_placeholders(text: str) -> int:
    return sum(bool(match.group()[1:-1].strip()) for match in _PLACEHOLDER.finditer(text))


def _is_bullet(line: str) -> bool:
    line = line.lstrip()
    return line.startswith("-") or (line.startswith("*") and line[1:2] not in ("", "*"))


def _is_json(text: str) -> bool:
    text = text.strip()
    for fence in FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip(), parse_int=float)
    except (ValueError, RecursionError):
        return False
    return True


def _has_title(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    return 0 <= start < end and bool(line[start:end].strip("<>").strip())


INSTRUCTIONS: dict[str, Instruction] = {
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
}
