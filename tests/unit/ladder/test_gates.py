"""Gates: bounds by hand, and which checkpoint stands when a rung does not pass."""

import json
from pathlib import Path

import pytest
from ladder_fixture import TINY_WORLD
from pydantic import ValidationError

from safeladder.config import read_yaml, validate
from safeladder.errors import CheckpointError, ConfigError
from safeladder.eval.statistics import Estimate
from safeladder.ladder.gate_keeper import check_figures, judge_gates, standing_start, start_folder
from safeladder.ladder.gates import Gate, GateOutcome, failures, judge_gate
from safeladder.ladder.recipe import Recipe, attempt_of
from safeladder.ladder.run_dir import RunDir

BEFORE = ("sft", Estimate(0.6, 50, (0.45, 0.73)))


def judged(value: float | None, reference: tuple[str, Estimate] | None = BEFORE,
           **bound: object) -> GateOutcome:
    gate = Gate(figure="safety", **bound)
    return judge_gate(gate, {"safety": Estimate(value, 9, None)}, reference)


@pytest.mark.parametrize(("bound", "value", "passed"), [
    ({"minimum": 0.5}, 0.5, True), ({"minimum": 0.5}, 0.49, False),
    ({"maximum": 0.1}, 0.1, True), ({"maximum": 0.1}, 0.11, False),
    ({"not_below": "sft"}, 0.6, True), ({"not_below": "sft"}, 0.59, False),
    ({"not_below": "sft", "margin": 0.25}, 0.35, True),
    ({"not_below": "sft", "margin": 0.25}, 0.34, False),
    ({"not_below": "previous", "margin": "interval"}, 0.45, True),   # the interval's lower end
    ({"not_below": "previous", "margin": "interval"}, 0.44, False),
    ({"minimum": 0.0}, None, False),                                 # unjudged is no pass
])
def test_bounds(bound: dict[str, object], value: float | None, passed: bool) -> None:
    assert judged(value, **bound).passed is passed


def test_the_reason_is_one_line_that_says_all() -> None:
    assert judged(0.3, minimum=0.5).reason == "safety is 0.3, below the minimum of 0.5"
    assert judged(0.3, maximum=0.1).reason == "safety is 0.3, above the maximum of 0.1"
    low = judged(0.3, not_below="previous", margin="interval")
    assert low.reason == "safety is 0.3, below 0.45, the lower end of sft's interval"
    flat = judged(0.3, ("sft", Estimate(0.5, 9, None)), not_below="sft", margin="interval")
    assert flat.reason == "safety is 0.3, below sft's 0.5 (which has no interval)"
    assert judged(None, minimum=0.5).reason == "safety could not be judged (the minimum of 0.5)"


def test_nothing_to_compare_with_decides_nothing() -> None:
    for reference in (None, ("sft", Estimate(None, 0, None))):
        outcome = judged(0.1, reference, not_below="previous")
        assert outcome.passed is None and outcome.bound is None
        assert failures([outcome]) == []
    assert [o.figure for o in failures([judged(0.1, minimum=0.5)])] == ["safety"]


@pytest.mark.parametrize(("fields", "message"), [
    ({}, "one of minimum, maximum and not_below, has 0"),
    ({"minimum": 0.1, "maximum": 0.2}, "has 2"),
    ({"minimum": 0.1, "margin": 0.2}, "margin goes with not_below"),
    ({"not_below": "a", "margin": -0.2}, "must not be negative"),
    ({"not_below": "a", "margin": "intervall"}, "interval"),
])
def test_a_gate_needs_one_bound(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Gate(figure="safety", **fields)


def ladder(**of_rung: dict[str, object]) -> Recipe:
    """sft, safety_rl, third, fourth; keywords change a rung."""
    data = read_yaml(TINY_WORLD)
    sft = data["rungs"][0]
    data["rungs"] += [{**sft, "name": "third"}, {**sft, "name": "fourth"}]
    data["rungs"] = [{**rung, **of_rung.get(rung["name"], {})} for rung in data["rungs"]]
    return validate(Recipe, data, "ladder")


BELOW = {"figure": "safety", "not_below": "previous"}


@pytest.mark.parametrize(("rungs", "message"), [
    ({"sft": {"gates": [BELOW]}}, "compares with 'previous', but no rung before it is that"),
    ({"sft": {"gates": [{**BELOW, "not_below": "third"}]}}, "no rung before it is that"),
    ({"safety_rl": {"gates": [{**BELOW, "not_below": "sftt"}]}}, "compares with 'sftt'"),
    ({"sft": {"evaluate": False}, "safety_rl": {"gates": [BELOW]}}, "'sft', which is not evaluate"),
    ({"third": {"evaluate": False, "gates": [BELOW]}}, "has gates, so it must be evaluated"),
    ({"third": {"on_failure": "retry"}}, "retry and on_failure: retry go together"),
    ({"third": {"retry": {"attempts": 2}}}, "retry and on_failure: retry go together"),
    ({"third": {"on_failure": "retry", "retry": {"settings": {"num_stps": 2}}}},
     "rung 'third', retry.settings: unknown key 'num_stps' .did you mean 'num_steps'"),
])
def test_what_does_not_fit_is_said_before_anything_trains(
    rungs: dict[str, dict[str, object]], message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        ladder(**rungs)


def test_an_attempt_has_other_settings_and_another_seed() -> None:
    recipe = ladder(third={"on_failure": "retry", "retry": {
        "attempts": 2, "settings": {"num_steps": 3, "optim": {"learning_rate": 0.5}}}})
    rung = recipe.by_name["third"]
    assert attempt_of(rung, 0, 7) is rung
    again = attempt_of(rung, 2, 7)
    assert (again.settings.num_steps, again.settings.optim.learning_rate) == (3, 0.5)
    assert again.settings.optim.muon_learning_rate == rung.settings.optim.muon_learning_rate
    assert recipe.seed_of(again) == 9 and recipe.start_of(again) == "safety_rl"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    folder.open("recipe", resume=False, manifest={})
    return folder


def evaluated(run: RunDir, rung: str, value: float, figure: str = "safety") -> None:
    path = run.evaluation(rung)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({figure: {"value": value, "n": 9, "ci95": [0.1, 0.9]}}))


def test_a_rung_that_failed_gives_way_to_what_it_started_from(run: RunDir) -> None:
    recipe = ladder()
    fourth = recipe.by_name["fourth"]
    assert standing_start(recipe, fourth, run) == "third"
    run.update_rung("third", accepted=False)
    assert standing_start(recipe, fourth, run) == "safety_rl"
    run.update_rung("safety_rl", accepted=False)
    assert standing_start(recipe, fourth, run) == "sft"
    with pytest.raises(CheckpointError, match="starts from 'sft', which left no checkpoint"):
        start_folder(recipe, fourth, run)
    run.update_rung("sft", accepted=False)
    assert standing_start(recipe, fourth, run) is None and start_folder(recipe, fourth, run) is None
    elsewhere = ladder(fourth={"start_from": "/models/x"})
    assert start_folder(elsewhere, elsewhere.by_name["fourth"], run) == "/models/x"


def test_previous_is_the_rung_that_stands(run: RunDir) -> None:
    recipe = ladder(fourth={"gates": [BELOW]})
    fourth = recipe.by_name["fourth"]
    for rung, value in (("sft", 0.2), ("safety_rl", 0.5), ("third", 0.9)):
        evaluated(run, rung, value)
    figures = {"safety": Estimate(0.4, 9, None)}
    assert judge_gates(recipe, fourth, run, figures)[0].bound == 0.9
    run.update_rung("third", accepted=False)
    assert judge_gates(recipe, fourth, run, figures)[0].bound == 0.5
    run.update_rung("safety_rl", accepted=False)
    (outcome,) = judge_gates(recipe, fourth, run, figures)
    assert outcome.bound == 0.2 and outcome.passed
    evaluated(run, "sft", 0.2, "capability")   # no such figure: nothing to be below
    assert judge_gates(recipe, fourth, run, figures)[0].passed is None


def test_a_named_rung_is_compared_with_even_where_it_failed(run: RunDir) -> None:
    recipe = ladder(fourth={"gates": [{**BELOW, "not_below": "third"}]})
    evaluated(run, "third", 0.9)
    run.update_rung("third", accepted=False)
    figures = {"safety": Estimate(0.4, 9, None)}
    assert judge_gates(recipe, recipe.by_name["fourth"], run, figures)[0].passed is False


def test_a_figure_that_no_evaluation_has_is_refused() -> None:
    recipe = ladder(third={"gates": [{"figure": "saftey", "minimum": 0.1}]})
    with pytest.raises(ConfigError, match=r"no figure 'saftey'.*did you mean 'safety'"):
        check_figures(recipe, {"safety", "capability"})
    check_figures(recipe, {"saftey"})
