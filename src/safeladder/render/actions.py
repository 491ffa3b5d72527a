"""What a searcher does, in words: the one reader and writer of its tags.

A response is a think block and then one move, blanks between blocks at will::

    <think> ... </think> <search> river of Aldor </search>
    <think> ... </think> <read> 2 </read>                       a result's number, or its title
    <think> ... </think> <confidence> 8 </confidence> <answer> Sil </answer>

The confidence is one whole number from 0 to 10 that may stand beside any move, before or behind
it, and must stand beside an answer. What the environment says comes in messages of its own,
``<information> ... </information>``; a response that writes such a tag, wherever, is malformed:
no evidence is worth anything but what the environment gave.

The environment, the verifier and the figures of an evaluation all read responses here, so that
they cannot disagree. Reading is linear in the length of the response. Imports nothing heavy.
Departure from arXiv 2507.16727: its tags are not published, so these are ours; one move a response
instead of one long response that is cut and continued.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple, cast

from safeladder.render.think import CLOSE, OPEN

MoveKind = Literal["search", "read", "answer"]
INFORMATION_OPEN, INFORMATION_CLOSE = "<information>", "</information>"
MAX_CONFIDENCE = 10
NO_RESULT, NO_MORE_SEARCH, NO_MORE_READ = (
    "no such result .", "no more search .", "no more read .")
"""What the environment says of a move that it cannot carry out (:func:`carried_out`)."""
INSTRUCTIONS = """\
Answer the question. You may search a collection of passages and read them first.
Every reply is your reasoning in <think> </think>, followed by exactly one of:
<search> a query </search> - you are shown numbered titles with the beginning of each text;
<read> the number or title of a result </read> - you are shown that passage in full;
<confidence> a whole number from 0 to 10 </confidence> <answer> the answer, short </answer>.
The confidence says how sure you are that the answer is right: above 5 means that you stand by it.
What you find is given to you between <information> and </information>; never write these yourself.\
"""
"""The format in words, as a system message."""

_BLOCK = re.compile(r"\s*+<(search|read|confidence|answer)>")
_TAG = re.compile(r"</?(?:think|search|read|confidence|answer|information)>")
_CONFIDENCE = re.compile(r"10|[0-9]")


class Move(NamedTuple):
    """A response read. ``kind`` is None exactly where ``problem`` says what is malformed."""

    kind: MoveKind | None
    argument: str = ""
    """The query, the result to read, or the answer; never empty, and without tags."""
    confidence: int | None = None
    """0 to 10; None where none was stated."""
    problem: str = ""


def read_move(response: str) -> Move:
    """Read the one move of a response, or say why it is none."""
    for tag in (INFORMATION_OPEN, INFORMATION_CLOSE):
        if tag in response:
            return _malformed(f"{tag} is the environment's to write")
    if not response.lstrip().startswith(OPEN):
        return _malformed(f"it does not begin with {OPEN}")
    end = response.find(CLOSE)
    if end < 0:
        return _malformed("the thinking is not closed")
    blocks, problem = _read_blocks(response[end + len(CLOSE):])
    if problem:
        return _malformed(problem)
    stated = blocks.pop("confidence", None)
    if stated is not None and _CONFIDENCE.fullmatch(stated) is None:
        return _malformed(f"a confidence is a whole number from 0 to {MAX_CONFIDENCE}")
    if len(blocks) != 1:
        return _malformed(f"{len(blocks)} moves, expected one of search, read, answer")
    ((kind, argument),) = blocks.items()
    if not argument:
        return _malformed(f"an empty {kind}")
    if kind == "answer" and stated is None:
        return _malformed("an answer without a confidence")
    return Move(cast(MoveKind, kind), argument, None if stated is None else int(stated))


def write_move(
    kind: MoveKind, argument: str, thoughts: str, confidence: int | None = None,
) -> str:
    """A response that :func:`read_move` reads as told; a blank stands around every word."""
    stated = "" if confidence is None else f"<confidence> {confidence} </confidence> "
    return f"{OPEN} {thoughts} {CLOSE} {stated}<{kind}> {argument} </{kind}>"


def information(text: str) -> str:
    """What the environment says. Tags inside are broken up: no passage speaks for another."""
    plain = _TAG.sub(lambda found: f"< {found[0][1:]}", text)
    return f"{INFORMATION_OPEN} {plain} {INFORMATION_CLOSE}"


def carried_out(said: str) -> bool:
    """Whether the environment did what it was asked, by what it said; "nothing found" it did."""
    return said not in map(information, (NO_RESULT, NO_MORE_SEARCH, NO_MORE_READ))


def results_text(titles_and_abstracts: Iterable[tuple[str, str]]) -> str:
    """The results of a search, numbered from 1: ``1 : Aldor : in year 9 ; 2 : ...``."""
    return " ; ".join(f"{number} : {title} : {abstract}" for number, (title, abstract)
                      in enumerate(titles_and_abstracts, 1)) or "nothing found ."


def passage_text(title: str, text: str, words: int | None = None) -> str:
    """A passage in full, or the first ``words`` words of its text."""
    shown = text if words is None else " ".join(text.split()[:words])
    return f"{title} : {shown}"


def _read_blocks(text: str) -> tuple[dict[str, str], str]:
    """Name -> what stands in the block, and what is wrong."""
    blocks: dict[str, str] = {}
    place = 0
    while opened := _BLOCK.match(text, place):
        name = opened[1]
        end = text.find(f"</{name}>", opened.end())
        if end < 0:
            return {}, f"<{name}> is not closed"
        if name in blocks:
            return {}, f"two blocks {name}"
        inside = text[opened.end():end]
        if _TAG.search(inside):
            return {}, f"a tag inside of {name}"
        blocks[name] = inside.strip()
        place = end + len(name) + 3
    return blocks, "text outside of the blocks" if text[place:].strip() else ""


def _malformed(problem: str) -> Move:
    return Move(None, problem=problem)
