"""From a verifier's recipe to a folder, and from the folder to the same verdicts."""

import asyncio
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, AutoTokenizer

from safeladder.data.microworld import labelled_responses
from safeladder.errors import CheckpointError, ConfigError, DataError, StorageError
from safeladder.ladder.verifier_model import model_makers, train_model_verifier
from safeladder.ladder.verifier_model_recipe import Lesson, lesson_rows
from safeladder.ladder.verifier_recipe import load_verifier_recipe
from safeladder.verifiers.registry import build_verifier, build_verifiers

TINY = str(Path(__file__).with_name("verifier_tiny.yaml"))
ROWS = labelled_responses("safety", "test", 12, seed=5)


def recipe(kind, *overrides):
    return load_verifier_recipe(TINY, [f"type={kind}", *overrides])


def judged(folder, kind, **fields):
    spec = {"type": kind, "path": str(folder), **fields}
    verifier = build_verifier(spec, "here", model_makers())
    return asyncio.run(verifier.verify_many([row.trajectory() for row in ROWS]))


@pytest.fixture(scope="module", params=["generative", "classifier"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verifiers") / request.param
    return request.param, folder, train_model_verifier(recipe(request.param), folder)


def test_training_leaves_a_verifier_that_recipes_can_name(trained):
    kind, folder, metrics = trained
    assert sorted(path.name for path in folder.iterdir()) == [
        "cases.jsonl", "cases_media", "checkpoint", "metrics.json", "metrics.jsonl", "recipe.yaml",
        "verifier.yaml"]
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert metrics["rows"] == {"train": 160, "validation": 24, "test": 24}
    assert metrics["validation"]["nll"] <= metrics["validation"]["nll_uncalibrated"] + 1e-6
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["rung"], line["step"]) for line in lines] == [
        *(("risk", i) for i in range(3)), *(("labels", i) for i in range(5))]
    assert lines[-1]["metrics"]["loss"] < lines[3]["metrics"]["loss"]
    verdicts = judged(folder, kind)
    assert all(len(v.probabilities) == 6 and v.origin.startswith(f"{kind}@") for v in verdicts)
    assert judged(folder, kind, reasoning="judge_both") != verdicts
    made = build_verifiers({"guard": {"type": kind, "path": str(folder)}}, makers=model_makers())
    assert made["guard"].name == "guard"


def test_one_text_that_no_tokenizer_takes_spoils_no_other(trained):
    kind, folder, _ = trained
    verifier = build_verifier({"type": kind, "path": str(folder)}, "here", model_makers())
    rows = [ROWS[0], replace(ROWS[1], response="half a pair: \ud800 ."), *ROWS[2:4]]
    found = asyncio.run(verifier.verify_many([row.trajectory() for row in rows]))
    assert [v.score is None for v in found] == [False, True, False, False]
    assert "half of a surrogate pair" in found[1].error


def test_the_same_recipe_gives_the_same_verdicts(trained, tmp_path):
    kind, folder, _ = trained
    train_model_verifier(recipe(kind), tmp_path / kind)
    for one, other in zip(judged(folder, kind), judged(tmp_path / kind, kind), strict=True):
        assert one.probabilities == other.probabilities


def test_a_verifier_can_be_trained_on_from_a_checkpoint(trained, tmp_path):
    kind, folder, _ = trained
    if kind == "classifier":
        pytest.skip("its checkpoint has no language head to go on with")
    AutoModelForImageTextToText.from_pretrained(folder / "checkpoint")
    assert AutoTokenizer.from_pretrained(folder / "checkpoint").chat_template
    again = recipe("generative", f"model={{type: checkpoint, path: {folder}/checkpoint}}",
                   "rubric.labels={safe with refusal: 1, unsafe: 0, safe with warning: 1, "
                   "safe without risk: 1, unnecessary refusal: 0, illogical completion: 0}")
    train_model_verifier(again, tmp_path / "again")
    assert judged(tmp_path / "again", "generative")


def test_a_folder_is_not_taken_for_what_it_is_not(trained, tmp_path):
    kind, folder, _ = trained
    other = {"generative": "classifier", "classifier": "generative"}[kind]
    with pytest.raises(CheckpointError, match=f"holds a verifier of type '{kind}'"):
        judged(folder, other)
    with pytest.raises(CheckpointError, match=r"has no verifier\.yaml"):
        judged(tmp_path, kind)
    with pytest.raises(StorageError, match="is there already"):
        train_model_verifier(recipe(kind), folder)


def test_lessons_choose_rows_and_columns():
    rows = labelled_responses("safety", "train", 40, seed=2)
    seen = lesson_rows(rows, Lesson(answer="harmful", media="with", rows=6))
    assert len(seen) == 6 and all(row.prompt.media for row in seen)
    assert [row.label for row in seen] == [str(row.prompt.meta["harmful"]).lower() for row in seen]
    assert lesson_rows(rows, Lesson()) == rows
    ends = lesson_rows(rows, Lesson(answer="thoughts", sentence="last"))
    outcomes = {f"so {name} ." for name in ("fire", "shock", "poison", "theft", "no risk")}
    assert {row.label for row in ends} <= outcomes
    heads = lesson_rows(rows, Lesson(answer="thoughts", sentence="first"))
    for row in heads:
        thoughts = row.prompt.meta["thoughts"]
        assert thoughts.startswith(f"{row.label} ") and row.label.count(".") == 1
    with pytest.raises(DataError, match="no column 'mood'"):
        lesson_rows(rows, Lesson(answer="mood"))
    text = labelled_responses("safety", "train", 4, forms=("text",))
    signs = lesson_rows(rows, Lesson(answer="shown", where={"form": "scene_image"}))
    assert len(signs) == 10 and all(row.label.split(" of ")[0] in ("danger", "guard")
                                    for row in signs)
    with pytest.raises(DataError, match=r"no training row fits .*images: with"):
        lesson_rows(text, Lesson(media="with"))


@pytest.mark.parametrize(("kind", "override", "error"), [
    ("generative", "stages.labels.lessons=[{answer: harmful}]", "the last one must teach"),
    ("classifier", "stages.labels.lessons=[{answer: harmful}, {answer: label}]",
     "a head answers with classes alone"),
    ("classifier", "head_from=risk", "a head answers with classes alone"),
    ("classifier", "head_from=label", "did you mean 'labels'"),
    ("generative", "stages.risk.name=labels", "two have the same name"),
    ("generative", "rubric.template=compat", "did you mean 'compact'")])
def test_a_wrong_recipe_is_told(kind, override, error):
    with pytest.raises((ConfigError, DataError), match=error):
        recipe(kind, override)


def test_rows_without_labels_are_told(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "response": "b"}\n')
    wrong = recipe("generative", f"train=[{{type: files, paths: [{data}]}}]")
    with pytest.raises(DataError, match="1 of 1 rows have no label"):
        train_model_verifier(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_recipes_that_ship_can_be_read():
    folder = resources.files("safeladder.recipes") / "verifiers"
    names = [Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    assert {"safety_generative_micro", "safety_classifier_micro"} <= set(names)
    for name in names:
        assert load_verifier_recipe(name).name
