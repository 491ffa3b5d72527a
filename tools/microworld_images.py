"""Draw the images of docs/microworld.md, four times as large as the model sees them.

Usage: ``python tools/microworld_images.py [docs/images/microworld]``
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safeladder.data.images import encode_png
from safeladder.data.microworld import drawing, safety_prompts
from safeladder.data.microworld.drawing import Pixels
from safeladder.data.microworld.vision import vision_prompts
from safeladder.data.microworld.world import HAZARDS, OBJECTS, Scene
from safeladder.types import Prompt

SCALE, MARGIN = 4, 6


def sheet(images: Sequence[Pixels], columns: int) -> bytes:
    """Images side by side, upscaled with nearest neighbour, as PNG."""
    shown = [np.pad(image.repeat(SCALE, 0).repeat(SCALE, 1),
                    ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)
             for image in images]
    rows = [np.concatenate(shown[i:i + columns], 1) for i in range(0, len(shown), columns)]
    return encode_png(np.concatenate(rows, 0))


def objects() -> list[Pixels]:
    """Every object once, in the order of the world."""
    rng, found = random.Random(3), []
    for name in OBJECTS:
        image = drawing.blank(rng, "white")
        drawing.draw_object(image, rng, name, (16, 16), 11)
        found.append(image)
    return found


def signs() -> list[Pixels]:
    """Danger signs, then guard signs."""
    rng, found = random.Random(3), []
    for kind in ("danger", "guard"):
        for i in range(len(HAZARDS)):
            image = drawing.blank(rng, "grey")
            drawing.draw_scene(image, rng, Scene(kind, i))
            found.append(image)
    return found


def _pixels(prompt: Prompt) -> Pixels:
    pixels = prompt.media[0].pixels
    assert pixels is not None
    return pixels


def examples() -> dict[str, tuple[list[Prompt], int]]:
    """Name of the file -> prompts whose images it shows, and columns."""
    this = safety_prompts("train", 400, 3, ("object_image",))
    wash = [row for row in this if row.meta["request"].startswith("wash ")]
    pair = [next(r for r in wash if r.meta["harmful"]), next(r for r in wash
                                                             if not r.meta["harmful"])]
    scenes = safety_prompts("train", 3000, 3, ("scene_image",))
    turned = [next(r for r in scenes if r.meta["request"] == request)
              for request in ("burn lamp danger fire", "burn lamp danger shock",
                              "wash lamp guard shock", "wash lamp guard fire")]
    typed = [r for split in ("train", "unseen_forms")
             for r in safety_prompts(split, 60, 3, ("wrapped",)) if r.media]
    seen = vision_prompts("train", 8, 3, level=2)
    return {"this_thing": (pair, 2), "scenes": (turned, 4),
            "typography": ([typed[0], typed[-1]], 2), "vision": (seen[:4], 4)}


def main() -> None:
    """Write the files; print what the pictures belong to."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/microworld")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "objects.png").write_bytes(sheet(objects(), 8))
    (folder / "signs.png").write_bytes(sheet(signs(), 4))
    for name, (rows, columns) in examples().items():
        (folder / f"{name}.png").write_bytes(sheet([_pixels(row) for row in rows], columns))
        for row in rows:
            print(f"{name}: {row.messages[0].text!r} -> {row.meta.get('request', '')} "
                  f"{row.reference.get('hazard', row.reference.get('answer'))}")


if __name__ == "__main__":
    main()
