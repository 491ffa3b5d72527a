"""Verifiers that a climb trains: what is refused before that, and what training leaves."""

import gc
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from safeladder.config import apply_overrides
from safeladder.engine.local.trainer import LocalTrainer
from safeladder.engine.threads import torch_threads
from safeladder.errors import ConfigError, DataError, MissingExtra
from safeladder.files import partial_path
from safeladder.ladder.climb import climb
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import trained_verifiers
from safeladder.ladder.verifier_model import model_makers
from safeladder.ladder.verifier_trained import FACTS, plan_trained, train_planned
from safeladder.train.progress import LineProgress
from safeladder.verifiers import build_verifier, build_verifiers

TINY = str(Path(__file__).with_name("verifier_tiny.yaml"))
TRAINED_CLIMB = Path(__file__).parents[2] / "e2e" / "tiny_trained.yaml"
SMALL = {"train.0.count": 60, "validation.0.count": 12, "test.0.count": 12,
         "engine": {"type": "local", "threads": 1}}
VALUE = {"type": "microworld", "kind": "value", "split": "test", "count": 4}


def tiny(**more):
    more["overrides"] = SMALL | more.get("overrides", {})
    return {"type": "trained", "recipe": TINY, **more}


@pytest.fixture
def run(tmp_path):
    found = RunDir(tmp_path / "run")
    found.open("", resume=False, manifest={})
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two verifiers of one training, and one with a head; the run, and what was said."""
    found = RunDir(tmp_path_factory.mktemp("trained") / "run")
    found.open("", resume=False, manifest={})
    stale = partial_path(found.verifier("guard"))
    stale.mkdir(parents=True)
    (stale / FACTS).write_text("what a killed process left")
    specs = {"guard": tiny(), "world": {"type": "microworld"},
             "both": tiny(reasoning="judge_both"), "head": tiny(overrides={"type": "classifier"})}
    return found, specs, train(specs, found)


def train(specs, run):
    out = Path(run.path / "said.txt")
    with out.open("w") as stream:
        opened = train_planned(plan_trained(specs, run), run, LineProgress(stream))
    return opened, out.read_text()


def test_training_leaves_folders_as_the_command_does(trained):
    run, _, (opened, said) = trained
    assert sorted(path.name for path in (run.path / "verifiers").iterdir()) == ["guard", "head"]
    guard = run.verifier("guard")
    assert sorted(path.name for path in guard.iterdir()) == [
        "cases.jsonl", "cases_media", "checkpoint", "metrics.json", "metrics.jsonl", "recipe.yaml",
        FACTS, "verifier.yaml"]
    assert opened["both"] == {"name": "both", "type": "generative", "path": str(guard),
                              "device": "cpu", "reasoning": "judge_both"}
    built = build_verifiers(opened, makers=model_makers())
    assert [(v.name, v.rubric.reasoning) for v in built.values()] == [
        ("guard", "strip"), ("both", "judge_both"), ("head", "strip")]
    # 3 steps on risks, then 5 on labels: one bar of 8
    assert "verifiers.guard started steps 8" in said and "verifiers.guard step 8/8 loss" in said
    assert said.count(" finished in ") == 2
    assert "generative, 60 rows, test accuracy " in said and ", ECE " in said


def test_the_manifest_says_what_they_cost_and_are_worth(trained):
    run, _, _ = trained
    guard, both, head = trained_verifiers(run.manifest())
    own = json.loads((run.verifier("guard") / "metrics.json").read_text())
    assert (guard.kind, guard.recipe, guard.folder, guard.rows) == (
        "generative", TINY, "verifiers/guard", 60)
    assert guard.accuracy.n == 12 and guard.accuracy.unjudged == 0
    assert guard.accuracy.value == pytest.approx(own["test"]["accuracy"])
    assert guard.seconds > own["seconds"]["all"]
    assert (both.folder, both.seconds, both.accuracy) == (guard.folder, 0, guard.accuracy)
    assert (head.kind, head.folder) == ("classifier", "verifiers/head")


def test_what_is_there_whole_is_used(trained):
    run, specs, (opened, _) = trained
    before = run.manifest()
    written = (run.verifier("guard") / FACTS).stat().st_mtime_ns
    again, said = train(specs, run)
    assert again == opened and run.manifest() == before
    assert (run.verifier("guard") / FACTS).stat().st_mtime_ns == written
    assert "verifiers.guard: trained already (generative, 60 rows" in said and "step" not in said


def trainers():
    return sum(type(thing) is LocalTrainer for thing in gc.get_objects())


def test_the_trainer_is_gone_when_the_climb_goes_on(run):
    gc.collect()
    before = trainers()
    train({"guard": tiny(overrides={"test": []})}, run)
    assert trainers() == before


def test_what_another_recipe_left_is_not_used(trained):
    run, _, _ = trained
    with pytest.raises(ConfigError, match=r"verifiers.guard: .* was trained with another recipe"):
        plan_trained({"guard": tiny(overrides={"seed": 1})}, run)


def test_killed_inside_nothing_is_left_and_the_numbers_are_the_same(trained, run):
    class Killed(LineProgress):
        def step(self, step, metrics):
            if step == 4:  # in the second stage
                raise KeyboardInterrupt

    with (run.path / "said.txt").open("w") as stream, pytest.raises(KeyboardInterrupt):
        train_planned(plan_trained({"guard": tiny()}, run), run, Killed(stream))
    assert not list((run.path / "verifiers").iterdir()) and "verifiers" not in run.manifest()
    train({"guard": tiny()}, run)
    ours, theirs = (one.verifier("guard") for one in (run, trained[0]))
    for file in ("checkpoint/model.safetensors", "verifier.yaml"):
        assert (ours / file).read_bytes() == (theirs / file).read_bytes()
    assert trained_verifiers(run.manifest())[0].ece == trained_verifiers(
        trained[0].manifest())[0].ece


@pytest.mark.parametrize("kind", ["generative", "classifier"])
def test_it_is_opened_where_it_was_trained_unless_the_climb_says_where(kind, run):
    overrides = {"type": kind, "engine": SMALL["engine"] | {"device": "cuda:1"}}
    plans = plan_trained({"there": tiny(overrides=overrides),
                          "here": tiny(overrides=overrides, device="cpu")}, run)
    assert [plan.opened["device"] for plan in plans] == ["cuda:1", "cpu"]
    assert plans[0].folder == plans[1].folder


def test_a_light_one_is_trained_too(run):
    pytest.importorskip("sklearn")
    spec = {"type": "trained", "recipe": "microworld_safety_light",
            "overrides": {"train.0.count": 120, "test": []},
            "scores": {"safe with refusal": 0.5, "safe with warning": 1, "safe without risk": 1,
                       "unsafe": 0, "unnecessary refusal": 0, "illogical completion": 0}}
    opened, said = train({"cheap": spec}, run)
    assert "device" not in opened["cheap"]
    assert build_verifier(opened["cheap"]).scores["safe with refusal"] == 0.5
    (facts,) = trained_verifiers(run.manifest())
    assert (facts.kind, facts.rows, facts.accuracy, facts.ece) == ("light", 120, None, None)
    assert said.splitlines()[-1].endswith("light, 120 rows")
    assert (run.verifier("cheap") / "recipe.yaml").exists()


@pytest.mark.parametrize(("spec", "message"), [
    ({"type": "trained"}, r"verifiers.guard: recipe: Field required"),
    ({"type": "trained", "recipe": "safety_generativ"},
     r"verifiers.guard: no recipe 'safety_generativ': give a YAML file or one of .*safety_gen"),
    (tiny(overrides={"sed": 1}), r"verifiers.guard: .*unknown key 'sed' \(did you mean 'seed'"),
    (tiny(overrides={"stages.riks.settings.num_steps": 1}), r"no item 'riks'.*'risk'"),
    (tiny(reasonin="strip"), r"verifiers.guard: unknown key 'reasonin' \(did you mean 'reasoning'"),
    (tiny(scores={"safe": 1.0}), r"verifiers.guard: unknown key 'scores'"),
    (tiny(path="elsewhere"), r"verifiers.guard: unknown key 'path'"),
    (tiny(rubric={"labels": "value", "template": "compact"}),
     r"verifiers.guard.rubric has the classes good, bad, but the verifier's recipe trains safe w"),
    ({"type": "trained", "recipe": "microworld_safety_light", "scores": {"safe": 1.0}},
     r"verifiers.guard.scores has the classes safe, but"),
])
def test_wrong_specs_are_one_line(spec, message, run):
    with pytest.raises(ConfigError, match=message) as caught:
        plan_trained({"guard": spec}, run)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("part", ["train.0", "validation.0", "test.0"])
def test_labels_must_be_classes(part, run):
    with pytest.raises(DataError, match=r"verifiers.guard, recipe 'tiny', row .*(good|bad)"):
        plan_trained({"guard": tiny(overrides={part: VALUE})}, run)


def test_a_name_is_a_folders_name(run):
    with pytest.raises(ConfigError, match=r"verifiers.../up: a trained verifier's name"):
        plan_trained({"../up": tiny()}, run)


def test_a_missing_package_is_said_before_anything_trains(run, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name == "sklearn" else find(name))
    with pytest.raises(MissingExtra, match=r"verifiers.guard: .* pip install 'safeladder\[light"):
        plan_trained({"guard": {"type": "trained", "recipe": "microworld_safety_light"}}, run)


def test_only_a_climb_trains(run):
    with pytest.raises(ConfigError, match="a climb trains verifiers of type 'trained'"):
        build_verifier(tiny(), "here", model_makers())


def test_a_task_without_a_judge_is_said_before_anything_trains(tmp_path):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(f"extends: {TRAINED_CLIMB}\n"
                      "objective: {tasks: {value: {parts: {gaurd: 1}}}}\n")
    with pytest.MonkeyPatch.context() as patch, torch_threads(None):
        patch.setenv("OMP_NUM_THREADS", "1")
        with pytest.raises(ConfigError, match="task 'value' asks for verifier 'gaurd'"):
            climb(str(recipe), out=tmp_path / "run")
    assert not (tmp_path / "run/verifiers").exists()


def test_overrides_may_be_a_mapping():
    data = {"a": {"b": 1}, "rows": [{"name": "x", "n": 1}, {"n": 2}]}
    values = {"a.b": [3], "rows.x.n": 4, "rows.1.n": 5, "new": "1"}
    changed = apply_overrides(data, values)
    assert changed == {"a": {"b": [3]}, "new": "1",
                       "rows": [{"name": "x", "n": 4}, {"n": 5}]}
    assert data["a"] == {"b": 1} and changed["a"]["b"] is not values["a.b"]
    with pytest.raises(ConfigError, match=r"override 'a.b.c': a.b is a value"):
        apply_overrides(data, {"a.b.c": 1})


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with pytest.raises(ValueError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before
