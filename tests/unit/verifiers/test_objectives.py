"""Objectives that see the batch or learn: every formula by hand."""

import json
import math
from pathlib import Path

import pytest
import yaml

from safeladder.config import validate
from safeladder.errors import ConfigError
from safeladder.ladder.judges import judge_makers
from safeladder.ladder.recipe import Recipe, load_recipe
from safeladder.ladder.recipe_files import dump_recipe
from safeladder.types import Group, Verdict
from safeladder.verifiers import build_objective, build_verifiers, check_routes, close_verifiers
from safeladder.verifiers.base import abstention, not_applicable
from safeladder.verifiers.cases import trajectory_of


def group(*rows, task="t"):
    """A group whose trajectories have these verdicts: a mapping verifier -> score, or Verdict."""
    made = []
    for scores in rows:
        row = trajectory_of("", task=task)
        row.verdicts = {name: s if isinstance(s, Verdict) else Verdict(name, s)
                        for name, s in scores.items()}
        made.append(row)
    return Group(made[0].prompt, made)


def totals(objective, *groups):
    return [[reward.total for reward in rewards] for rewards in objective.rewards(groups)]


PLAIN = {"tasks": {"*": {"parts": {"a": 1, "b": 2}}}}
GDPO = {"type": "gdpo", "eps": 1e-12, **PLAIN}
ROOT = math.sqrt(0.5)  # std over n - 1 of two scores that differ by 1 is sqrt(1/2)


def test_gdpo_normalises_each_part_in_its_group_then_the_sum_over_the_batch():
    one = group({"a": 0.0, "b": 3.0}, {"a": 1.0, "b": 3.0})     # a alone differs: -+ROOT
    two = group({"a": 7.0, "b": 0.0}, {"a": 7.0, "b": 400.0})   # b alone, weight 2: -+2 ROOT
    # mean 0; squares 0.5, 0.5, 2, 2 over 3: std sqrt(5/3)
    std = math.sqrt(5 / 3)
    got = totals(build_objective(GDPO), one, two)
    assert got == [[pytest.approx(-ROOT / std), pytest.approx(ROOT / std)],
                   [pytest.approx(-2 * ROOT / std), pytest.approx(2 * ROOT / std)]]


def test_gdpo_tells_better_in_two_parts_from_better_in_one():
    objective = build_objective({**GDPO, "tasks": {"*": {"parts": {"a": 1, "b": 1}}}})
    one = group({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 0.0})
    both = group({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0})
    (_, small), (_, large) = totals(objective, one, both)
    assert large == pytest.approx(2 * small)


def test_gdpo_without_differences_is_exactly_zero():
    flat = group({"a": 0.1, "b": 0.7}, {"a": 0.1, "b": 0.7}, {"a": 0.1, "b": 0.7})
    assert totals(build_objective(GDPO), flat, group({"a": 5.0, "b": 1.0})) == [[0, 0, 0], [0]]


def test_gdpo_leaves_the_unjudged_out_of_every_mean():
    rows = [{"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, {"a": 100.0, "b": abstention("b", "gone")}]
    (got,) = totals(build_objective(GDPO), group(*rows))
    assert got == [pytest.approx(-ROOT), pytest.approx(ROOT), None]
    stood_in = build_objective({**GDPO, "tasks": {"*": {"parts": {
        "a": 0, "b": {"weight": 1, "stand_in": 2.0}}}}})
    (got,) = totals(stood_in, group(*rows))  # b: 1, 1, 2 has mean 4/3 and std sqrt(1/3)
    assert got == pytest.approx([-1 / math.sqrt(3), -1 / math.sqrt(3), 2 / math.sqrt(3)])


def test_gdpo_skips_a_part_that_does_not_apply():
    rows = group({"a": 0.0, "b": not_applicable("b", "n/a")}, {"a": 1.0, "b": 0.0},
                 {"a": 0.5, "b": 1.0})
    # a: mean 1/2, std 1/2: -1, 1, 0; b over two rows: -ROOT, ROOT, weight 2
    sums = [-1.0, 1 - 2 * ROOT, 2 * ROOT]
    std = math.sqrt(sum(s * s for s in sums) / 2)
    assert totals(build_objective(GDPO), rows) == [pytest.approx([s / std for s in sums])]


def test_gdpo_keeps_plain_parts_and_refuses_gates():
    (rewards,) = build_objective(GDPO).rewards([group({"a": 0.0, "b": 3.0}, {"a": 1.0, "b": 3.0})])
    assert [reward.parts for reward in rewards] == [{"a": 0.0, "b": 3.0}, {"a": 1.0, "b": 3.0}]
    with pytest.raises(ConfigError, match="has gates"):
        build_objective({**GDPO, "tasks": {"t": {"parts": {"a": 1}, "gates": {
            "b": {"minimum": 1, "otherwise": 0}}}}})


FLOOR = {"type": "floor", "base": PLAIN, "score": "s", "minimum": 0.5, "cap": -1.0}


@pytest.mark.parametrize(("scores", "total"), [
    ({"a": 1.0, "b": 1.0, "s": 0.5}, 3.0),            # on the floor is enough
    ({"a": 1.0, "b": 1.0, "s": 0.4}, -1.0),           # 3 capped
    ({"a": 1.0, "b": -2.0, "s": 0.4}, -3.0),          # worse than the cap stays worse
    ({"a": 1.0, "b": 1.0, "s": abstention("s", "gone")}, None),
    ({"a": abstention("a", "gone"), "b": 1.0, "s": 0.0}, None),
    ({"a": 1.0, "b": 1.0, "s": not_applicable("s", "n/a")}, 3.0),
])
def test_below_the_floor_nothing_earns_more_than_the_cap(scores, total):
    objective = build_objective(FLOOR)
    assert totals(objective, group(scores)) == [[total]]
    assert objective.verifiers("t") == ("a", "b", "s")


def test_a_floor_may_hold_for_some_tasks_only():
    objective = build_objective({**FLOOR, "tasks": ["other"]})
    assert objective.verifiers("t") == ("a", "b")
    assert totals(objective, group({"a": 1.0, "b": 1.0})) == [[3.0]]


def constrained(**settings):
    return build_objective({"type": "constrained", "base": PLAIN, "constraints": {
        "s": {"threshold": 0.8, "initial": 0.5, "rate": 2.0, "smoothing": 0.75, **settings}}})


LOW = group({"a": 1.0, "b": 1.0, "s": 0.2}, {"a": 1.0, "b": 1.0, "s": 0.4})   # mean 0.3
HIGH = group({"a": 1.0, "b": 1.0, "s": 1.0}, {"a": 1.0, "b": 1.0, "s": 1.0})


def test_the_constraint_adds_its_price_and_stays_frozen_within_a_batch():
    objective = constrained()
    for _ in range(3):  # reward, validation, another rollout: nothing moves
        assert totals(objective, LOW) == [
            pytest.approx([3 + 0.5 * (0.2 - 0.8), 3 + 0.5 * (0.4 - 0.8)])]
    assert objective.rewards([LOW])[0][0].parts == {"a": 1.0, "b": 1.0, "s": 0.2}


def test_the_multiplier_follows_the_violation():
    objective = constrained()
    figures = objective.update([LOW])
    # the first mean is the batch's: violation 0.8 - 0.3 = 0.5, lambda 0.5 e^(2 * 0.5)
    assert figures == pytest.approx({
        "constraint/s/multiplier": 0.5, "constraint/s/mean": 0.3,
        "constraint/s/moving_mean": 0.3, "constraint/s/violation": 0.5})
    assert totals(objective, LOW)[0][0] == pytest.approx(3 + 0.5 * math.e * (0.2 - 0.8))
    figures = objective.update([HIGH])
    # moving mean 0.75 * 0.3 + 0.25 * 1 = 0.475, violation 0.325
    assert figures == pytest.approx({
        "constraint/s/multiplier": 0.5 * math.e, "constraint/s/mean": 1.0,
        "constraint/s/moving_mean": 0.475, "constraint/s/violation": 0.325})
    assert objective.update([])["constraint/s/multiplier"] == pytest.approx(
        0.5 * math.e * math.exp(2 * 0.325))
    # nothing judged: it stands where it stood
    assert objective.update([]) == objective.update([group({"s": abstention("s", "gone")})])


def test_the_multiplier_is_bounded():
    objective = constrained(rate=100.0, minimum=0.2, maximum=0.9)
    objective.update([LOW])
    assert objective.update([HIGH])["constraint/s/multiplier"] == 0.9
    for _ in range(20):
        objective.update([HIGH])
    assert objective.update([HIGH])["constraint/s/multiplier"] == 0.2
    with pytest.raises(ConfigError, match="minimum <= initial <= maximum"):
        constrained(initial=9.0)


def test_the_multiplier_is_restored_to_the_bit():
    objective, other = constrained(), constrained()
    objective.update([LOW])
    objective.update([HIGH])
    other.load_state_dict(json.loads(json.dumps(objective.state_dict())))
    assert totals(other, LOW, HIGH) == totals(objective, LOW, HIGH)
    assert other.update([LOW]) == objective.update([LOW])
    with pytest.raises(KeyError):
        other.load_state_dict({})


def test_a_copy_begins_where_it_was_taken_and_learns_alone():
    objective = constrained()
    copy = objective.model_copy(deep=True)
    objective.update([LOW])
    assert copy.update([])["constraint/s/multiplier"] == 0.5


def test_unjudged_and_inapplicable_under_a_constraint():
    objective = constrained()
    gone = group({"a": 1.0, "b": 1.0, "s": abstention("s", "gone")})
    free = group({"a": 1.0, "b": 1.0, "s": not_applicable("s", "n/a")})
    assert totals(objective, gone, free) == [[None], [3.0]]
    assert objective.verifiers("t") == ("a", "b", "s")
    assert constrained(tasks=["other"]).verifiers("t") == ("a", "b")
    assert totals(constrained(tasks=["other"]), gone) == [[3.0]]


def test_objectives_nest_and_pass_on_what_they_learn():
    inner = {"type": "constrained", "base": GDPO, "constraints": {"s": {"threshold": 1.0}}}
    objective = build_objective({**FLOOR, "base": inner})
    rows = group({"a": 0.0, "b": 1.0, "s": 1.0}, {"a": 1.0, "b": 1.0, "s": 0.0})
    # gdpo -+ROOT; constraint adds 0.3 (s - 1); the floor then caps the second at -1
    assert totals(objective, rows) == [pytest.approx([-ROOT, -1.0])]
    before = objective.state_dict()
    assert "constraint/s/multiplier" in objective.update([rows])
    assert objective.state_dict() != before


def test_monitors_are_asked_and_shown_but_not_rewarded():
    spec = {"tasks": {"*": {"parts": {"a": 1}, "monitor": ["b", "c.x"]}}}
    objective = build_objective(spec)
    assert objective.verifiers("t") == ("a", "b", "c")
    (got,), = objective.rewards([group({"a": 2.0, "b": abstention("b", "gone"),
                                        "c": Verdict("c", 1.0, parts={"x": 0.5})})])
    assert (got.total, got.parts, got.monitor) == (2.0, {"a": 2.0}, {"b": None, "c.x": 0.5})
    with pytest.raises(ConfigError, match=r"monitor 'a\.x' is rewarded too"):
        build_objective({"tasks": {"*": {"parts": {"a": 1}, "monitor": ["a.x"]}}})


@pytest.mark.parametrize(("spec", "message"), [
    ({"type": "gpdo", **PLAIN}, "no objective type 'gpdo' .did you mean 'gdpo'"),
    ({**FLOOR, "base": {"tasks": {}}}, "tasks"),
    ({**FLOOR, "base": {"type": "x", **PLAIN}}, "no such type of objective"),
    ({**FLOOR, "cpa": 1}, "did you mean 'cap'"),
])
def test_a_wrong_objective_is_one_clear_line(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_objective(spec)


def test_a_recipe_holds_any_objective_and_reads_back_what_it_writes(tmp_path):
    recipe = load_recipe("first_climb", [])
    spec = {"type": "constrained", "base": {**FLOOR, "base": GDPO},
            "constraints": {"s": {"threshold": 0.5}}}
    data = {**recipe.model_dump(mode="json"), "objective": spec}
    changed = validate(Recipe, data, "recipe")
    assert changed.objective == build_objective(spec)
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(changed))
    assert load_recipe(str(path), []).objective == changed.objective
    with pytest.raises(ConfigError, match="set it to 'judge' or 'exclude'"):
        validate(Recipe, {**data, "verify": {"truncated": -1.0}}, "recipe")


def test_the_recipes_of_the_documentation_build():
    text = (Path(__file__).parents[3] / "docs" / "verifiers.md").read_text()
    shipped, nested = (yaml.safe_load(block.split("```")[0])
                       for block in text.split("```yaml\n")[2:4])
    verifiers = build_verifiers(shipped["verifiers"], makers=judge_makers())
    objective = build_objective(shipped["objective"])
    check_routes(shipped["objective"]["tasks"], objective, verifiers)
    assert objective.verifiers("knowledge") == ("format", "knowledge", "helpful")
    assert objective.verifiers("safety") == ("format", "safety")
    close_verifiers(verifiers)
    asked = build_objective(nested["objective"]).verifiers("any")
    assert asked == ("format", "helpful", "second_opinion", "safety")
