r"""Which option a multiple-choice answer states, if it states exactly one.

A letter is read only where it is marked as an option ("(B)", "B.", "Answer: B", ``\boxed{B}``, a
line of its own): "a dog" and "I think" are English, "vitamin C" is no answer. Nothing is ever
drawn at random. In this order:

1. statements: "the answer is ...", "Answer: ...", "I choose ...", "option B is correct",
   ``\boxed{...}``, Chinese forms; the last one that names an option counts;
2. a line of its own, the first or the last: "B", "**B**", "(B) Paris", "B: Paris";
3. the only letter that is mentioned as "(B)", "option B" or "choice B";
4. the only option whose text is the whole answer, or stands in the first or the last sentence.

Refused, with the reason: several letters at once ("B or C", "A, B, C, D", a list of the options),
two different first and last lines, a letter beside another option's text ("B. London" where C is
London), negations ("not (B)"). All searches are linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from safeladder.verifiers.text_match import normalised, tokens

LETTERS = "ABCDEFGHIJ"
MAX_CHARS = 20_000
"""Of a longer text the end is read (characters)."""
MAX_STATEMENTS = 50
"""Statements that are looked at, from the last one backwards."""
MAX_STATEMENT = 300
"""Characters of a statement that are looked at."""

_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_MARKUP = re.compile(r"\*\*|__|[`$]|\\(?:text|textbf|textit|textrm|mathrm|mathbf|bf|rm|left|right)"
                     r"(?![a-zA-Z])\s{0,4}|\\[()\[\] ,;!]")
_BOXED = re.compile(r"\\boxed\s{0,4}\{([^{}]{0,200}(?:\{[^{}]{0,200}\}[^{}]{0,200}){0,4})\}")

_STATEMENTS = re.compile(
    r"\banswers?\b[^\n.:=?]{0,40}?(?:\b(?:is|are|be)\b|[:=])"
    r"|\b(?:correct|right|best|final|chosen)\s(?:choice|option|one|statement)\b"
    r"[^\n.:=?]{0,20}?(?:\b(?:is|be)\b|[:=])"
    r"|\b(?:choose|chose|select|selected|pick|picked|go(?:ing)?\swith)\b"
    r"|\b(?:therefore|thus|hence|so|it\sis|it's|must\sbe)\b[,:]?\s(?=\([A-Ja-j]\))"
    r"|\u7b54\u6848[^\n\u3002?]{0,12}?(?:[\u662f\u4e3a\u9009:]|(?=\s?[(A-J]))"
    r"|(?<!\u4e0d)\u9009[\u62e9\u9879]?", re.IGNORECASE)
_IS_CORRECT = re.compile(
    r"(?:\b(?:option|choice|answer|statement)\s?\(?|\()([A-Ja-j])\)?"
    r"\s(?:is|would\sbe|must\sbe)\s(?:the\s)?(?:most\s)?(?:correct|right|best|answer)",
    re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|never|neither|nor|cannot|except|without|instead|rather)\b"
                       r"|n['\u2019]t\b|\u4e0d|\u975e", re.IGNORECASE)
_WRONG_AFTER = re.compile(r"[\s,]{0,2}(?:is|are|was|seems|would be|can be)?\s?"
                          r"(?:not|n['\u2019]t|wrong|incorrect|false|ruled out|excluded)",
                          re.IGNORECASE)
_LEAD = re.compile(r"[\s:=\"'\u201c\u2018\-\u2192>]*(?:(?:option|choice|letter|answer|is|be|"
                   r"definitely|clearly|probably|likely|most|therefore|\u9009\u9879|\u662f|\u4e3a)"
                   r"(?![a-z])[\s:]*){0,4}", re.IGNORECASE)
_LETTER = re.compile(r"(?P<open>[(\[{<\"'\u201c])?\s?(?P<letter>[A-Ja-j])(?![\w'\u2019])"
                     r"\s?(?P<close>[)\]}>\"'\u201d])?")
_ENDS = re.compile(r"\s{0,4}(?:$|[.,:;!)\n\-\u2013\u2014\u3002\uff0c\u3001/|&+]"
                   r"|\b(?:because|since|as|due|which|given|based|or|and)\b"
                   r"|[\u4e00-\u9fff])", re.IGNORECASE)
_AND_MORE = re.compile(
    r"[\s)\]}.\"'\u201d]{0,4}(?:and/or\b|or\b|and\b|[,/;|&+\u6216\u548c\u3001])\s{0,4}"
    r"(?:(?:maybe|possibly|perhaps|probably|also|even|either|option|choice|answer)\s){0,3}"
    r"[(\[]?(?P<letter>[A-Ja-j])(?![\w'\u2019])", re.IGNORECASE)
_ELSE = re.compile(
    r"\b(?i:or|alternatively|maybe|perhaps|possibly|otherwise)\b[^.]{0,30}?"
    r"(?:[(\[](?P<marked>[A-Ja-j])[)\]]|\b(?P<bare>[B-HJ]|A(?=\s{0,2}(?:$|[.,;!\n])))(?![\w'\u2019]))")
_BEFORE_BOX = re.compile(
    r"(?<!\w)(?P<letter>[A-J])\W{0,6}(?:\b(?:and|or)\b\W{0,4}){0,2}"
    r"(?:\b(?:maybe|possibly|perhaps|also|even)\b\W{0,4})?\x01$")
_LINE = re.compile(r"\W{0,6}?(?P<open>[(\[])?(?P<letter>[A-Ja-j])(?P<close>[)\]])?"
                   r"(?:(?P<mark>[.:)])(?:\s|$)|\s|$)(?P<rest>.*)")
_MENTION = re.compile(r"[(\[](?P<marked>[A-Ja-j])[)\]]"
                      r"|\b(?:option|choice|\u9009\u9879)\s?(?P<named>[A-J])(?![\w'\u2019])")
_WORDS = frozenset(["all", "and", "any", "both", "but", "for", "less", "more", "most", "none",
                    "not", "one", "only", "other", "same", "some", "that", "this", "two",
                    "was", "with"])
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")


class Reading(NamedTuple):
    """The option that was stated, or why none was."""

    letter: str | None
    reason: str = ""


def read_choice(text: str, options: Mapping[str, str]) -> Reading:
    """Read which of ``options`` (letter -> text, perhaps empty) the text states.

    Args:
        text: What a reader sees of the response; of an answer block, its content.
        options: In order, keys from ``LETTERS``.
    """
    text = _plain(text[-MAX_CHARS:])
    if not text.strip():
        return Reading(None, "no answer")
    bare = text.strip(" \t\r\n.,:;!()[]{}\"'\x01").upper()
    if bare in options:
        return Reading(bare)
    whole = _by_text(text, options, whole=True)
    if whole is not None:
        return whole
    return (_from_statements(text, options) or _from_lines(text, options)
            or _from_mentions(text, options) or _from_sentences(text, options)
            or Reading(None, "no option is stated"))


def _plain(text: str) -> str:
    """Without emphasis and LaTeX wrappers; full-width letters and brackets are ASCII's."""
    boxed = _BOXED.sub(lambda m: f"\n\x01{_MARKUP.sub('', m.group(1))}\n", text.translate(_WIDE))
    return _MARKUP.sub("", boxed).replace("\u00a0", " ")


def _from_statements(text: str, options: Mapping[str, str]) -> Reading | None:
    for start, payload in sorted(_statements(text), reverse=True)[:MAX_STATEMENTS]:
        reading = _stated(payload, options)
        if reading is not None:
            return _not_hedged(text, start, reading, options)
    return None


def _not_hedged(
    text: str, start: int, reading: Reading, options: Mapping[str, str],
) -> Reading:
    """The reading, unless another letter stands beside the statement as an alternative."""
    if reading.letter is None:
        return reading
    before = _BEFORE_BOX.search(text[max(0, start - 60):start])
    if before is not None and before["letter"] in options and before["letter"] != reading.letter:
        return Reading(None, f"several letters: {before['letter']}, {reading.letter}")
    after = text[start:start + 2 * MAX_STATEMENT].replace(options[reading.letter] or "\x00", "")
    for match in _ELSE.finditer(after):
        other = (match["marked"] or match["bare"]).upper()
        if other != reading.letter and other in options:
            return Reading(None, f"hedged: {reading.letter}, then {match.group()[:40]!r}")
    return reading


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Where each statement's payload starts, and the payload: the rest of its line."""
    for match in _STATEMENTS.finditer(text):
        before = text[max(0, match.start() - 16):match.end()]
        if not _NEGATION.search(before.rpartition("\n")[2]):
            yield match.end(), _line_at(text, match.end())
    for match in _IS_CORRECT.finditer(text):
        if not _NEGATION.search(text[max(0, match.start() - 16):match.start()]):
            yield match.start(1), match.group(1).upper()
    for i in _positions(text, "\x01"):
        yield i + 1, _line_at(text, i + 1)


def _positions(text: str, mark: str) -> Iterator[int]:
    at = text.find(mark)
    while at >= 0:
        yield at
        at = text.find(mark, at + 1)


def _line_at(text: str, start: int) -> str:
    """The rest of the line; of the next one with text, when nothing follows a colon."""
    payload = text[start:start + MAX_STATEMENT]
    return payload.lstrip().partition("\n")[0]


def _stated(payload: str, options: Mapping[str, str]) -> Reading | None:
    """The option that a statement names; None when it names none at all."""
    lead = _LEAD.match(payload)
    at = lead.end() if lead else 0
    if re.match(r"either\b", payload[at:], re.IGNORECASE):
        return Reading(None, "hedged: either")
    match = _LETTER.match(payload, at)
    if match is None or match["letter"].upper() not in options or not _is_marked(match, payload):
        return _by_text(payload[at:], options)
    letter, rest = match["letter"].upper(), payload[match.end():]
    more = _AND_MORE.match(rest)
    if more is not None and more["letter"].upper() in options and more["letter"].upper() != letter:
        return Reading(None, f"several letters: {payload[:40]!r}")
    return _with_text(letter, rest, options)


def _is_marked(match: re.Match[str], payload: str) -> bool:
    """Whether a letter is an option and not a word: in brackets, or upper case and at an end."""
    if match["open"] in ("(", "[", "{") and match["close"]:
        return True
    alone = not payload[match.end():].strip(" .!\"'")
    if match["letter"].islower():
        return alone and match["letter"] != "i"
    return _ENDS.match(payload, match.end()) is not None


def _with_text(letter: str, rest: str, options: Mapping[str, str]) -> Reading:
    """The letter, unless the text beside it is another option's."""
    said = _compared(rest)
    if said and said != _compared_option(options[letter]):
        for other, text in options.items():
            if other != letter and said == _compared_option(text):
                return Reading(None, f"letter {letter} with the text of {other}")
    return Reading(letter)


def _from_lines(text: str, options: Mapping[str, str]) -> Reading | None:
    lines = [line for line in text.split("\n") if line.strip()]
    bare = [_bare_letter(line, options) for line in lines]
    listed = [_listed_letter(line, options) for line in lines]
    if len(set(bare) - {None}) > 1:
        return Reading(None, "several letters, each on a line")
    if len(set(listed) - {None}) > 1 or _lists_several(lines[-1], options):
        return Reading(bare[-1]) if bare[-1] else Reading(None, "a list of options")
    found = {letter for letter in (listed[0], listed[-1]) if letter}
    if not found:
        return None
    letter = found.pop()
    line = lines[0] if listed[0] else lines[-1]
    rest = _LINE.match(line)
    if rest is None:
        return Reading(letter)
    more = _AND_MORE.match(rest["rest"]) or _AND_MORE.match((rest["mark"] or "") + rest["rest"])
    if more is not None and more["letter"].upper() in options and more["letter"].upper() != letter:
        return Reading(None, f"several letters: {line[:40]!r}")
    return _with_text(letter, rest["rest"], options)


def _bare_letter(line: str, options: Mapping[str, str]) -> str | None:
    """The letter of a line that holds nothing else."""
    kept = line.strip(" \t\r.,:;!()[]{}\"'\x01")
    return kept if kept in options else None


def _listed_letter(line: str, options: Mapping[str, str]) -> str | None:
    """The letter that a line begins with as an option: "(B) x", "B. x", "B) x", "B"."""
    bare = _bare_letter(line, options)
    match = _LINE.match(line)
    if bare or match is None:
        return bare
    letter = match["letter"].upper()
    marked = bool(match["open"] and match["close"]) or (
        match["letter"].isupper() and (match["mark"] is not None or match["close"] is not None))
    return letter if marked and letter in options else None


def _lists_several(line: str, options: Mapping[str, str]) -> bool:
    """Whether one line lists options: "A. x B. y" or "A B C D"."""
    found = {m.group(1) for m in re.finditer(r"(?<![\w'])([A-J])(?=[.:)])", line)}
    only = [word.strip(".,;:()") for word in line.split()]
    return (len(found & set(options)) > 1
            or (len(only) > 1 and all(word in options for word in only)))


def _from_mentions(text: str, options: Mapping[str, str]) -> Reading | None:
    found: set[str] = set()
    for match in _MENTION.finditer(text):
        letter = (match["marked"] or match["named"]).upper()
        before = text[max(0, match.start() - 20):match.start()]
        negated = _NEGATION.search(before) or _WRONG_AFTER.match(text, match.end())
        if letter in options and not negated:
            found.add(letter)
    if len(found) > 1:
        return Reading(None, f"several letters: {', '.join(sorted(found))}")
    return Reading(found.pop()) if found else None


def _from_sentences(text: str, options: Mapping[str, str]) -> Reading | None:
    text = text.strip()
    first = _SENTENCE.split(text.partition("\n")[0][:4 * MAX_STATEMENT].strip())[0]
    last = _SENTENCE.split(text.rpartition("\n")[2][-4 * MAX_STATEMENT:].strip())[-1]
    found = [reading for sentence in (first, last)
             if (reading := _by_text(sentence, options)) is not None]
    if len({reading.letter for reading in found}) > 1:
        return Reading(None, "first and last sentence name different options")
    return found[0] if found else None


def _by_text(sentence: str, options: Mapping[str, str], whole: bool = False) -> Reading | None:
    """The one option whose text stands in the sentence (or, ``whole``, is it)."""
    said = f" {_compared(sentence)} "
    texts = {letter: _compared_option(text) for letter, text in options.items()}
    hits = {letter: f" {text} " for letter, text in texts.items() if text
            and (said == f" {text} " if whole or not _is_telling(text) else f" {text} " in said)}
    longest = {letter for letter, text in hits.items()
               if not any(text in other and text != other for other in hits.values())}
    if not longest:
        return None
    if len(longest) > 1:
        return Reading(None, f"the texts of several options: {', '.join(sorted(longest))}")
    letter = longest.pop()
    if not whole and _NEGATION.search(sentence) and not _NEGATION.search(options[letter]):
        return Reading(None, "an option's text, negated")
    return Reading(letter)


@lru_cache(maxsize=16384)
def _compared_option(text: str) -> str:
    return _compared(text)


def _compared(text: str) -> str:
    return " ".join(tokens(normalised(_POSSESSIVE.sub("", text))))


def _is_telling(text: str) -> bool:
    """Whether a text within a sentence is hardly there by chance ("no" and "one" are words)."""
    return text not in _WORDS and (len(text) >= 3 or any(c.isdigit() for c in text))
