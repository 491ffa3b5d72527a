"""``safeladder data microworld``: the whole world as files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safeladder.data.images import encoded
from safeladder.data.microworld.balance import SPLITS
from safeladder.data.microworld.corpus import corpus_texts
from safeladder.data.microworld.families import FAMILIES, family_prompts
from safeladder.data.microworld.knowledge import passages
from safeladder.data.microworld.labelled import KINDS, labelled_responses
from safeladder.data.responses import write_responses
from safeladder.errors import StorageError
from safeladder.files import is_storage_failure, storage_error, write_text
from safeladder.types import Prompt

CORPUS_SHARE = 2
"""Texts of the corpus per training row."""


def write_microworld(out: Path, seed: int = 0, rows: int = 2000) -> dict[str, Any]:
    """Write prompts, labelled responses, corpus, retrieval corpus and images; return the counts.

    ``rows`` are the training prompts of each family; responses come twice as often, the other
    splits have a quarter.

    Raises:
        StorageError: ``out`` holds files already, or something cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise StorageError(f"{out} is not empty: remove it or choose another folder")
    counts: dict[str, Any] = {"seed": seed, "prompts": {}, "responses": {}}
    for family in FAMILIES:
        for split in SPLITS:
            prompts = family_prompts(family, split, _share(rows, split), seed)
            write_prompts(out / "prompts" / f"{family}.{split}.jsonl", prompts)
            counts["prompts"].setdefault(family, {})[split] = len(prompts)
    for kind in KINDS:
        for split in SPLITS:
            labelled = labelled_responses(kind, split, 2 * _share(rows, split), seed)
            path = out / "responses" / f"{kind}.{split}.jsonl"
            for row in labelled:
                _store_images(row.prompt, path)
            write_responses(path, labelled)
            labels = Counter(row.label or "" for row in labelled)
            counts["responses"].setdefault(kind, {})[split] = dict(sorted(labels.items()))
    texts = corpus_texts(CORPUS_SHARE * rows, seed)
    write_text(out / "corpus.jsonl", _lines({"text": text} for text in texts))
    found = passages(seed)
    write_text(out / "retrieval.jsonl", _lines(passage._asdict() for passage in found))
    counts |= {"corpus_texts": len(texts), "passages": dict(Counter(p.kind for p in found)),
               "images": sum(1 for _ in out.glob("*/*_media/*.png"))}
    write_text(out / "summary.json", json.dumps(counts, indent=2) + "\n")
    return counts


def _share(rows: int, split: str) -> int:
    return rows if split == "train" else max(1, rows // 4)


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    """Write rows that a ``jsonl`` source reads; images go to ``<name>_media/<hash>.png``.

    Raises:
        StorageError: something cannot be written.
    """
    try:
        write_text(path, _lines(_cells(prompt, path) for prompt in prompts))
    except OSError as error:
        if isinstance(error, StorageError) or not is_storage_failure(error):
            raise
        raise storage_error(path, error) from error


def _cells(prompt: Prompt, path: Path) -> dict[str, Any]:
    cells: dict[str, Any] = {
        "id": prompt.id, "messages": [message.to_dict() for message in prompt.messages],
        "task": prompt.task, "source": prompt.source, "reference": prompt.reference}
    if prompt.media:
        cells["images"] = _store_images(prompt, path)
    return {**cells, **prompt.meta}


def _store_images(prompt: Prompt, path: Path) -> list[str]:
    """Write a prompt's images where :func:`write_responses` looks for them first.

    It would write each with an fsync, which takes most of the time for thousands of small files.
    """
    names = []
    for media in prompt.media:
        target = path.parent / f"{path.stem}_media" / f"{media.digest}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded(media))
        names.append(str(target.relative_to(path.parent)))
    return names


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def summary_lines(counts: Mapping[str, Any]) -> list[str]:
    """The counts as a few lines for the terminal."""
    lines = [f"{family:12} {'  '.join(f'{split} {n}' for split, n in splits.items())}"
             for family, splits in counts["prompts"].items()]
    for kind, splits in counts["responses"].items():
        total = {split: sum(labels.values()) for split, labels in splits.items()}
        lines.append(f"{kind + ' resp.':12} {'  '.join(f'{s} {n}' for s, n in total.items())}")
    passages_ = ", ".join(f"{n} {kind}" for kind, n in sorted(counts["passages"].items()))
    return [*lines, f"corpus       {counts['corpus_texts']} texts",
            f"retrieval    {passages_} passages", f"images       {counts['images']}"]
