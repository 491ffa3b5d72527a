import base64
import hashlib
from pathlib import Path

import numpy as np
import pytest

from safeladder.data.images import encode_png, encoded, to_media
from safeladder.errors import DataError, StorageError
from safeladder.types import Media

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
PNG = encode_png(PIXELS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELADDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_png_is_read_back_by_another_decoder(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    (tmp_path / "x.png").write_bytes(PNG)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
        assert to_media(image, "f:1", tmp_path) == Media(pixels=PIXELS)


def test_bytes_are_kept_once_under_their_hash(cache):
    media = to_media(PNG, "f:1", Path())
    assert Path(media.path) == cache / "media" / f"{hashlib.sha256(PNG).hexdigest()}.png"
    assert Path(media.path).read_bytes() == encoded(media) == PNG
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    for same in ({"bytes": PNG, "path": "gone.png"}, bytearray(PNG), uri, {"url": uri}):
        assert to_media(same, "f:1", Path()).path == media.path
    assert len(list((cache / "media").iterdir())) == 1


def test_paths_start_at_the_folder_of_the_file(tmp_path):
    (tmp_path / "sign.png").write_bytes(PNG)
    for given in ("sign.png", {"path": "sign.png"}, {"bytes": None, "path": "sign.png"}):
        assert to_media(given, "f:1", tmp_path).path == str(tmp_path / "sign.png")
    assert to_media(str(tmp_path / "sign.png"), "f:1", Path("/elsewhere")).digest == (
        hashlib.sha256(PNG).hexdigest())


def test_arrays_and_media_pass():
    media = to_media(PIXELS, "f:1", Path())
    assert media == Media(pixels=PIXELS)
    assert to_media(media, "f:1", Path()) is media
    assert encoded(media) == PNG


@pytest.mark.parametrize(("value", "problem"), [
    ("missing.png", "no image file"), ("https://example.org/x.png", "is remote"),
    (b"GARBAGE", "no PNG, JPEG"), ({}, "without bytes, path"), (3, "of a int"),
    ("data:image/png;base64,@@", "not base64"), (np.zeros((2, 2), np.uint8), "uint8"),
    (np.zeros((2, 2, 3)), "float64"),
])
def test_what_is_no_image_is_named(value, problem, tmp_path):
    with pytest.raises(DataError, match=f"^f:1: .*{problem}"):
        to_media(value, "f:1", tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAFELADDER_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="SAFELADDER_CACHE"):
        to_media(PNG, "f:1", tmp_path)


@pytest.mark.parametrize(("head", "suffix"), [
    (b"\xff\xd8\xff\xe0", ".jpg"), (b"RIFF\x00\x00\x00\x00WEBP", ".webp"), (b"GIF89a", ".gif"),
])
def test_kinds_of_images_by_their_first_bytes(head, suffix):
    assert Path(to_media(head, "f:1", Path()).path).suffix == suffix
