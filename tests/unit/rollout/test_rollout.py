import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from safeladder.engine.base import Capability, SamplingParams
from safeladder.engine.fake import ByteTokenizer, FakeSampler, TableModel
from safeladder.envs import Episode, SingleTurn, StepResult
from safeladder.errors import DataError, SamplingError, StaleSampler, ToolError
from safeladder.render import Renderer
from safeladder.rollout import derive_seed, failures, rollout
from safeladder.types import Completion, Media, Message, Prompt, Status, Trajectory

TOKENS = ByteTokenizer()
RENDERER = Renderer(TOKENS)
PARAMS = SamplingParams(max_tokens=40, seed=3)


def prompt(name: str, text: str | None = None) -> Prompt:
    return Prompt(id=name, messages=(Message("user", text or f"ask {name}"),), reference=name)


def run(sampler: Any, env: Any, prompts: Sequence[Prompt], group_size: int = 2,
        params: SamplingParams = PARAMS, **more: Any) -> Any:
    return asyncio.run(rollout(sampler, RENDERER, env, prompts, group_size, params, **more))


def table_sampler() -> FakeSampler:
    table = np.random.default_rng(0).normal(size=(len(TOKENS), len(TOKENS))) * 3
    return FakeSampler(TableModel(table))


@dataclass(frozen=True)
class Recorder:
    """Passes calls on and remembers them."""

    inner: FakeSampler
    calls: list[tuple[tuple[int, ...], SamplingParams, int]]

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.inner.capabilities

    @property
    def policy_version(self) -> int:
        return self.inner.policy_version

    async def sample(self, prompt_ids: Sequence[int], params: SamplingParams, n: int = 1,
                     media: Sequence[Media] = ()) -> list[Completion]:
        self.calls.append((tuple(prompt_ids), params, n))
        return await self.inner.sample(prompt_ids, params, n, media)


def test_a_single_turn_group_with_all_its_fields() -> None:
    sampler = FakeSampler.scripted({"ask a": ["one", "two"], "ask b": "three"})
    groups = run(sampler, SingleTurn(), [prompt("a"), prompt("b")], group_size=3)
    assert [group.prompt.id for group in groups] == ["a", "b"]
    assert [len(group.trajectories) for group in groups] == [3, 3]
    trajectory = groups[1].trajectories[0]
    (turn,) = trajectory.turns
    assert TOKENS.decode(turn.prompt_ids) == "<|user|>ask b<|end|><|assistant|>"
    assert turn.completion.token_ids == (*b"three", TOKENS.eos_token_id)
    assert (turn.response, trajectory.response) == ("three", "three")
    assert (trajectory.status, trajectory.error) == (Status.COMPLETED, None)
    assert trajectory.prompt.reference == "b"
    assert {t.response for t in groups[0].trajectories} <= {"one", "two"}


def test_a_group_is_one_call_and_stops_come_from_the_renderer() -> None:
    recorder = Recorder(FakeSampler.scripted({"": "x"}), [])
    run(recorder, SingleTurn(), [prompt("a"), prompt("b")], group_size=5)
    assert [n for _, _, n in recorder.calls] == [5, 5]
    assert all(params.stop_token_ids == (TOKENS.eos_token_id,)
               for _, params, _ in recorder.calls)
    run(recorder, SingleTurn(), [prompt("a")], params=replace(PARAMS, stop_token_ids=(7,)))
    assert recorder.calls[-1][1].stop_token_ids == (7,)


def tokens_by_prompt(groups: Any) -> dict[str, list[tuple[int, ...]]]:
    return {g.prompt.id: [t.turns[0].completion.token_ids for t in g.trajectories] for g in groups}


def test_a_trajectory_depends_on_its_seed_and_prompt_not_on_its_neighbours() -> None:
    alone = tokens_by_prompt(run(table_sampler(), SingleTurn(), [prompt("b")]))
    among = tokens_by_prompt(
        run(table_sampler(), SingleTurn(), [prompt("a"), prompt("b"), prompt("c")], group_size=4))
    assert among["b"][:2] == alone["b"]
    other = run(table_sampler(), SingleTurn(), [prompt("b")], params=replace(PARAMS, seed=4))
    assert tokens_by_prompt(other) != alone


def test_equal_texts_and_repeated_prompts_get_streams_of_their_own() -> None:
    twice = run(table_sampler(), SingleTurn(), [prompt("a"), prompt("a"), prompt("z", "ask a")])
    first, second, third = ([t.turns[0].completion.token_ids for t in g.trajectories]
                            for g in twice)
    assert len({*first, *second, *third}) == 6


def test_seeds_are_fixed_numbers() -> None:
    # recorded once: a change of these numbers would break every resumed run
    assert derive_seed(3, "a", 0) == 3321476376187342
    assert derive_seed(3, "a", 0, 1, 1) != derive_seed(3, "a", 0, 11)
    assert derive_seed(1, "1") != derive_seed("1", 1)
    assert 0 <= derive_seed(0) < 2**53


@dataclass(frozen=True)
class Quiz:
    """Asks again until the answer is ``yes``; refuses as told."""

    max_turns: int = 3
    trouble: Callable[[Episode], None] = lambda episode: None

    async def reset(self, prompt: Prompt) -> Prompt:
        return replace(prompt, messages=(Message("system", "rules"), *prompt.messages))

    async def step(self, episode: Episode) -> StepResult:
        self.trouble(episode)
        episode.state["asked"] = episode.state.get("asked", 0) + 1
        if episode.response == "yes":
            return StepResult()
        again = Message("tool", f"again {episode.state['asked']}")
        return StepResult((again,), done=False)


def test_turns_go_on_token_by_token() -> None:
    sampler = FakeSampler.scripted({"ask a": "no", "again 1": "maybe", "again 2": "yes"})
    (group,) = run(sampler, Quiz(), [prompt("a")])
    for trajectory in group.trajectories:
        assert trajectory.status is Status.COMPLETED
        assert [t.response for t in trajectory.turns] == ["no", "maybe", "yes"]
        assert [tuple(m.text for m in t.environment_messages) for t in trajectory.turns] == [
            ("again 1",), ("again 2",), ()]
        for before, after in zip(trajectory.turns, trajectory.turns[1:], strict=False):
            said = before.prompt_ids + before.completion.token_ids
            assert after.prompt_ids[:len(said)] == said
        assert TOKENS.decode(trajectory.turns[1].prompt_ids) == (
            "<|system|>rules<|end|><|user|>ask a<|end|><|assistant|>no<|end|>"
            "<|tool|>again 1<|end|><|assistant|>")
        assert trajectory.num_tokens == len("no" "maybe" "yes") + 3
        assert trajectory.prompt == prompt("a")


def test_an_environment_sees_all_that_was_said() -> None:
    seen: list[list[str]] = []
    env = Quiz(trouble=lambda episode: seen.append([m.text for m in episode.messages]))
    sampler = FakeSampler.scripted({"ask a": "no", "again 1": "maybe", "again 2": "yes"})
    run(sampler, env, [prompt("a")], group_size=1)
    assert seen == [["no"], ["no", "again 1", "maybe"],
                    ["no", "again 1", "maybe", "again 2", "yes"]]


def test_rows_of_a_group_keep_their_episodes_apart() -> None:
    sampler = FakeSampler.scripted({"ask a": ["yes", "no"], "again 1": ["yes", "no"],
                                    "again 2": "yes"})
    (group,) = run(sampler, Quiz(), [prompt("a")], group_size=24)
    lengths = {len(t.turns) for t in group.trajectories}
    assert lengths == {1, 2, 3}
    # rows that said the same so far still go on from streams of their own
    second = {t.turns[1].response for t in group.trajectories if len(t.turns) > 1}
    assert second == {"yes", "no"}


def test_limits_are_statuses() -> None:
    never = FakeSampler.scripted({"": "no"})
    (group,) = run(never, Quiz(max_turns=2), [prompt("a")])
    assert {t.status for t in group.trajectories} == {Status.TRUNCATED_TURNS}
    assert [len(t.turns) for t in group.trajectories] == [2, 2]
    (cut,) = run(never, Quiz(), [prompt("a")], params=replace(PARAMS, max_tokens=1))
    assert {t.status for t in cut.trajectories} == {Status.TRUNCATED_LENGTH}
    assert cut.trajectories[0].response == "n"
    assert cut.trajectories[0].turns[0].environment_messages == ()


def test_a_failing_sampler_costs_its_own_group_only() -> None:
    sampler = FakeSampler.scripted({"": "x"}, fail_on_calls=[2])
    bad_then_good = run(sampler, SingleTurn(), [prompt(n) for n in "abc"], group_size=3)
    statuses = [{t.status for t in g.trajectories} for g in bad_then_good]
    assert statuses == [{Status.COMPLETED}, {Status.ERROR_SAMPLER}, {Status.COMPLETED}]
    lost = bad_then_good[1].trajectories
    assert len(lost) == 3
    assert all(t.turns == () and t.response == "" for t in lost)
    assert "told to fail at call 2" in (lost[0].error or "")
    assert failures(bad_then_good) == {Status.ERROR_SAMPLER: 3}


def test_a_later_failure_keeps_the_turns_so_far() -> None:
    sampler = FakeSampler.scripted({"": "no"}, fail_on_calls=[2])
    (group,) = run(sampler, Quiz(), [prompt("a")], group_size=1)
    (trajectory,) = group.trajectories
    assert trajectory.status is Status.ERROR_SAMPLER
    assert [t.response for t in trajectory.turns] == ["no"]


class Few(FakeSampler):
    async def sample(self, *args: Any, **kwargs: Any) -> list[Completion]:
        return (await super().sample(*args, **kwargs))[1:]


def test_missing_completions_are_a_failure_not_a_smaller_group() -> None:
    few = Few(TableModel(np.zeros((len(TOKENS), len(TOKENS)))))
    (group,) = run(few, SingleTurn(), [prompt("a")], group_size=4)
    assert failures([group]) == {Status.ERROR_SAMPLER: 4}
    assert "asked for 4 completions, got 3" in (group.trajectories[0].error or "")


def raising(error: BaseException) -> Callable[[Episode], None]:
    def trouble(episode: Episode) -> None:
        if len(episode.messages) > 1:
            raise error
    return trouble


@pytest.mark.parametrize(("error", "status"), [
    (ToolError("search is down"), Status.ERROR_TOOL),
    (ZeroDivisionError("oops"), Status.ERROR_ENVIRONMENT),
    (SamplingError("a judge inside"), Status.ERROR_ENVIRONMENT),
])
def test_an_environments_error_is_a_status_with_its_reason(
    error: Exception, status: Status,
) -> None:
    (group,) = run(FakeSampler.scripted({"": "no"}), Quiz(trouble=raising(error)), [prompt("a")])
    for trajectory in group.trajectories:
        assert trajectory.status is status
        assert trajectory.error == f"{type(error).__name__}: {error}"
        assert [t.response for t in trajectory.turns] == ["no", "no"]


class BadReset(SingleTurn):
    async def reset(self, prompt: Prompt) -> Prompt:
        raise KeyError("index")


class Forger(SingleTurn):
    async def step(self, episode: Episode) -> StepResult:
        return StepResult((Message("user", ({"type": "image"},)),), done=False)


def test_errors_before_the_first_turn_and_in_the_environments_messages() -> None:
    (group,) = run(FakeSampler.scripted({"": "x"}), BadReset(), [prompt("a")])
    assert failures([group]) == {Status.ERROR_ENVIRONMENT: 2}
    seeing = Renderer(TOKENS, processor=TOKENS, chat_template=(
        "{% for m in messages %}{{ '<|image|>' if m.content is not string else m.content }}"
        "{% endfor %}"))
    (forged,) = asyncio.run(rollout(
        FakeSampler.scripted({"": "x"}), seeing, Forger(max_turns=2), [prompt("a")], 1, PARAMS))
    assert failures([forged]) == {Status.ERROR_ENVIRONMENT: 1}
    assert "image tokens" in (forged.trajectories[0].error or "")


def test_a_sampled_image_token_spoils_the_row_and_says_so() -> None:
    seeing = Renderer(TOKENS, processor=TOKENS)
    sampler = FakeSampler.scripted({"": ["fine", "<|image|>"]})
    (group,) = asyncio.run(rollout(sampler, seeing, SingleTurn(), [prompt("a")], 12, PARAMS))
    by_status = {t.status: t for t in group.trajectories}
    assert set(by_status) == {Status.COMPLETED, Status.ERROR_SAMPLER}
    assert by_status[Status.ERROR_SAMPLER].turns == ()
    assert "image token" in (by_status[Status.ERROR_SAMPLER].error or "")


def test_an_environment_that_is_not_done_must_say_something() -> None:
    with pytest.raises(ValueError, match="needs messages"):
        StepResult(done=False)


def test_every_trajectory_is_reported_once_as_it_ends() -> None:
    ended: list[Trajectory] = []
    sampler = FakeSampler.scripted({"": "x"}, fail_on_calls=[1])
    groups = run(sampler, SingleTurn(), [prompt("a"), prompt("b")], on_trajectory=ended.append)
    assert sorted(map(id, ended)) == sorted(id(t) for g in groups for t in g.trajectories)


def test_what_a_program_did_wrong_is_raised() -> None:
    stale = FakeSampler(TableModel(np.zeros((1, 1))), current_version=lambda: 1)
    with pytest.raises(StaleSampler):
        run(stale, SingleTurn(), [prompt("a")])
    with pytest.raises(DataError, match="prompt 'b': it has no messages"):
        run(FakeSampler.scripted({"": "x"}), SingleTurn(),
            [prompt("a"), Prompt(id="b", messages=())])


class Slow(FakeSampler):
    """Counts how many calls are under way at once."""

    under_way = most = 0

    async def sample(self, *args: Any, **kwargs: Any) -> list[Completion]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.01)
        self.under_way -= 1
        return await super().sample(*args, **kwargs)


def test_all_prompts_are_under_way_at_once() -> None:
    slow = Slow(TableModel(np.zeros((len(TOKENS), len(TOKENS)))))
    run(slow, SingleTurn(), [prompt(str(i)) for i in range(20)])
    assert slow.most == 20


def test_one_bug_ends_all_other_jobs() -> None:
    class Buggy(Slow):
        async def sample(self, *args: Any, **kwargs: Any) -> list[Completion]:
            if "ask 3" in TOKENS.decode(args[0]):
                raise TypeError("a bug")
            await asyncio.sleep(30)
            return []

    buggy = Buggy(TableModel(np.zeros((len(TOKENS), len(TOKENS)))))
    start = time.perf_counter()
    with pytest.raises(TypeError, match="a bug"):
        run(buggy, SingleTurn(), [prompt(str(i)) for i in range(5)])
    assert time.perf_counter() - start < 15
