"""Users' functions in TRL's and verl's form run unchanged, in workers and in this process."""

import asyncio

import pytest

from safeladder.errors import ConfigError
from safeladder.types import Group
from safeladder.verifiers import (
    Isolated,
    VerifyPolicy,
    build_objective,
    build_verifier,
    build_verifiers,
    check,
    check_routes,
    close_verifiers,
    verify_all,
)
from safeladder.verifiers.cases import Case, trajectory_of


def judged(spec, *rows):
    verifiers = build_verifiers({"mine": spec})
    objective = build_objective({"tasks": {"*": {"parts": {"mine": 1}}}})
    groups = [Group(row.prompt, [row]) for row in rows]
    asyncio.run(verify_all(groups, verifiers, objective, VerifyPolicy(max_abstentions=1)))
    close_verifiers(verifiers)
    return [row.verdicts["mine"] for row in rows]


@pytest.mark.parametrize("isolate", [None, {"workers": 1}])
def test_trl_conversational(isolate):
    spec = {"type": "trl", "path": "reward_functions:by_length", "isolate": isolate}
    verdicts = judged(spec, trajectory_of("four"), trajectory_of(""))
    assert verdicts[0].score == 4.0
    assert (verdicts[1].score, verdicts[1].verdict_class) == (None, "not_applicable")


def test_trl_in_process_sees_the_batch_and_its_columns():
    spec = {"type": "trl", "path": "reward_functions:centred", "isolate": None,
            "conversational": False}
    rows = [trajectory_of("a", 10, {"level": 0.5}), trajectory_of("bbb", 20)]
    # lengths 1 and 3, mean 2: -1 + 10 + 0.5 and 1 + 20
    assert [verdict.score for verdict in judged(spec, *rows)] == [9.5, 21.0]


@pytest.mark.parametrize(("function", "error"), [
    ("one_too_few", "ValueError: reward_functions:one_too_few returned 1 scores for 2"),
    ("not_a_number", "the function returned nan")])
def test_trl_functions_that_break_their_word_abstain(function, error):
    spec = {"type": "trl", "path": f"reward_functions:{function}", "isolate": None}
    for verdict in judged(spec, trajectory_of("a"), trajectory_of("b")):
        assert verdict.score is None
        assert verdict.error.startswith(error)


@pytest.mark.parametrize("isolate", [None, {"workers": 1}])
def test_verl_gets_the_response_alone_and_may_return_a_dict(isolate):
    spec = {"type": "verl", "path": "reward_functions:detailed", "isolate": isolate}
    row = trajectory_of("Paris", "Paris", {"split": "train"}, user="Where?", source="geo")
    (verdict,) = judged(spec, row)
    assert (verdict.score, verdict.parts) == (1.0, {"length": 5.0})


def test_verl_functions_with_fewer_arguments_and_async_ones():
    row = trajectory_of("in Paris", "Paris")
    spec = {"type": "verl", "isolate": None}
    assert judged({**spec, "path": "reward_functions:two_arguments"}, row)[0].score == 1.0
    assert judged({**spec, "path": "reward_functions:waits"}, row)[0].score == 0.25


def test_own_gold_cases_are_checked_the_same_way():
    verifier = build_verifier(
        {"type": "verl", "path": "reward_functions:two_arguments", "isolate": None})
    cases = [Case("good", "in Paris", 1.0, "Paris"), Case("bad", "in Rome", 1.0, "Paris"),
             Case("hostile", "Paris", 0.5, "Paris"), Case("good", "x", 1.0, None)]
    failures = check(verifier, cases)
    assert len(failures) == 3
    assert "'in Rome': score 0.0, expected 1.0" in failures[0]
    assert "hostile case 'Paris': score 1.0" in failures[1]
    assert "abstained (TypeError" in failures[2]
    with pytest.raises(ValueError, match="at least one good and one bad"):
        check(verifier)


@pytest.mark.parametrize(("spec", "message"), [
    ({"type": "logic_lr"}, r"v: no verifier type 'logic_lr' \(did you mean 'logic_rl'\?\)"),
    ({}, "no verifier type None"),
    ({"type": "logic_rl", "min_think_word": 2}, "did you mean 'min_think_words'"),
    ({"type": "verl"}, "path"),
    ({"type": "verl", "path": "nothing"}, "expected package.module:function"),
    ({"type": "verl", "path": "os;x:y"}, "expected package.module:function"),
    ({"type": "verl", "path": "no_such_module:f"}, "no module 'no_such_module'"),
    ({"type": "verl", "path": "reward_functions:nope", "isolate": None}, "nope"),
    ({"type": "verl", "path": "reward_functions:ACTIONS", "isolate": None}, "not a function"),
    ({"type": "math", "isolate": {"workers": 0}}, "isolate.workers"),
    ({"type": "numeric", "where": ["anywhere"]}, "where"),
])
def test_a_wrong_spec_is_one_clear_line(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_verifier(spec, "v")


def test_names_come_from_the_recipe_and_routes_are_checked_before_the_run():
    verifiers = build_verifiers({"kk": {"type": "logic_rl"}, "aime": {"type": "numeric"}})
    assert {key: verifier.name for key, verifier in verifiers.items()} == {
        "kk": "kk", "aime": "aime"}
    objective = build_objective({"tasks": {"logic": {"parts": {"kk": 1}},
                                           "math": {"parts": {"amc": 1}}}})
    check_routes(["logic"], objective, verifiers)
    with pytest.raises(ConfigError, match=r"task 'math' asks for verifier 'amc' \(known: kk, aime"):
        check_routes(["logic", "math"], objective, verifiers)
    with pytest.raises(ConfigError, match="no entry for task 'safety'"):
        check_routes(["safety"], objective, verifiers)


def test_heavy_rules_are_isolated_unless_told_otherwise():
    with build_verifier({"type": "math"}) as verifier:
        assert isinstance(verifier, Isolated)
    assert not isinstance(build_verifier({"type": "math", "isolate": None}), Isolated)
