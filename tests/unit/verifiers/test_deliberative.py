"""Deliberative search: the verifier's parts, the reward's four cells, lambda over batches."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from safeladder.config import validate
from safeladder.errors import ConfigError, DataError
from safeladder.ladder.recipe import Recipe, load_recipe
from safeladder.ladder.recipe_files import dump_recipe
from safeladder.types import Completion, Group, Message, Prompt, Status, Trajectory, Turn, Verdict
from safeladder.verifiers import build_objective, build_verifier
from safeladder.verifiers.base import abstention
from safeladder.verifiers.cases import trajectory_of
from safeladder.verifiers.objective import normalises

VERIFIER = build_verifier({"type": "deliberative"})
TOLD = (Message("tool", "<information> x </information>"),)


def said(answer="Sil", confidence=8):
    return f"<think>so</think> <confidence> {confidence} </confidence> <answer> {answer} </answer>"


def episode(*responses, reference="Sil", told=TOLD, status=Status.COMPLETED):
    """A trajectory of several turns; the environment answered all but the last."""
    blank = Completion((), np.zeros(0, np.float32), "stop", 0)
    turns = [Turn((), blank, text, environment_messages=told if i < len(responses) - 1 else ())
             for i, text in enumerate(responses)]
    return Trajectory(Prompt("p", (Message("user", "?"),), reference, task="search"),
                      tuple(turns), status)


@pytest.mark.parametrize(("answer", "confidence", "right", "certain", "reliable", "brier"), [
    ("Sil", 10, 1, 1, 1, 0.0),
    ("Sil", 6, 1, 1, 1, 0.16),     # (0.6 - 1)^2
    ("Sil", 5, 1, 0, 0, 0.25),     # the tie is uncertain
    ("Ond", 5, 0, 0, 1, 0.25),
    ("Ond", 6, 0, 1, 0, 0.36),     # 0.6^2
    ("Ond", 0, 0, 0, 1, 0.0),
])
def test_the_parts_of_the_four_cells(answer, confidence, right, certain, reliable, brier):
    verdict = VERIFIER.verify(trajectory_of(said(answer, confidence), "Sil"))
    assert verdict.parts == {
        "format": 1, "accuracy": right, "certain": certain, "reliability": reliable,
        "brier": pytest.approx(brier), "confidence": confidence}
    assert verdict.score == pytest.approx(0.1 + 0.9 * right)
    assert verdict.verdict_class == ("correct" if right else "wrong")


def test_zeta_moves_the_line():
    strict = build_verifier({"type": "deliberative", "zeta": 8})
    parts = strict.verify(trajectory_of(said("Sil", 8), "Sil")).parts
    assert (parts["certain"], parts["reliability"]) == (0, 0)
    with pytest.raises(ConfigError, match="zeta"):
        build_verifier({"type": "deliberative", "zeta": 10})


def test_every_turn_must_be_well_formed_and_the_last_an_answer():
    search = "<think> so </think> <search> Aldor </search>"
    good = VERIFIER.verify(episode(search, said()))
    assert good.score == 1.0
    ill = [episode(search), episode("search Aldor", said()), episode(said(), said()), episode(),
           episode(search, said()[:-9], status=Status.TRUNCATED_LENGTH)]
    for row in ill:
        verdict = VERIFIER.verify(row)
        assert verdict.verdict_class == "bad_format" and verdict.score == 0.0
        assert verdict.parts == {"format": 0, "accuracy": 0, "certain": 0, "reliability": 0,
                                 "brier": 1}


def test_the_microworld_says_what_is_right_and_doubt_belongs_into_the_confidence():
    world = build_verifier({"type": "deliberative", "correctness": {"type": "microworld"}})
    reference = {"family": "knowledge", "answer": "Sil", "relation": "river", "town": "Aldor"}

    def accuracy(answer):
        return world.verify(trajectory_of(said(answer), reference)).parts["accuracy"]

    assert accuracy("Sil") == accuracy("it is Sil .") == 1
    assert accuracy("maybe it is Sil .") == accuracy("I do not know .") == accuracy("Ond") == 0
    lenient = build_verifier({"type": "deliberative", "right_from": 0.5,
                              "correctness": {"type": "microworld"}})
    verdict = lenient.verify(trajectory_of(said("maybe it is Sil ."), reference))
    assert verdict.parts["accuracy"] == 1
    with pytest.raises(DataError, match="needs a family"):
        world.verify(trajectory_of(said(), "Sil"))


# ---- the reward ----

CELLS = {"right certain": ("Sil", 9), "right uncertain": ("Sil", 2),
         "wrong uncertain": ("Ond", 2), "wrong certain": ("Ond", 9)}
OBJECTIVE = {"type": "deliberative"}


def judged(*cells, task="search"):
    rows = []
    for answer, confidence in cells:
        row = trajectory_of(said(answer, confidence), "Sil", task=task)
        row.verdicts = {"deliberative": VERIFIER.verify(row)}
        rows.append(row)
    return Group(rows[0].prompt, rows)


def malformed():
    row = trajectory_of("Sil", "Sil", task="search")
    row.verdicts = {"deliberative": VERIFIER.verify(row)}
    return row


def totals(objective, *groups):
    return [[reward.total for reward in rewards] for rewards in objective.rewards(groups)]


def multiplier(objective):
    return objective.state_dict()["multiplier"]["value"]


@pytest.mark.parametrize(("settings", "expected"), [
    # lambda 0.3: right certain 0.1 + 0.9 + 0.3, right uncertain 1, wrong uncertain 0.1 + 0.3
    ({}, [1.3, 1.0, 0.4, 0.1]),
    # signed, lambda 0.15: 1 + 0.15, 1 - 0.15, 0.1 + 0.15, 0.1 - 0.15 < 0
    ({"reliability": "signed"}, [1.15, 0.85, 0.25, 0.0]),
    # lambda 0.08: 0.1 - 0.08 is above the floor
    ({"reliability": "signed", "initial": 0.08}, [1.08, 0.92, 0.18, 0.02]),
    # lambda 0.2, beta 0.1: 0.1 - 0.2 + 0.1 (1 - 0.81) < 0
    ({"reliability": "signed", "initial": 0.2, "brier": 0.1},
     [1.2 + 0.099, 0.8 + 0.036, 0.3 + 0.096, 0.0]),
    ({"multiplier": "fixed", "initial": 0}, [1.0, 1.0, 0.1, 0.1]),
    # beta 0.2, lambda 0.3: 1 - brier is 1 - 0.01, 1 - 0.64, 1 - 0.04, 1 - 0.81
    ({"brier": 0.2}, [1.3 + 0.198, 1.0 + 0.072, 0.4 + 0.192, 0.1 + 0.038]),
])
def test_the_rewards_of_the_four_cells(settings, expected):
    objective = build_objective({**OBJECTIVE, **settings})
    assert totals(objective, judged(*CELLS.values())) == [pytest.approx(expected)]


@pytest.mark.parametrize("price", [0.01, 0.1, 0.25, 0.44])
def test_garbage_is_never_better_than_an_answer(price):
    objective = build_objective({**OBJECTIVE, "reliability": "signed", "initial": price,
                                 "multiplier": "fixed"})
    rows = judged(*CELLS.values())
    rows.trajectories.append(malformed())
    ((*cells, garbage),) = totals(objective, rows)
    assert garbage == 0 and min(cells) >= garbage


def test_with_the_floor_certain_pays_from_a_bit_below_one_half():
    """p (rc - ru) = (1 - p) (wu - 0): p 0.5 = (1 - p) 0.35 at lambda 0.25, so p = 0.35 / 0.85."""
    objective = build_objective({**OBJECTIVE, "reliability": "signed", "initial": 0.25})
    ((rc, ru, wu, wc),) = totals(objective, judged(*CELLS.values()))
    p = 0.35 / 0.85
    assert p * rc + (1 - p) * wc == pytest.approx(p * ru + (1 - p) * wu)
    assert p == pytest.approx((0.1 + 0.25) / (0.1 + 3 * 0.25))


def test_the_format_gates_everything_and_unjudged_is_no_number():
    objective = build_objective({**OBJECTIVE, "reliability": "signed", "brier": 0.1})
    ill, unjudged = malformed(), malformed()
    unjudged.verdicts = {"deliberative": abstention("deliberative", "gone")}
    (first, second), = objective.rewards([Group(ill.prompt, [ill, unjudged])])
    assert first.total == 0 and first.parts["format"] == 0
    assert second.total is None and set(second.parts.values()) == {None}


def test_failing_on_purpose_pays_exactly_from_the_cap_on():
    """Once uncertain, being right is worth 1 - (0.1 + lambda) = 0.9 - lambda."""
    def worth(price, **settings):
        fixed = build_objective({**OBJECTIVE, "multiplier": "fixed", "initial": price, **settings})
        (row,) = totals(fixed, judged(CELLS["right uncertain"], CELLS["wrong uncertain"]))
        return row[0] - row[1]

    assert worth(0.89, maximum=0.89) == pytest.approx(0.01)
    assert worth(0.44, reliability="signed", maximum=0.44) == pytest.approx(0.02)
    for settings, limit in [({"maximum": 0.9}, "0.9"), ({"maximum": 1.5}, "0.9"),
                            ({"multiplier": "fixed", "initial": 0.95}, "0.9"),
                            ({"reliability": "signed", "maximum": 0.45}, "0.45"),
                            ({"maximum": 0.7, "brier": 0.2}, "0.7"),
                            ({"reliability": "signed", "maximum": 0.3, "brier": 0.3}, "0.3")]:
        with pytest.raises(ConfigError, match=rf"from {limit} on .*failing on purpose pays"):
            build_objective({**OBJECTIVE, **settings})
    build_objective({**OBJECTIVE, "maximum": 0.899})
    build_objective({**OBJECTIVE, "multiplier": "fixed", "initial": 0, "brier": 0.8})
    build_objective({**OBJECTIVE, "reliability": "signed", "maximum": 0.449})
    unchecked = build_objective({**OBJECTIVE, "multiplier": "fixed", "initial": 0.5})
    unchecked._state.value = 0.95  # what a cap above 0.9 would allow
    (row,) = totals(unchecked, judged(CELLS["right uncertain"], CELLS["wrong uncertain"]))
    assert row[0] < row[1]


def test_a_certain_report_pays_exactly_above_one_half():
    """Expected reward of certain minus uncertain at P(right) = p: lambda (2p - 1)."""
    objective = build_objective({**OBJECTIVE, "initial": 0.2})
    ((rc, ru, wu, wc),) = totals(objective, judged(*CELLS.values()))
    for p in (0.0, 0.25, 0.5, 0.75, 1.0):
        gain = p * (rc - ru) + (1 - p) * (wc - wu)
        assert gain == pytest.approx(0.2 * (2 * p - 1))


def test_lambda_over_three_batches_by_hand():
    objective = build_objective({**OBJECTIVE, "threshold": 0.8, "rate": 0.5, "smoothing": 0.75})
    half = judged(CELLS["right certain"], CELLS["wrong certain"])     # mean 0.5
    half.trajectories.append(malformed())                             # no part of the mean
    full = judged(CELLS["right certain"], CELLS["wrong uncertain"])   # mean 1
    # e = 0.5, violation 0.3: 0.3 exp(0.15)
    first = objective.update([half])
    assert first == {
        "lambda": 0.3, "reliability/mean": 0.5, "reliability/moving_mean": 0.5,
        "reliability/violation": pytest.approx(0.3), "deliberation/certain": pytest.approx(2 / 3),
        "deliberation/false_certain": pytest.approx(1 / 3)}
    one = 0.3 * math.exp(0.15)
    assert multiplier(objective) == pytest.approx(one)
    # e = 0.75 * 0.5 + 0.25 * 1 = 0.625, violation 0.175: times exp(0.0875)
    second = objective.update([full])
    assert second["lambda"] == pytest.approx(one)
    assert second["reliability/moving_mean"] == pytest.approx(0.625)
    two = one * math.exp(0.0875)
    assert multiplier(objective) == pytest.approx(two)
    # nothing well formed: lambda and mean stay
    ill = malformed()
    assert objective.update([Group(ill.prompt, [ill])]) == {
        "lambda": pytest.approx(two), "deliberation/certain": 0, "deliberation/false_certain": 0}
    # e = 0.75 * 0.625 + 0.25 = 0.71875, violation 0.08125
    objective.update([full])
    assert multiplier(objective) == pytest.approx(two * math.exp(0.5 * 0.08125))


def test_lambda_stays_within_its_bounds_and_frozen_within_a_batch():
    objective = build_objective({**OBJECTIVE, "rate": 50, "smoothing": 0, "threshold": 0.5})
    bad, good = judged(CELLS["wrong certain"]), judged(CELLS["right certain"])
    before = totals(objective, bad, good)
    assert totals(objective, bad, good) == before  # rewarding changes nothing
    objective.update([bad])
    assert multiplier(objective) == 0.5
    objective.update([good])
    assert multiplier(objective) == 0.01
    objective.update([bad])
    assert multiplier(objective) == 0.5  # the floor is above 0, so it can grow again


def test_a_fixed_multiplier_is_observed_and_never_moves():
    objective = build_objective({**OBJECTIVE, "multiplier": "fixed", "initial": 0})
    figures = objective.update([judged(CELLS["wrong certain"])])
    assert figures["lambda"] == 0 and figures["reliability/violation"] == pytest.approx(0.85)
    assert multiplier(objective) == 0
    with pytest.raises(ConfigError, match="multiplier: fixed"):
        build_objective({**OBJECTIVE, "initial": 0})
    with pytest.raises(ConfigError, match="minimum <= initial <= maximum"):
        build_objective({**OBJECTIVE, "initial": 0.4, "maximum": 0.3})


def test_resumed_it_goes_on_with_equal_bits():
    batches = [judged(CELLS["wrong certain"]), judged(*CELLS.values()),
               judged(CELLS["right certain"], CELLS["wrong uncertain"])]
    whole, first = build_objective(OBJECTIVE), build_objective(OBJECTIVE)
    for batch in batches:
        whole.update([batch])
    first.update([batches[0]])
    resumed = build_objective(OBJECTIVE)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for batch in batches[1:]:
        resumed.update([batch])
    assert resumed.state_dict() == whole.state_dict()
    with pytest.raises(KeyError):
        resumed.load_state_dict({"multipliers": {}})


def test_other_tasks_have_their_own_objective():
    spec = {**OBJECTIVE, "tasks": ["search"], "otherwise": {
        "tasks": {"logic": {"parts": {"logic": 2}}}}}
    objective = build_objective(spec)
    assert objective.verifiers("search") == ("deliberative",)
    assert objective.verifiers("logic") == ("logic",)
    row = trajectory_of("x", task="logic")
    row.verdicts = {"logic": Verdict("logic", 0.5)}
    logic = Group(row.prompt, [row])
    assert totals(objective, logic, judged(CELLS["right certain"]), logic) == [
        [1.0], [pytest.approx(1.3)], [1.0]]
    assert objective.update([logic]) == {"lambda": 0.3}
    with pytest.raises(ConfigError, match="both tasks and otherwise"):
        build_objective({**OBJECTIVE, "tasks": ["search"]})
    assert not normalises(objective)
    gdpo = {"type": "gdpo", "tasks": {"*": {"parts": {"logic": 1}}}}
    assert normalises(build_objective({**spec, "otherwise": gdpo}))


def test_a_recipe_names_it_and_a_rung_may_have_its_own():
    data = yaml.safe_load(dump_recipe(load_recipe("first_climb", [])))
    data["verifiers"]["deliberative"] = {"type": "deliberative"}
    data["objective"] = {"type": "deliberative"}
    data["rungs"][-1]["objective"] = {"type": "deliberative", "multiplier": "fixed", "initial": 0}
    recipe = validate(Recipe, data, "recipe")
    assert recipe.objective_of(recipe.rungs[0]).start == 0.3
    assert recipe.objective_of(recipe.rungs[-1]).start == 0


@pytest.mark.parametrize(("objective", "message"), [
    ({"type": "deliberative", "verifier": "logic_rl"}, "'logic_rl' is of type 'logic_rl'"),
    ({"type": "deliberative"}, "'deliberative' is none of the recipe"),
    ({"type": "floor", "score": "logic_rl", "minimum": 0, "cap": 0,
      "base": {"type": "deliberative"}}, "'deliberative' is none of the recipe")])
def test_a_recipe_whose_verifier_cannot_judge_an_episode_is_refused(objective, message):
    data = yaml.safe_load(dump_recipe(load_recipe("first_climb", [])))
    whole = {**data, "objective": objective}
    data["rungs"][-1]["objective"] = objective
    for recipe in (whole, data):
        with pytest.raises(ConfigError, match=message):
            validate(Recipe, recipe, "recipe")


def test_deliberative_objectives_are_not_nested():
    inner = {"type": "deliberative", "verifier": "other"}
    for otherwise in (inner, {"type": "floor", "score": "other", "minimum": 0, "cap": 0,
                              "base": inner}):
        with pytest.raises(ConfigError, match="otherwise must not be deliberative again"):
            build_objective({**OBJECTIVE, "tasks": ["search"], "otherwise": otherwise})


def test_the_recipe_of_the_documentation_is_valid():
    page = Path(__file__).parents[3] / "docs" / "rungs" / "deliberative_search_rl.md"
    spec = yaml.safe_load(page.read_text().split("```yaml\n")[1].split("```")[0])
    recipe = validate(Recipe, {
        "name": "page", "model": {"type": "checkpoint", "path": "nowhere"}, **spec}, "page")
    assert [recipe.objective_of(rung).start for rung in recipe.rungs] == [0.3, 0.0, 0.3]
    assert [spec.type for spec in recipe.environments] == [
        "search", "search", "search", "single_turn"]
