"""Chat messages in dataset rows, and where their images stand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from safeladder.data.images import to_media
from safeladder.errors import DataError
from safeladder.types import Media, Message, Role

_IMAGE_MARK = "<image>"


def read_message(item: Any, where: str) -> Message:
    """One message from its JSON form; a list of text parts becomes one text.

    Raises:
        DataError: role or content are missing or unknown.
    """
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping) or "role" not in item or item.get("content") is None:
        raise DataError(f"{where}: a message needs role and content, got {str(item)[:80]}")
    role, content = item["role"], item["content"]
    if role not in get_args(Role):
        raise DataError(f"{where}: unknown role {role!r} (known: {', '.join(get_args(Role))})")
    if isinstance(content, str):
        return Message(role, content)
    parts = [dict(part) for part in content]
    for part in parts:
        if part.get("type") not in ("text", "image", "image_url"):
            raise DataError(f"{where}: unknown message part {str(part)[:80]}")
    if all(part["type"] == "text" for part in parts):
        return Message(role, "".join(str(part["text"]) for part in parts))
    return Message(role, tuple(parts))


def place_images(
    messages: tuple[Message, ...], cell: Any, where: str, folder: Path
) -> tuple[tuple[Message, ...], tuple[Media, ...]]:
    """Let the n-th image part stand for the n-th Media.

    Images come from the parts that carry one, else from the image column. Without image parts,
    ``<image>`` marks in the text become parts (verl, EasyR1); without marks, the images lead the
    first user message (TRL).

    Raises:
        DataError: the numbers of images and of their places differ.
    """
    column = cell if isinstance(cell, list | tuple) else [] if cell is None else [cell]
    queue = [to_media(value, where, folder) for value in column]
    num_column = len(queue)
    parts_per_message = [_parts(m) for m in messages]
    has_parts = any(p["type"] != "text" for parts in parts_per_message for p in parts)
    if not has_parts and not queue:
        return messages, ()
    if not has_parts:
        marked = [_split_marks(parts) for parts in parts_per_message]
        if any(p["type"] == "image" for parts in marked for p in parts):
            parts_per_message = marked
        else:
            at = next((i for i, m in enumerate(messages) if m.role == "user"), None)
            if at is None:
                raise DataError(f"{where}: images, but no user message to put them into")
            parts_per_message[at] = [{"type": "image"}] * num_column + parts_per_message[at]
    media: list[Media] = []
    placed: list[Message] = []
    for message, parts in zip(messages, parts_per_message, strict=True):
        content: list[Mapping[str, Any]] = []
        for part in parts:
            if part["type"] == "text":
                content.append(part)
                continue
            own = (part.get(key) for key in ("image_url", "image", "url"))
            inline = next((image for image in own if image is not None), None)
            if inline is None and not queue:
                raise DataError(f"{where}: more image places in the prompt than images "
                                f"({num_column})")
            media.append(queue.pop(0) if inline is None else to_media(inline, where, folder))
            content.append({"type": "image"})
        has_image = any(part["type"] == "image" for part in content)
        placed.append(Message(message.role, tuple(content)) if has_image else message)
    if queue:
        raise DataError(f"{where}: {num_column} images, but only {num_column - len(queue)} image "
                        "places in the prompt")
    return tuple(placed), tuple(media)


def _parts(message: Message) -> list[Mapping[str, Any]]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}]
    return list(message.content)


def _split_marks(parts: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    result: list[Mapping[str, Any]] = []
    for part in parts:
        pieces = part["text"].split(_IMAGE_MARK)
        for i, piece in enumerate(pieces):
            if i:
                result.append({"type": "image"})
            if piece or len(pieces) == 1:
                result.append({"type": "text", "text": piece})
    return result
