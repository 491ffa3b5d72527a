"""Prompts to groups of trajectories: sampler and environment take turns.

Failure is data: a sampler or an environment that fails ends a trajectory with a status and the
reason. It is neither raised nor turned into an empty response.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from safeladder.engine.base import Sampler, SamplingParams
from safeladder.envs.base import Environment, Episode, StepResult
from safeladder.errors import DataError, SamplingError, ToolError
from safeladder.render.renderer import RenderedPrompt, Renderer
from safeladder.rollout.seeds import derive_seed
from safeladder.types import Completion, Group, Message, Prompt, Status, Trajectory, Turn

Argument = TypeVar("Argument")
Result = TypeVar("Result")


async def rollout(
    sampler: Sampler, renderer: Renderer, env: Environment, prompts_P: Sequence[Prompt],
    group_size: int, params: SamplingParams,
    on_trajectory: Callable[[Trajectory], None] | None = None,
) -> list[Group]:
    """Return one group of ``group_size`` trajectories per prompt, in the order of the prompts.

    A group's first turn is one call with ``n = group_size``: its prompt is encoded once. Seeds:
    the first turn of the k-th occurrence of a prompt id uses ``derive_seed(params.seed, id, k)``,
    row i its stream i; turn t > 0 of row i uses ``derive_seed(params.seed, id, k, i, t)``. So a
    trajectory does not depend on its neighbours. The caller changes ``params.seed`` from step to
    step. Empty ``params.stop_token_ids`` are filled in by the renderer.

    ``on_trajectory`` is called once per trajectory, as soon as it ends.

    Raises:
        DataError, ModelError: a prompt cannot be rendered; the message names it.
        StaleSampler: the sampler belongs to weights that have moved on.
    """
    if not params.stop_token_ids:
        params = replace(params, stop_token_ids=renderer.stop_token_ids)
    seen: Counter[str] = Counter()
    jobs = []
    for prompt in prompts_P:
        key = (params.seed, prompt.id, seen[prompt.id])
        seen[prompt.id] += 1
        job = _GroupRollout(sampler, renderer, env, prompt, params, key, on_trajectory)
        jobs.append(job.run(group_size))
    return await _all_or_none(jobs)


def failures(groups: Iterable[Group]) -> Counter[Status]:
    """How many trajectories ended with each error status."""
    return Counter(t.status for group in groups for t in group.trajectories if t.status.is_error)


class _Failed(Exception):
    """Ends a trajectory; never leaves this module."""

    def __init__(self, status: Status, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.status = status


class _State(NamedTuple):
    """What a row's next response continues."""

    rendered: RenderedPrompt
    completion: Completion


@dataclass(frozen=True)
class _GroupRollout:
    """The rollout of one prompt."""

    sampler: Sampler
    renderer: Renderer
    env: Environment
    prompt: Prompt
    params: SamplingParams
    seed_key: tuple[int | str, ...]
    on_trajectory: Callable[[Trajectory], None] | None

    async def run(self, group_size: int) -> Group:
        try:
            shown = await self._environment(self.env.reset, self.prompt)
            rendered = self.renderer.render(shown)
            completions = await self._sample(rendered, group_size, derive_seed(*self.seed_key))
        except _Failed as failed:
            rows = [self._end((), failed.status, str(failed)) for _ in range(group_size)]
            return Group(self.prompt, rows)
        return Group(self.prompt, await _all_or_none([
            self._row(i, Episode(shown), _State(rendered, completion))
            for i, completion in enumerate(completions)]))

    async def _row(self, row: int, episode: Episode, state: _State) -> Trajectory:
        turns: list[Turn] = []
        try:
            for number in range(1, self.env.max_turns + 1):
                turns.append(self._turn(state))
                if state.completion.finish_reason == "length":
                    return self._end(turns, Status.TRUNCATED_LENGTH)
                result = await self._step(episode, turns)
                if result.done:
                    return self._end(turns, Status.COMPLETED)
                if number < self.env.max_turns:
                    state = await self._go_on(state, result, derive_seed(
                        *self.seed_key, row, number))
        except _Failed as failed:
            return self._end(turns, failed.status, str(failed))
        return self._end(turns, Status.TRUNCATED_TURNS)

    def _turn(self, state: _State) -> Turn:
        rendered, completion = state
        if self.renderer.sampled_image_token(completion):
            # a forward pass over it would look for an image that is not there
            raise _Failed(Status.ERROR_SAMPLER, SamplingError("the model emitted an image token"))
        return Turn(prompt_ids=rendered.token_ids, completion=completion, media=rendered.media,
                    response=self.renderer.response_text(rendered, completion))

    async def _step(self, episode: Episode, turns: list[Turn]) -> StepResult:
        episode.messages.append(Message("assistant", turns[-1].response))
        result = await self._environment(self.env.step, episode)
        episode.messages.extend(result.messages)
        turns[-1] = replace(turns[-1], environment_messages=result.messages)
        return result

    async def _go_on(self, state: _State, result: StepResult, seed: int) -> _State:
        try:
            rendered = self.renderer.continue_turn(
                state.rendered, state.completion.token_ids, result.messages, result.media)
        except DataError as error:
            raise _Failed(Status.ERROR_ENVIRONMENT, error) from error
        return _State(rendered, (await self._sample(rendered, 1, seed))[0])

    async def _sample(self, rendered: RenderedPrompt, n: int, seed: int) -> list[Completion]:
        params = replace(self.params, seed=seed)
        try:
            completions = await self.sampler.sample(rendered.token_ids, params, n, rendered.media)
            if len(completions) != n:
                raise SamplingError(f"asked for {n} completions, got {len(completions)}")
        except SamplingError as error:
            raise _Failed(Status.ERROR_SAMPLER, error) from error
        return completions

    async def _environment(
        self, verb: Callable[[Argument], Awaitable[Result]], argument: Argument,
    ) -> Result:
        """The one border behind which an environment's errors, whatever they are, become data."""
        try:
            return await verb(argument)
        except ToolError as error:
            raise _Failed(Status.ERROR_TOOL, error) from error
        except Exception as error:
            raise _Failed(Status.ERROR_ENVIRONMENT, error) from error

    def _end(self, turns: Sequence[Turn], status: Status, error: str | None = None) -> Trajectory:
        trajectory = Trajectory(self.prompt, tuple(turns), status, error=error)
        if self.on_trajectory is not None:
            self.on_trajectory(trajectory)
        return trajectory


async def _all_or_none(jobs: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results in order; the first error ends the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
