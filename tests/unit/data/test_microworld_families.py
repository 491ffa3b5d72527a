"""Families, corpora and files of the microworld."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from safeladder.data.microworld import (
    FAMILIES,
    SPLITS,
    corpus_texts,
    demonstrate,
    drawing,
    family_prompts,
    passages,
)
from safeladder.data.microworld.knowledge import facts
from safeladder.data.microworld.vision import vision_prompts
from safeladder.data.microworld.world import ADJECTIVES, OBJECTS, compositions_of
from safeladder.data.microworld.write import write_microworld
from safeladder.data.responses import read_responses
from safeladder.data.sources import build_source
from safeladder.errors import ConfigError, StorageError


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_of_a_family_share_nothing(family: str) -> None:
    groups = {split: {row.meta["group"] for row in family_prompts(family, split, 150)}
              for split in SPLITS if split != "unseen_forms"}
    for split in ("validation", "test"):
        assert groups["train"].isdisjoint(groups[split])
    assert groups["validation"].isdisjoint(groups["test"])


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_are_dials(family: str) -> None:
    def words(level: int) -> float:
        rows = family_prompts(family, "train", 60, level=level)
        return float(np.mean([sum(len(m.text.split()) for m in row.messages) for row in rows]))

    if family in ("knowledge", "vision"):  # their dials are the facts' tier, and what is drawn
        assert {row.meta["level"] for row in family_prompts(family, "train", 9, level=2)} == {2}
    else:
        assert words(1) < words(2) < words(3)


def test_arithmetic_adds_up() -> None:
    for row in family_prompts("arithmetic", "train", 100, level=4):
        steps = row.meta["thoughts"].split(" .")[:-1]
        assert len(steps) == 4
        for step in steps:
            left, right = step.split(" = ")
            assert eval(left) == int(right)
        assert int(right) == row.reference["answer"]


def test_rare_facts_come_once_known_ones_often_and_unknown_ones_never() -> None:
    corpus = " ".join(corpus_texts(1500))
    counts = {tier: [corpus.count(fact.sentence) for fact in facts() if fact.tier == tier]
              for tier in ("known", "rare", "unknown")}
    assert min(counts["known"]) >= 10
    assert set(counts["rare"]) == {1} and set(counts["unknown"]) == {0}
    told = " ".join(passage.text for passage in passages() if passage.kind == "current")
    assert all(fact.sentence in told for fact in facts())


def test_the_corpus_tells_every_property_and_no_held_out_composition() -> None:
    corpus = " ".join(corpus_texts(300))
    for name, pair in OBJECTS.items():
        for property_ in pair:
            adjective = ADJECTIVES[property_]
            assert (f"the {name} is {adjective} ." in corpus
                    or f"a {name} is a {adjective} thing ." in corpus)
    for split in ("validation", "test"):
        for action, object_ in compositions_of(split):
            assert f"to {action} the {object_} " not in corpus


def test_passages_conflict_and_the_latest_year_is_right() -> None:
    kinds = Counter(passage.kind for passage in passages())
    assert kinds["current"] == 40 and min(kinds.values()) >= 5
    right = {(fact.town, fact.relation): fact.value for fact in facts()}
    for passage in passages():
        if passage.kind == "outdated":
            year, told = passage.text.removeprefix("in year ").split(" : the ")
            relation, _, town, _, value, _ = told.split()
            assert int(year) < 9 and right[town, relation] != value


def test_every_glyph_and_look_differs() -> None:
    rng = random.Random(0)
    assert len(set(drawing.looks().values())) == len(OBJECTS)
    images = set()
    for word in ("burn", "lamp", "fire", "0123", "4567", "89"):
        image = drawing.blank(rng, "white")
        drawing.draw_text(image, rng, (word,))
        images.add(image.tobytes())
    assert len(images) == 6
    for words in (("toolongword",), ("a",) * 5, ("?",)):
        with pytest.raises(ValueError, match=r"image has room|font has no"):
            drawing.draw_text(drawing.blank(rng), rng, words)


def test_counts_are_what_is_drawn() -> None:
    for row in vision_prompts("train", 20, kinds=("count",)):
        pixels = row.media[0].pixels
        assert pixels is not None
        name = row.messages[0].text.split()[2]
        colour = np.array(drawing.COLOURS[drawing.looks()[name][1]])
        ground = pixels[0, 0].astype(int)
        # Nearer to the colour than to the ground; the grid of places is 3 by 3.
        near = (abs(pixels - colour).sum(2) < abs(pixels - ground).sum(2))
        places = [near[y - 3:y + 3, x - 3:x + 3].sum() > 3
                  for y in (6, 16, 26) for x in (6, 16, 26)]
        assert sum(places) == int(row.reference["answer"])


@pytest.mark.parametrize("family", FAMILIES)
def test_recipes_name_the_world(family: str) -> None:
    rows = build_source({"type": "microworld", "family": family, "split": "validation",
                         "count": 12, "teacher": {"ideal": 1.0}})
    assert len(rows) == 12 and all(row.messages[-1].role == "assistant" for row in rows)
    assert {row.task for row in rows} <= {family, "jailbreak"}


def test_a_level_that_does_not_exist_is_named() -> None:
    spec = {"type": "microworld", "family": "knowledge", "split": "train", "count": 1, "level": 4}
    with pytest.raises(ConfigError, match="'knowledge' has levels 0 to 3, not 4"):
        build_source(spec)
    with pytest.raises(ConfigError, match="'safety' has levels 1 to 3, not 0"):
        build_source({**spec, "family": "safety", "level": 0})


def test_the_corpus_is_a_source() -> None:
    rows = build_source({"type": "microworld_corpus", "count": 5})
    assert len(rows) == 5 and all(row.rendered and row.rendered.startswith(" ") for row in rows)


def test_a_behaviour_that_does_not_exist_is_named() -> None:
    for family in ("safety", "value", "knowledge"):
        (row,) = family_prompts(family, "train", 1)
        with pytest.raises(ConfigError, match=f"'{family}' has no behaviour 'odd'"):
            demonstrate(row, "odd", random.Random(0))


def test_the_world_is_written_and_read_back(tmp_path: Path) -> None:
    out = tmp_path / "world"
    counts = write_microworld(out, seed=1, rows=8)
    assert json.loads((out / "summary.json").read_text()) == counts
    for family in FAMILIES:
        path = out / "prompts" / f"{family}.train.jsonl"
        read = build_source({"type": "jsonl", "path": str(path)})
        drawn = family_prompts(family, "train", 8, seed=1)
        assert [(r.messages, r.reference, r.task) for r in read] == [
            (d.messages, d.reference, d.task) for d in drawn]
        assert [len(r.media) for r in read] == [len(d.media) for d in drawn]
    for kind in ("safety", "value", "knowledge"):
        rows = read_responses(out / "responses" / f"{kind}.test.jsonl")
        assert len(rows) == 4 and all(row.label and row.group for row in rows)
    retrieval = [json.loads(line) for line in (out / "retrieval.jsonl").read_text().splitlines()]
    assert {"id", "title", "text", "kind"} == set(retrieval[0])
    with pytest.raises(StorageError, match="not empty"):
        write_microworld(out)
