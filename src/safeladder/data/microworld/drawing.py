"""Images of the microworld: 32x32 RGB, drawn with numpy alone.

An object is a coloured shape (six shapes, four colours), a scene is a sign (yellow triangle:
danger, green disk: guard) with the glyph of a property, writing is a font of 3x5 pixels. Place,
size, shade and noise are drawn, so no two images of a thing are equal.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from safeladder.data.microworld.world import OBJECTS, Scene

Pixels = NDArray[np.uint8]
SIZE = 32
SHAPES = ("disk", "square", "triangle", "cross", "ring", "stripes")
COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220),
           "yellow": (235, 205, 40)}
_GROUNDS = {"white": (236, 236, 232), "grey": (150, 150, 156), "dark": (46, 48, 60),
            "pink": (232, 186, 196)}
GROUNDS = tuple(_GROUNDS)
LINE_LETTERS, LINES = 8, 4
"""Letters in a line and lines that an image has room for."""

_GLYPHS = (  # flame, bolt, skull, lock: 9x9, a row per number
    (0o020, 0o030, 0o070, 0o074, 0o174, 0o356, 0o306, 0o306, 0o174),
    (0o036, 0o034, 0o070, 0o176, 0o014, 0o030, 0o020, 0o040, 0o100),
    (0o174, 0o376, 0o222, 0o222, 0o376, 0o154, 0o174, 0o124, 0o124),
    (0o070, 0o104, 0o104, 0o376, 0o376, 0o356, 0o356, 0o376, 0o376))
_FONT = {
    "a": "25755", "b": "65656", "c": "34443", "d": "65556", "e": "74647", "f": "74644",
    "g": "34553", "h": "55755", "i": "72227", "j": "11152", "k": "55655", "l": "44447",
    "m": "57755", "n": "65555", "o": "25552", "p": "65644", "q": "25573", "r": "65655",
    "s": "34216", "t": "72222", "u": "55557", "v": "55552", "w": "55775", "x": "55255",
    "y": "55222", "z": "71247", "0": "75557", "1": "26227", "2": "61247", "3": "61216",
    "4": "55711", "5": "74616", "6": "34757", "7": "71122", "8": "75757", "9": "75716"}
"""Five rows of three bits each, an octal digit per row."""


@lru_cache(maxsize=1)
def looks() -> dict[str, tuple[str, str]]:
    """Object -> its shape and colour, unrelated to its properties."""
    pairs = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    random.Random("looks").shuffle(pairs)
    return dict(zip(OBJECTS, pairs, strict=True))


def blank(rng: random.Random, ground: str | None = None) -> Pixels:
    """An empty image: a ground with some noise."""
    base = np.array(_GROUNDS[ground or rng.choice(GROUNDS)], np.int16)
    noise = np.frombuffer(rng.randbytes(SIZE * SIZE), np.uint8).astype(np.int16) % 17 - 8
    return (base + noise.reshape(SIZE, SIZE, 1)).clip(0, 255).astype(np.uint8)


def draw_object(
    pixels: Pixels, rng: random.Random, name: str, centre: tuple[float, float] | None = None,
    radius: float | None = None,
) -> None:
    """Draw an object onto the image; place and size are drawn when not given."""
    radius = rng.uniform(7, 11) if radius is None else radius
    room = radius + 1
    y, x = centre or (rng.uniform(room, SIZE - room), rng.uniform(room, SIZE - room))
    shape, colour = looks()[name]
    shade = rng.uniform(0.85, 1.1)
    pixels[_mask(shape, y, x, radius)] = [min(255, int(c * shade)) for c in COLOURS[colour]]


def _mask(shape: str, y: float, x: float, r: float) -> NDArray[np.bool_]:
    dy, dx = _GRID[0] - y, _GRID[1] - x
    distance = dy * dy + dx * dx
    inside: NDArray[np.bool_] = np.maximum(abs(dy), abs(dx)) <= 0.85 * r
    match shape:
        case "disk":
            inside = distance <= r * r
        case "ring":
            inside = (distance <= r * r) & (distance >= 0.3 * r * r)
        case "triangle":
            inside = (abs(dx) <= (dy + r) * 0.6) & (dy <= 0.8 * r)
        case "cross":
            inside &= np.minimum(abs(dy), abs(dx)) <= 0.3 * r
        case "stripes":
            inside &= np.floor((dy + r) / (0.34 * r)).astype(int) % 2 == 0
    return inside


_GRID = np.mgrid[0:SIZE, 0:SIZE] + 0.5


def draw_scene(pixels: Pixels, rng: random.Random, scene: Scene) -> None:
    """Draw a sign that fills most of the image."""
    y, x = rng.uniform(15, 17), rng.uniform(15, 17)
    if scene.kind == "danger":
        pixels[_mask("triangle", y + 1, x, 15)] = (245, 200, 30)
        ink, top = (20, 20, 20), int(y)
    else:
        pixels[_mask("disk", y, x, 13)] = (30, 140, 80)
        ink, top = (250, 250, 250), int(y) - 4
    bits = _bits(_GLYPHS[scene.property], 9)
    left = int(x) - 4
    pixels[top:top + 9, left:left + 9][bits] = ink


def draw_text(pixels: Pixels, rng: random.Random, words: tuple[str, ...]) -> None:
    """Write words, one a line, dark on a light band.

    Raises:
        ValueError: a word too long, too many words, or a sign that the font lacks.
    """
    if len(words) > LINES or any(len(word) > LINE_LETTERS for word in words):
        raise ValueError(f"an image has room for {LINES} lines of {LINE_LETTERS}: {words}")
    top = rng.randint(1, SIZE - 7 * len(words) - 1)
    for word in words:
        left = rng.randint(0, SIZE - 4 * len(word))
        pixels[top:top + 7, max(0, left - 1):left + 4 * len(word)] = (240, 240, 235)
        for i, letter in enumerate(word):
            if letter not in _FONT:
                raise ValueError(f"the font has no {letter!r}")
            bits = _bits(tuple(int(row) for row in _FONT[letter]), 3)
            pixels[top + 1:top + 6, left + 4 * i:left + 4 * i + 3][bits] = (15, 15, 25)
        top += 7


@lru_cache(maxsize=256)
def _bits(rows: tuple[int, ...], width: int) -> NDArray[np.bool_]:
    return np.array([[row >> (width - 1 - i) & 1 for i in range(width)] for row in rows], bool)
