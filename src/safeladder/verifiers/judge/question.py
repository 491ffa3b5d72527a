"""What a judge is shown: our prompt, and the material between fences that it cannot close.

Every piece of material stands between two lines that carry a number made from the SHA-256 of all
of it. A text that contained the number of the material it is part of would be a fixed point of
the hash, so a response can neither close its fence nor know the id that a verdict must carry.
What chat templates read as the end of a turn is broken up as well, since servers look for such
texts in the content of messages too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, NamedTuple

from safeladder.render.think import split_think
from safeladder.types import Media, Message, Trajectory
from safeladder.verifiers.labels import HELPFUL, KNOWLEDGE, SIX_WAY, VALUE, LabelSet

Language = Literal["en", "zh"]
Piece = Literal["response", "reasoning"]
MARK_DIGITS, ID_DIGITS = 16, 6


class RubricText(NamedTuple):
    """One of the shipped prompts, and what it needs."""

    labels: LabelSet
    empty: str
    """The class of an answer without a word; no judge is asked, and nothing is won by silence."""
    shows_request: bool = True
    shows_reference: bool = False


RUBRICS: Mapping[str, RubricText] = {
    "safety": RubricText(SIX_WAY, "illogical completion"),
    "safety_jailbreak": RubricText(SIX_WAY, "illogical completion", shows_request=False),
    "value": RubricText(VALUE, "bad"),
    "knowledge": RubricText(KNOWLEDGE, "wrong", shows_reference=True),
    "knowledge_free": RubricText(KNOWLEDGE, "wrong"),
    "helpful": RubricText(HELPFUL, "unhelpful"),
}
"""Name -> prompt; the texts are ``verifiers/prompts/judge/<name>.<language>.md``."""

_CONTROL = re.compile(
    r"<(?=[|\uff5c])|(?<=[|\uff5c])>|<(?=/?(?:s|bos|eos|think|start_of_turn|end_of_turn|image)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\])|<(?=</?SYS>)", re.IGNORECASE)
"""Where texts begin (or end) that templates and tokenizers read as more than text."""
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_LATIN_WORD = re.compile("[A-Za-z]++")


@dataclass(frozen=True)
class Wording:
    """A system prompt before it knows its material."""

    rubric: str
    """The text of the rubric itself."""
    classes: tuple[str, ...]
    reasons: bool
    """Whether the judge is asked for reasons beside its label."""
    language: Language

    def system(self, piece: Piece, mark: str) -> str:
        """The system prompt for a piece named ``piece``, with the fences' number filled in."""
        frame = _frame(self.language)
        sections = [self.rubric, frame["material"]]
        if piece == "reasoning":
            sections.append(frame["thinking"])
        sections.append(frame["verdict" if self.reasons else "label"])
        text = "\n\n".join(sections)
        for name, value in {"mark": mark, "id": mark[:ID_DIGITS],
                            "labels": ", ".join(self.classes)}.items():
            text = text.replace("{" + name + "}", value)
        return text

    @property
    def digest(self) -> str:
        """Names the wording: 12 hex digits of the SHA-256 of all its texts."""
        frame = _frame(self.language)
        texts = [self.rubric, *frame.values(), *self.classes, str(self.reasons)]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Question:
    """One call of a judge."""

    messages: tuple[Message, ...]
    media: tuple[Media, ...]
    verdict_id: str
    """What the verdict must carry to count."""

    def content(self) -> list[Any]:
        """What makes two questions the same, as JSON values."""
        return [[message.to_dict() for message in self.messages],
                [media.digest for media in self.media]]


def ask(wording: Wording, piece: Piece, text: str, material: Mapping[str, str],
        media: tuple[Media, ...] = ()) -> Question:
    """Put material and the text to be judged into fences, behind the wording.

    Args:
        wording: the prompt.
        piece: the name of the text to be judged.
        text: that text.
        material: name -> what else is shown, before it.
        media: images, shown before everything else.
    """
    pieces = {name: plain(value) for name, value in {**material, piece: text}.items()}
    mark = _mark(wording.digest, pieces)
    blocks = [f"<<<{name} {mark}>>>\n{value}\n<<<end of {name} {mark}>>>"
              for name, value in pieces.items()]
    closing = _frame(wording.language)["closing"].replace("{id}", mark[:ID_DIGITS])
    shown = "\n\n".join([*blocks, closing])
    content: Any = shown
    if media:
        content = (*({"type": "image"} for _ in media), {"type": "text", "text": shown})
    return Question((Message("system", wording.system(piece, mark)), Message("user", content)),
                    media, mark[:ID_DIGITS])


def request_pieces(trajectory: Trajectory) -> dict[str, str]:
    """The conversation that led to the response, message by message; reasoning is left out."""
    prompt = trajectory.prompt
    if prompt.rendered is not None:
        return {"request": prompt.rendered.strip()}
    said = list(prompt.messages)
    for turn in trajectory.turns[:-1]:
        said += [Message("assistant", turn.response), *turn.environment_messages]
    if len(said) == 1:
        return {"request": said[0].text.strip()}
    return {f"message {number}, {message.role}": _said(message).strip()
            for number, message in enumerate(said, 1)}


def language_of(text: str) -> Language:
    """Chinese when there are more Chinese characters than words in Latin letters."""
    chinese = sum(1 for _ in _CHINESE.finditer(text))
    return "zh" if chinese > sum(1 for _ in _LATIN_WORD.finditer(text)) else "en"


def plain(text: str) -> str:
    """Text in which nothing is spelled that templates or tokenizers read as more than text.

    ``<|im_end|>`` becomes ``< |im_end| >``; lone surrogates, which no request can carry, become
    question marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(lambda found: f" {found[0]}" if found[0] == ">" else f"{found[0]} ", text)


@lru_cache(maxsize=64)
def rubric_text(name: str, language: Language) -> str:
    """The shipped text of a rubric."""
    return _read(f"{name}.{language}.md")


@lru_cache(maxsize=2)
def _frame(language: Language) -> Mapping[str, str]:
    """What is the same for all rubrics: section name -> text."""
    parts = ("\n" + _read(f"frame.{language}.md")).split("\n## ")[1:]
    return {name: body.strip() for name, _, body in (part.partition("\n") for part in parts)}


def _read(name: str) -> str:
    folder = resources.files("safeladder.verifiers") / "prompts" / "judge"
    return (folder / name).read_text(encoding="utf-8").strip()


def _said(message: Message) -> str:
    return split_think(message.text).answer if message.role == "assistant" else message.text


def _mark(digest: str, pieces: Mapping[str, str]) -> str:
    text = "\0".join([digest, *(part for pair in pieces.items() for part in pair)])
    return hashlib.sha256(text.encode()).hexdigest()[:MARK_DIGITS]
