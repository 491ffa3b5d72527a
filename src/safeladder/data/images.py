"""Images in dataset rows: bytes, paths, data URIs, PIL images and arrays become Media.

Encoded bytes are stored once, under their SHA-256, in a cache folder, so that a data set of images
takes no memory and crosses process borders as paths: ``$SAFELADDER_CACHE/media``, by default
``~/.cache/safeladder/media``. Nothing is decoded here, and nothing is downloaded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeladder.errors import DataError, StorageError
from safeladder.types import Media

_MAGIC = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif",
          b"BM": ".bmp", b"II*\x00": ".tiff", b"MM\x00*": ".tiff"}


def to_media(value: Any, where: str, folder: Path) -> Media:
    """Make a Media of one cell of an image column.

    Takes a Media, encoded bytes, a path (relative ones start at ``folder``), a ``data:`` URI, a
    dict with ``bytes``, ``path``, ``image`` or ``url`` (Hugging Face, verl, OpenAI), a PIL image,
    or a uint8 array (height, width, 3).

    Raises:
        DataError: none of these, a file that is not there, or a remote address.
        StorageError: the cache folder cannot be written.
    """
    match value:
        case Media():
            return value
        case bytes() | bytearray() | memoryview():
            return Media(path=str(_store(bytes(value), where)))
        case str() | Path():
            return _from_text(str(value), where, folder)
        case Mapping():
            for key in ("bytes", "path", "image", "url"):
                if value.get(key) is not None:
                    return to_media(value[key], where, folder)
            raise DataError(f"{where}: an image without bytes, path, image or url")
        case np.ndarray():
            if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
                raise DataError(f"{where}: an image array must be uint8 (height, width, 3), got "
                                f"{value.dtype} {value.shape}")
            return Media(pixels=value)
    if hasattr(value, "convert"):
        return Media(pixels=np.asarray(value.convert("RGB"), dtype=np.uint8))
    raise DataError(f"{where}: cannot make an image of a {type(value).__name__}")


def _from_text(text: str, where: str, folder: Path) -> Media:
    if text.startswith(("http://", "https://")):
        raise DataError(f"{where}: image {text[:80]!r} is remote; download it and give its path")
    uri = re.match(r"data:[\w/+.-]*;base64,", text)
    if uri:
        try:
            content = base64.b64decode(text[uri.end():], validate=True)
        except binascii.Error:
            raise DataError(f"{where}: a data URI that is not base64") from None
        return Media(path=str(_store(content, where)))
    path = folder / text
    if not path.is_file():
        raise DataError(f"{where}: no image file {path}")
    return Media(path=str(path))


def _suffix(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    return next((s for magic, s in _MAGIC.items() if content.startswith(magic)), None)


def _store(content: bytes, where: str) -> Path:
    suffix = _suffix(content)
    if suffix is None:
        raise DataError(f"{where}: bytes that are no PNG, JPEG, WebP, GIF, BMP or TIFF image")
    root = Path(os.environ.get("SAFELADDER_CACHE") or Path.home() / ".cache" / "safeladder")
    path = root / "media" / (hashlib.sha256(content).hexdigest() + suffix)
    if path.exists():
        return path
    # A name of its own for each writer; all write the same bytes.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}; set SAFELADDER_CACHE to a folder that can be "
            "written") from None
    return path


def encoded(media: Media) -> bytes:
    """The image as a file's content: the file itself, or the pixels as PNG."""
    if media.path is not None:
        return Path(media.path).read_bytes()
    assert media.pixels is not None
    return encode_png(media.pixels)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """(height, width, 3) RGB -> PNG, 8 bits a channel, no filter (ISO/IEC 15948)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = pixels.reshape(height, 3 * width)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b""))
