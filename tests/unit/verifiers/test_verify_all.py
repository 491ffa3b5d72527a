"""Routing, failure as data, time limits, counts and the abstention threshold."""

import asyncio

import pytest

from safeladder.errors import ConfigError, MissingExtra, TooManyAbstentions
from safeladder.types import Group, Reward, Status, Verdict
from safeladder.verifiers import VerifyPolicy, build_objective, verify_all
from safeladder.verifiers.base import not_applicable
from safeladder.verifiers.cases import trajectory_of


class Length:
    """A rule: the response's length; raises on 'raise'."""

    def __init__(self, name="length"):
        self.name = name
        self.seen = []

    def verify(self, trajectory):
        self.seen.append(trajectory.response)
        if trajectory.response == "raise":
            raise ValueError("two\nlines")
        if trajectory.response == "config":
            raise ConfigError("wrong key")
        if trajectory.response == "extra":
            raise MissingExtra("x", "y", "z")
        if trajectory.response == "number":
            return 1.0
        if trajectory.response == "inapplicable":
            return not_applicable(self.name, "nothing to say")
        return Verdict(self.name, float(len(trajectory.response)))


class Waits:
    """Awaited: sleeps for as many seconds as the response says."""

    name = "waits"

    def __init__(self):
        self.running = self.most = 0

    async def verify(self, trajectory):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(float(trajectory.response))
        finally:
            self.running -= 1
        if trajectory.response == "0.001":
            raise TimeoutError("the endpoint was too slow")
        return Verdict(self.name, 1.0)


class Batch:
    """Judges all at once: distance to the mean length."""

    name = "batch"

    async def verify_many(self, trajectories):
        lengths = [len(t.response) for t in trajectories]
        if "short" in [t.response for t in trajectories]:
            lengths.pop()
        if "slow" in [t.response for t in trajectories]:
            await asyncio.sleep(60)
        mean = sum(lengths) / len(lengths)
        return [Verdict(self.name, length - mean) for length in lengths]


def rows_of(*responses, **fields):
    return [trajectory_of(response, **fields) for response in responses]


def run(rows, *verifiers, policy=None, objective=None):
    groups = [Group(row.prompt, [row]) for row in rows]
    objective = objective or {"tasks": {"*": {"parts": {v.name: 1 for v in verifiers}}}}
    return asyncio.run(verify_all(groups, {v.name: v for v in verifiers},
                                  build_objective(objective), policy))


def test_tasks_are_routed_to_their_verifiers_only():
    logic, safety, anything = rows_of("aa", task="logic")[0], *rows_of("b", "ccc", task="safety")
    other = trajectory_of("dddd", task="other")
    one, two, three = Length("one"), Length("two"), Length("three")
    report = run([logic, safety, anything, other], one, two, three, objective={"tasks": {
        "logic": {"parts": {"one": 2}}, "safety": {"parts": {"one": 1, "two": 10}},
        "*": {"parts": {"three": 1}}}})
    assert (one.seen, two.seen, three.seen) == (["aa", "b", "ccc"], ["b", "ccc"], ["dddd"])
    assert [row.reward.total for row in (logic, safety, anything, other)] == [4, 11, 33, 4]
    assert set(logic.verdicts) == {"one"}
    assert {name: tally.judged for name, tally in report.verifiers.items()} == {
        "one": 3, "two": 2, "three": 1}


def test_an_exception_is_an_abstention_of_that_row_alone():
    rows = rows_of("a", "raise", "ccc", "number")
    report = run(rows, Length())
    assert [row.reward.total for row in rows] == [1, None, 3, None]
    assert rows[1].verdicts["length"].score is None
    assert rows[1].verdicts["length"].error == "ValueError: two lines"
    assert "expected a Verdict, the verifier returned float" in rows[3].verdicts["length"].error
    assert report.counts()["abstentions/length"] == 2
    assert report.unrewarded == 2


def test_errors_of_the_set_up_are_no_abstentions():
    with pytest.raises(ConfigError, match="wrong key"):
        run(rows_of("a", "config"), Length())
    with pytest.raises(MissingExtra):
        run(rows_of("extra"), Length())
    with pytest.raises(ConfigError, match=r"no entry for task 'x' \(known: y\)"):
        run(rows_of("a", task="x"), Length(), objective={"tasks": {"y": {"parts": {"length": 1}}}})
    with pytest.raises(ConfigError, match=r"asks for verifier 'other'; known: length"):
        run(rows_of("a"), Length(), objective={"tasks": {"*": {"parts": {"other": 1}}}})


def test_a_failed_trajectory_is_not_judged():
    rows = rows_of("a", "bb")
    rows[0].status = Status.ERROR_SAMPLER
    rows[0].verdicts = {"stale": Verdict("stale", 1.0)}
    verifier = Length()
    report = run(rows, verifier)
    assert verifier.seen == ["bb"]
    assert (rows[0].reward, rows[0].verdicts) == (Reward(None), {})
    assert (report.failed, report.trajectories, report.unrewarded) == (1, 2, 1)


@pytest.mark.parametrize(("truncated", "reward", "judged"), [
    ("judge", 2.0, 2), ("exclude", None, 1), (-3, -3.0, 1)])
def test_truncation_follows_the_policy(truncated, reward, judged):
    rows = rows_of("aa", "b")
    rows[0].status = Status.TRUNCATED_LENGTH
    verifier = Length()
    report = run(rows, verifier, policy=VerifyPolicy(truncated=truncated))
    assert rows[0].reward.total == reward
    assert len(verifier.seen) == judged
    assert (report.truncated, report.unrewarded) == (1, int(reward is None))


def test_awaited_verdicts_have_a_time_limit_and_run_together():
    rows = rows_of("0.002", "60", "0.001", *["0.003"] * 6)
    verifier = Waits()
    run(rows, verifier, policy=VerifyPolicy(time_limit=0.2, concurrency=4))
    assert rows[0].reward.total == 1
    assert rows[1].verdicts["waits"].error == "time limit 0.2 s"
    assert rows[2].verdicts["waits"].error == "TimeoutError: the endpoint was too slow"
    assert verifier.most == 4


def test_a_batch_verifier_sees_all_its_rows_and_fails_for_all_of_them():
    rows = rows_of("a", "bbb")
    run(rows, Batch())
    assert [row.reward.total for row in rows] == [-1, 1]
    rows = rows_of("a", "short")
    run(rows, Batch())
    assert {row.verdicts["batch"].error for row in rows} == {
        "ValueError: 1 verdicts for 2 trajectories"}
    rows = rows_of("a", "slow")
    run(rows, Batch(), policy=VerifyPolicy(time_limit=0.05))
    assert {row.verdicts["batch"].error for row in rows} == {"time limit 0.1 s"}


def test_too_many_abstentions_stop_the_run_with_the_reasons():
    rows = rows_of(*["raise"] * 3, *["a"] * 7)
    lenient = VerifyPolicy(max_abstentions=0.3, min_abstentions=1)
    run(rows, Length(), policy=lenient)
    strict = VerifyPolicy(max_abstentions=0.29, min_abstentions=1)
    with pytest.raises(TooManyAbstentions, match=r"'length' could not judge 3 of 10 trajectories "
                                                 r"\(allowed: 29%\): ValueError: two lines \(3x\)"):
        run(rows, Length(), policy=strict)
    assert all(row.reward is not None for row in rows)
    run(rows, Length(), policy=VerifyPolicy(max_abstentions=0, min_abstentions=4))


def test_one_data_source_alone_can_stop_the_run():
    harmful = rows_of("raise", "raise", "raise", "a", source="harmful")
    rows = [*harmful, *rows_of(*["a"] * 96, source="harmless")]
    policy = VerifyPolicy(max_abstentions=0.1, min_abstentions=3)
    with pytest.raises(TooManyAbstentions, match=r"on source 'harmful' could not judge 3 of 4"):
        run(rows, Length(), policy=policy)
    report = run(rows, Length(), policy=VerifyPolicy(max_abstentions=0.75, min_abstentions=1))
    counts = report.counts()
    assert counts["abstentions/length/harmful"] == 3
    assert "abstentions/length/harmless" not in counts


def test_not_applicable_is_no_abstention():
    rows = rows_of("inapplicable", "a")
    report = run(rows, Length(), policy=VerifyPolicy(max_abstentions=0, min_abstentions=1))
    assert rows[0].reward.total is None
    assert report.counts()["not_applicable/length"] == 1
    assert report.counts()["abstentions/length"] == 0


def test_judging_again_starts_from_nothing():
    rows = rows_of("a")
    run(rows, Length("one"))
    run(rows, Length("two"))
    assert set(rows[0].verdicts) == {"two"}


def test_no_groups_no_verdicts():
    assert run([], Length()).trajectories == 0
