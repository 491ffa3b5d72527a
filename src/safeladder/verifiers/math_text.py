r"""The text of a mathematical answer: where it stands, how it is spelled, where it is parted.

Everything here works on at most ``MAX_CHARS`` characters (longer answers are refused before), by
string searches and simple regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_CHARS = 1000
"""An answer longer than this (characters) is not parsed: it is no final answer."""

FUNCTIONS = ("arc", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "frac",
             "inf", "pi", "lim", "max", "min", "mod", "gcd", "lcm")
"""Words of mathematics: any other run of three letters is prose."""

_WORD = re.compile(rf"(?<![\\a-zA-Z{{])(?!(?:{'|'.join(FUNCTIONS)})[a-z]{{0,3}}(?![a-zA-Z]))"
                   r"[a-zA-Z]{3,}")
_SEGMENT = re.compile(r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)"
                      r"|\\\[(.+?)\\\]", re.DOTALL)
_JOIN = re.compile(r"[\s$,;.]{0,8}(?:\\text\{)?\s{0,4}(?:(?:and|or)/?){0,2}\s{0,4}\}?[\s$,;]{0,8}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")
_LEAD = re.compile(r".*(?:\b(?:is|are|be|equals?|get|gives?|has|have|pays?|makes?|needs?|answer)\b"
                   r"(?!\s*[:=])|(?<=[a-zA-Z\s]):(?=\s)|^A:)\s*", re.DOTALL)
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|\bnever|\bcannot|n['\u2019]t)\s+(?:be\s+|equal\s+|to\s+|=\s*){0,3}[\s$({\\]*$")
_DENIED_AFTER = re.compile(r"[\s$)}.,]{0,6}(?:is|was|would be)\s+"
                           r"(?:not|wrong|incorrect|false)\b")
_UNSURE = re.compile(r"\b(?:not|never|either|neither|nor|maybe|perhaps|possibly|probably|might"
                     r"|could|cannot|unsure|unknown)\b|n['\u2019]t\b|\?", re.IGNORECASE)


class Stated(NamedTuple):
    """The final answer of a text, or why there is none."""

    text: str | None
    reason: str = ""


def stated_answer(text: str) -> Stated:
    r"""The last ``\boxed{}``, else the last formula between dollars, else the end of the prose.

    Neighbours that only a comma, "and" or "or" parts are one answer (a list): naming two values in
    two boxes is no way to be right twice. An answer that is denied ("not 5"), doubted ("maybe 5")
    or followed by a question mark is none.
    """
    spans = list(_boxes(text)) or [m.span() for m in _SEGMENT.finditer(text)]
    if not spans:
        if "\\boxed" in text:
            return Stated(None, "a box that is not closed")
        return _from_prose(text)
    start, end = spans[-1]
    parts = [text[start:end]]
    for before, until in reversed(spans[:-1]):
        if not _JOIN.fullmatch(text[until:start]):
            break
        parts.append(text[before:until])
        start = before
    line = text[:start].rpartition("\n")[2]
    if _DENIED_BEFORE.search(line) or _DENIED_AFTER.match(text, end):
        return Stated(None, "the answer is denied")
    said = " , ".join(_inside(part) for part in reversed(parts))
    if not said.strip():
        return Stated(None, "nothing in the box")
    if not any(part.startswith("\\boxed") for part in parts):
        sentence = _SENTENCE.split(line)[-1]
        if _UNSURE.search(sentence) or _UNSURE.match(text[end:end + 1]):
            return Stated(None, "the answer is denied or doubted")
        said += _unit_after(text[end:])
    return Stated(said)


def _boxes(text: str) -> Iterator[tuple[int, int]]:
    r"""Outermost ``\boxed{...}`` with balanced braces."""
    at = 0
    while (start := text.find("\\boxed{", at)) >= 0:
        end = closing(text, start + len("\\boxed"))
        if end is None:
            at = start + 1
            continue
        yield start, end + 1
        at = end + 1


def _inside(part: str) -> str:
    while part.startswith("\\boxed{") and closing(part, len("\\boxed")) == len(part) - 1:
        part = part[len("\\boxed{"):-1].strip()
    match = _SEGMENT.fullmatch(part)
    return next(group for group in match.groups() if group) if match else part


def _unit_after(rest: str) -> str:
    """The word right after a formula ("$3$ cm"), or a percent sign."""
    match = re.match(r"\s{0,2}(%|\\%|[a-zA-Z]{1,15}(?:\^?[23])?)(?![a-zA-Z])", rest)
    return f" \\text{{{match.group(1)}}}" if match and match.group(1).islower() else (
        "\\%" if match and "%" in match.group(1) else "")


def _from_prose(text: str) -> Stated:
    text = text.strip()
    if text.endswith("?"):
        return Stated(None, "a question is no answer")
    if not _WORD.search(text):
        return Stated(text) if text else Stated(None, "no answer")
    sentence = _SENTENCE.split(text.rpartition("\n")[2].strip())[-1].rstrip(" .!")
    if _UNSURE.search(sentence):
        return Stated(None, "the answer is denied or doubted")
    lead = _LEAD.match(sentence)
    said = sentence[lead.end():] if lead else sentence
    return Stated(said) if said.strip() else Stated(None, "no answer")


def is_prose(text: str) -> bool:
    """Whether a text holds a word that is none of mathematics."""
    return _WORD.search(text) is not None


_UNICODE = {
    "\u2212": "-", "\u2013": "-", "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ",
    "\u00f7": "/", "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u00b0": "^\\circ ", "\u00b1": "\\pm ",
    "\u2264": "\\le ", "\u2265": "\\ge ", "\u222a": "\\cup ", "\u2208": "\\in ",
    "\u00bd": "\\frac{1}{2}", "\u00b2": "^2", "\u00b3": "^3", "\uff0c": ",", "\uff08": "(",
    "\uff09": ")", "\u00a0": " ", "\u3001": ",", "\uff1b": ";", "\u3002": "."}
_TABLE = {ord(char): text for char, text in _UNICODE.items()}
_SPACING = re.compile(r"\\!\s{0,4}|\\[,;: ]|~"
                      r"|\\(?:left|right|displaystyle|quad|qquad|limits)(?![a-zA-Z])"
                      r"|(?<!\\)\$")
_ALIASES = (
    (re.compile(r"\u221a\s{0,4}(\d+)", re.ASCII), r"\\sqrt{\1}"),
    (re.compile(r"\u221a"), r"\\sqrt "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:mbox|textbf|textrm|textit|textnormal|mathrm|mathbf|operatorname)\s{0,4}\{"),
     r"\\text{"),
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"), (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\(?:leqslant|leq)(?![a-zA-Z])"), r"\\le"),
    (re.compile(r"\\(?:geqslant|geq)(?![a-zA-Z])"), r"\\ge"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\^\{\s{0,4}\\circ\s{0,4}\}|\\degree(?![a-zA-Z])"), r"^\\circ"),
    (re.compile(r"\\frac\s{0,4}(\d)\s{0,4}(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s{0,4}(\d)\s{0,4}\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\s{0,4}\{[^{}]{1,40}\})\s{0,4}(\d)"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s{0,4}(\d)"), r"\\sqrt{\1}"),
)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,]*\d)", re.ASCII)


def spelled(text: str) -> str:
    r"""One spelling: ``\dfrac12`` is ``\frac{1}{2}``, ``1,234`` is ``1234``, spacing is gone."""
    text = _SPACING.sub("", text.translate(_TABLE))
    for pattern, replacement in _ALIASES:
        text = pattern.sub(replacement, text)
    text = _THOUSANDS.sub(lambda m: m.group().replace(",", ""), text)
    text = text.strip()
    return text[:-1].rstrip() if text.endswith((".", ",", ";")) else text


_TOKEN = re.compile(r"\\begin\{|\\end\{|\\[{}]|\\[a-zA-Z]+|\\.|.", re.DOTALL)
SEPARATOR = re.compile(r"\s*(?:\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b|\\(?:lor|vee)(?![a-zA-Z])"
                        r"|\u6216|\u548c)\s*")


def closing(text: str, start: int) -> int | None:
    """Index of the brace that closes the one at ``start``; escaped braces do not count."""
    depth = 0
    for match in _TOKEN.finditer(text, start):
        token = match.group()
        depth += (token in ("{", "\\begin{", "\\end{")) - (token == "}")
        if depth == 0:
            return match.start()
    return None


def split_top(text: str, marks: str) -> list[str] | None:
    r"""Parts between top-level ``marks`` (single characters, or a command such as ``\cup``).

    None when brackets do not match. Half-open intervals match: ``(1, 2]`` is one part.
    """
    wanted = {marks} if marks.startswith("\\") else set(marks)
    parts, begin, depth = [], 0, 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in ("(", "[", "{", "\\{", "\\langle"):
            depth += 1
        elif token == "\\begin{":
            # Its own closing brace takes one back; that of \end{...} takes the other.
            depth += 2
        elif token in (")", "]", "}", "\\}", "\\rangle"):
            depth -= 1
        elif depth == 0 and token in wanted:
            parts.append(text[begin:match.start()])
            begin = match.end()
        if depth < 0:
            return None
    parts.append(text[begin:])
    return parts if depth == 0 else None
