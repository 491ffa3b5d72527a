"""The shapes of requests and answers."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from safeladder.errors import DataError, SamplingError
from safeladder.render.think import CLOSE, OPEN
from safeladder.types import FloatArray, Media, Message


class UsageFields(BaseModel):
    """Token counts; servers leave them out at times."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatText(BaseModel):
    """A chat message, or a streamed piece of one."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None

    @property
    def thought(self) -> str:
        """Reasoning that the server took out of the text; two names are in use."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def said(self) -> str | None:
        """What the user is meant to see."""
        return self.refusal if self.content is None else self.content

    def text(self) -> str | None:
        """The response as the model wrote it, think tags put back; None if there is nothing."""
        if not self.thought:
            return self.said
        if self.said is None:
            return f"{OPEN}\n{self.thought}"
        return f"{OPEN}\n{self.thought}\n{CLOSE}\n\n{self.said}"


class ChatChoice(BaseModel):
    """One reply."""

    index: int = 0
    message: ChatText = ChatText()
    delta: ChatText = ChatText()
    finish_reason: str | None = None


class ChatAnswer(BaseModel):
    """``/chat/completions``."""

    choices: list[ChatChoice]
    usage: UsageFields | None = None


class ChosenLogprobs(BaseModel):
    """Tokens and their log-probabilities, in order."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []


class ScoredToken(BaseModel):
    """One candidate at one place."""

    logprob: float


class TextChoice(BaseModel):
    """One completion."""

    index: int = 0
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: ChosenLogprobs | None = None
    prompt_logprobs: list[dict[int, ScoredToken] | None] | None = None

    def ids(self) -> list[int] | None:
        """The sampled ids: from ``token_ids``, or from tokens named ``token_id:<id>``."""
        if self.token_ids is not None:
            return self.token_ids
        tokens = self.logprobs.tokens if self.logprobs else []
        head = "token_id:"
        if not tokens or not all(t.startswith(head) and t[len(head):].isdigit() for t in tokens):
            return None
        return [int(token[len(head):]) for token in tokens]


class TextAnswer(BaseModel):
    """``/completions``."""

    choices: list[TextChoice]
    usage: UsageFields | None = None


Answer = TypeVar("Answer", bound=BaseModel)


def parse(shape: type[Answer], data: Any, where: str) -> Answer:
    """Check an answer's shape.

    Raises:
        SamplingError: names the first field that is missing or wrong.
    """
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise SamplingError(f"{where}: unexpected answer, {field}: {first['msg']}") from None


def finite(values: Sequence[float | None], where: str) -> FloatArray:
    """Log-probabilities as an array.

    Raises:
        SamplingError: one of them is missing or not finite.
    """
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    if len(numbers) != len(values):
        raise SamplingError(f"{where}: {len(values) - len(numbers)} of {len(values)} "
                            "log-probabilities are missing or not finite")
    return np.array(numbers, np.float32)


def chat_messages(messages: Sequence[Message], media: Sequence[Media]) -> list[dict[str, Any]]:
    """OpenAI's form: the n-th image part carries the n-th image as a data URL.

    Raises:
        DataError: parts and images differ in number.
    """
    images = iter(media)
    wire, parts = [], 0
    for message in messages:
        form = message.to_dict()
        if not isinstance(form["content"], str):
            for i, part in enumerate(form["content"]):
                if part["type"] == "image":
                    parts += 1
                    image = next(images, None)
                    url = data_url(image) if image else ""
                    form["content"][i] = {"type": "image_url", "image_url": {"url": url}}
        wire.append(form)
    if parts != len(media):
        raise DataError(f"{parts} image parts in the messages, but {len(media)} images")
    return wire


def data_url(media: Media) -> str:
    """An image as a ``data:`` URL: a file's bytes as they are, pixels as PNG.

    Raises:
        DataError: the file cannot be read, or is no PNG, JPEG, WebP or GIF.
    """
    if media.pixels is not None:
        content, kind = _png(media.pixels), "png"
    else:
        assert media.path is not None
        try:
            content = Path(media.path).read_bytes()
        except OSError as error:
            raise DataError(f"image {media.path}: {error.strerror or error}") from None
        kind = _kind(content, media.path)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _kind(content: bytes, path: str) -> str:
    marks = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}
    for mark, kind in marks.items():
        if content.startswith(mark):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    raise DataError(f"image {path}: neither PNG, JPEG, WebP nor GIF")


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """PNG without an image library: 8-bit RGB, no filter (W3C PNG, sections 5 and 11.2)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = pixels.reshape(height, 3 * width)

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
            + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b""))
