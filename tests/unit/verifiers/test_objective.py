"""The reward's formula, by hand."""

from pathlib import Path

import pytest
import yaml

from safeladder.errors import ConfigError
from safeladder.types import Verdict
from safeladder.verifiers import (
    VerifyPolicy,
    build_objective,
    build_verifiers,
    check_routes,
    close_verifiers,
)
from safeladder.verifiers.base import abstention, not_applicable
from safeladder.verifiers.cases import trajectory_of


def reward(spec, *verdicts, task="t"):
    row = trajectory_of("", task=task)
    row.verdicts = {verdict.verifier: verdict for verdict in verdicts}
    return build_objective({"tasks": {"t": spec}}).reward(row)


A, B = Verdict("a", 2.0), Verdict("b", -1.5, parts={"x": 0.5, "y": -2.0})


def test_a_weighted_sum_with_unweighted_parts():
    got = reward({"parts": {"a": 3, "b": {"weight": -2}}}, A, B)
    assert got.total == 3 * 2.0 + -2 * -1.5
    assert got.parts == {"a": 2.0, "b": -1.5}


def test_parts_of_a_score_are_reported_by_their_own_names():
    got = reward({"parts": {"b.x": 1, "b.y": 2}}, B)
    assert got.total == 0.5 + 2 * -2.0
    assert got.parts == {"x": 0.5, "y": -2.0}


def test_a_required_part_unjudged_leaves_no_total():
    got = reward({"parts": {"a": 1, "b": 1}}, A, abstention("b", "gone"))
    assert got.total is None
    assert got.parts == {"a": 2.0, "b": None}
    got = reward({"parts": {"a": 1, "b.x": 1}}, A, abstention("b", "gone"))
    assert got.total is None


def test_an_optional_part_has_a_stand_in_that_is_weighted_but_not_reported():
    spec = {"parts": {"a": 1, "b": {"weight": 4, "stand_in": 0.25}}}
    got = reward(spec, A, abstention("b", "gone"))
    assert got.total == 2.0 + 4 * 0.25
    assert got.parts == {"a": 2.0, "b": None}
    assert reward(spec, A, B).total == 2.0 + 4 * -1.5


def test_a_part_that_does_not_apply_drops_out():
    assert reward({"parts": {"a": 1, "b": 1}}, A, not_applicable("b", "n/a")).total == 2.0
    assert reward({"parts": {"b": 1}}, not_applicable("b", "n/a")).total is None


def test_gates_decide_first_and_in_order():
    spec = {"parts": {"a": 1}, "gates": {"b.x": {"minimum": 0.5, "otherwise": -3},
                                         "b.y": {"minimum": 0, "otherwise": -1}}}
    assert reward(spec, A, B).total == -1
    assert reward(spec, A, Verdict("b", 0.0, parts={"x": 0.4, "y": -2.0})).total == -3
    assert reward(spec, A, Verdict("b", 0.0, parts={"x": 0.5, "y": 0.0})).total == 2.0
    assert reward(spec, A, abstention("b", "gone")).total is None
    # a closed gate needs no judge behind it
    assert reward(spec, abstention("a", "gone"), B).total == -1


def test_gates_ask_for_their_verifiers():
    objective = build_objective({"tasks": {"t": {
        "parts": {"a": 1, "b.x": 1}, "gates": {"format": {"minimum": 1, "otherwise": 0}}}}})
    assert objective.verifiers("t") == ("format", "a", "b")


@pytest.mark.parametrize(("spec", "message"), [
    ({"tasks": {}}, "tasks"),
    ({"tasks": {"t": {"parts": {}}}}, "parts"),
    ({"tasks": {"t": {"parts": {"a": 1}, "gate": {}}}}, "did you mean 'gates'"),
    ({"tasks": {"t": {"parts": {"a": {"wieght": 1}}}}}, "did you mean 'weight'"),
    ({"tasks": {"t": {"parts": {"a": float("nan")}}}}, "finite"),
    ({"tasks": {"t": {"parts": {"a.x": 1, "b.x": 1}}}}, "two parts are named 'x'"),
])
def test_a_wrong_recipe_is_one_clear_line(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_objective(spec, "objective")


def test_an_unknown_part_names_the_ones_there_are():
    with pytest.raises(ConfigError, match=r"'b' has no part 'z' \(it has: x, y\)"):
        reward({"parts": {"b.z": 1}}, B)


def test_the_recipe_of_the_documentation_builds():
    text = (Path(__file__).parents[3] / "docs" / "verifiers.md").read_text()
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    recipe["verifiers"]["mine"]["path"] = "os.path:exists"
    verifiers = build_verifiers(recipe["verifiers"])
    objective = build_objective(recipe["objective"])
    check_routes(["logic", "math", "safety"], objective, verifiers)
    assert VerifyPolicy(**recipe["verify"]) == VerifyPolicy()
    close_verifiers(verifiers)
