"""What a climb checks before anything trains, and how its rungs are judged."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from safeladder.config import validate
from safeladder.engine.fake import ByteTokenizer, FakeSampler
from safeladder.errors import ConfigError, TooManyAbstentions
from safeladder.eval.statistics import Estimate
from safeladder.ladder.build import Judge
from safeladder.ladder.figures import figure_names
from safeladder.ladder.recipe import Recipe
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.rungs import Climber, RungWork
from safeladder.ladder.traces import TraceKey, write_traces
from safeladder.render import Renderer
from safeladder.types import Prompt, Trajectory
from safeladder.verifiers import build_verifier, build_verifiers
from safeladder.verifiers.base import abstention

SEARCH = Path(__file__).parents[2] / "e2e" / "search.yaml"


def spec() -> dict[str, Any]:
    return dict(yaml.safe_load(SEARCH.read_text()))


def climber(data: dict[str, Any], folder: Path) -> Climber:
    recipe = validate(Recipe, data, "recipe")
    run = RunDir(folder / "run")
    run.open("", resume=False, manifest={})
    judge = Judge(build_verifiers(recipe.verifiers), recipe.objective, recipe.verify)
    return Climber(recipe, run, judge, [], None, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("failed", "stops"), [((1, 2), True), ((1,), False)])
def test_an_evaluation_that_lost_its_episodes_is_not_done(failed, stops, tmp_path):
    data = {**spec(), "verify": {"min_abstentions": 2, "max_abstentions": 0.5}}
    work = RungWork(climber(data, tmp_path), None, None, None)  # type: ignore[arg-type]
    work.__dict__["renderer"] = Renderer(ByteTokenizer())
    sampler = FakeSampler.scripted(lambda prompt: "Sil", fail_on_calls=failed)
    if not stops:
        assert asyncio.run(work._validate(sampler, 0))["accuracy"] == 0
        return
    with pytest.raises(TooManyAbstentions, match="2 of 3 rollouts failed"):
        asyncio.run(work._validate(sampler, 0))


def test_figures_of_confidence_may_go_without_the_name_of_their_set(tmp_path):
    data = spec()
    (chosen,) = data["evaluation"]["sets"]
    logic = {"name": "test", "data": [{"type": "microworld", "family": "logic", "split": "test",
                                       "count": 2}]}
    data["evaluation"]["sets"] = [logic, {**chosen, "name": "search", "split": "test"}]
    opened = climber(data, tmp_path / "split")
    names = figure_names(opened.test_sets, [0.0, 1.0])
    assert {"accuracy", "reliability", "false_certain", "coverage", "auroc", "ece", "accuracy_t1",
            "false_certain_tier_known", "tokens_per_answer", "tokens_per_answer_search",
            "microworld_search_accuracy_t1_search"} <= names
    assert "accuracy_search" not in names and "microworld_search_accuracy" not in names
    data["rungs"][-1]["gates"] = [{"figure": "false_certain", "maximum": 0.5}]
    climber(data, tmp_path / "gate").check_gates()


def test_two_figures_of_one_name_are_refused(tmp_path):
    data = spec()
    (chosen,) = data["evaluation"]["sets"]
    data["evaluation"]["sets"] = [chosen, {**chosen, "name": "again", "split": "test"}]
    opened = climber(data, tmp_path)
    with pytest.raises(ConfigError, match="two figures are named 'accuracy'; give the sets other"):
        opened.check_gates()
    data["evaluation"]["sets"] = [{"name": "test", "split": "x", "data": [
        {"type": "microworld", "family": "logic", "split": "test", "count": 2}]}]
    with pytest.raises(ConfigError, match="split is for figures of stated confidence"):
        validate(Recipe, data, "recipe")


@pytest.mark.parametrize(("place", "key", "message"), [
    (("evaluation", "sets", 0), "environment", "set 'test' asks search_questions"),
    (("evaluation",), "validation_environment", "evaluation.validation asks search_questions"),
    (("rungs", 1), "environment", "rung 'deliberative_rl' asks search_questions")])
def test_questions_to_search_for_need_where_to_search(place, key, message):
    data: Any = spec()
    part = data
    for step in place:
        part = part[step]
    del part[key]
    questions = part["validation" if key == "validation_environment" else "data"]
    for asked in (questions[0], {"type": "split", "of": questions[0], "part": "a",
                                 "fractions": {"a": 1.0}}):
        questions[0] = asked
        with pytest.raises(ConfigError, match=f"{message}, so its environment must be of type s"):
            validate(Recipe, data, "recipe")


def test_questions_are_asked_in_no_edition_that_the_environment_has_not():
    data: Any = spec()
    data["rungs"][1]["data"][0]["editions"] = 3
    data["rungs"][1]["environment"]["editions"] = 2
    with pytest.raises(ConfigError, match="rung 'deliberative_rl' asks in 3 editions, but its "
                       "environment has 2"):
        validate(Recipe, data, "recipe")
    data["rungs"][1]["environment"]["editions"] = 3
    validate(Recipe, data, "recipe")


def answered(run, rung, confidence):
    """Leave an evaluation of one wrong answer with a confidence."""
    prompt = Prompt("p", (), "Sil", task="search")
    row = Trajectory.finished(prompt, "<think> so </think> <confidence> "
                              f"{confidence} </confidence> <answer> Ond </answer>")
    row.verdicts = {"deliberative": build_verifier({"type": "deliberative"}).verify(row)}
    write_traces(run.traces, TraceKey(rung, -1, "test", 0.0), [row])
    return [row]


def test_the_matched_baseline_is_the_start_or_the_rung_that_is_named(tmp_path):
    """The start was unjudged, so that it is told from the other arm by its n."""
    data = spec()
    del data["rungs"][-1]["compare_with"]
    start = climber(data, tmp_path / "start")
    data["rungs"][-1]["compare_with"] = "deliberative_rl"
    named = climber(data, tmp_path / "named")
    for opened, n in ((start, 0), (named, 1)):
        ours = answered(opened.run, "deliberative_rl", 9)
        (row,) = answered(opened.run, "warm_up", 9)
        row.verdicts = {"deliberative": abstention("deliberative", "gone")}
        write_traces(opened.run.traces, TraceKey("warm_up", -1, "test", 0.0), [row])
        work = RungWork(opened, opened.recipe.rungs[-1], None, None)  # type: ignore[arg-type]
        found = work._matched(ours, opened.recipe.evaluation.sets[0], 0.0)
        assert found == {
            "false_certain_baseline_matched": Estimate(1.0 if n else None, n, None, 1 - n),
            "false_certain_minus_matched": Estimate(
                0.0 if n else None, n, None, 1 - n, clusters=n)}
    for other in ("warm_ups", "unconstrained"):
        data["rungs"][-1]["compare_with"] = other
        with pytest.raises(ConfigError, match=f"compared with '{other}', but no rung of that name"):
            validate(Recipe, data, "recipe")


OTHER = {"tasks": {"knowledge": {"parts": {"deliberative": 1}}}}


def test_every_task_needs_somebody_who_judges_it_before_anything_trains(tmp_path):
    climber(spec(), tmp_path / "as it is").check_tasks()
    data = {**spec(), "objective": OTHER}
    with pytest.raises(ConfigError, match="objective: no entry for task 'search'"):
        climber(data, tmp_path / "evaluation").check_tasks()
    data = spec()
    data["rungs"][-1]["objective"] = OTHER
    with pytest.raises(ConfigError, match="objective: no entry for task 'search'"):
        climber(data, tmp_path / "training").check_tasks()
    data = spec()
    data["evaluation"]["validation"].append({"type": "microworld", "family": "logic",
                                             "split": "validation", "count": 1})
    data["objective"] |= {"tasks": ["search"], "otherwise": {
        "tasks": {"*": {"parts": {"logic": 1}}}}}
    with pytest.raises(ConfigError, match="task 'logic' asks for verifier 'logic'"):
        climber(data, tmp_path / "validation").check_tasks()
