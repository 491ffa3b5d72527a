"""Evaluate: one judged answer per prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from safeladder.engine.base import Sampler, SamplingParams
from safeladder.envs.base import Environment
from safeladder.render.renderer import Renderer
from safeladder.rollout import rollout
from safeladder.types import Prompt, Trajectory
from safeladder.verifiers.base import Objective, Verifier, VerifyPolicy, verify_all


class Judge(Protocol):
    """Verifiers with the rule that combines their verdicts: the same as in training."""

    @property
    def verifiers(self) -> Mapping[str, Verifier]:
        """By the names the objective knows them under."""
        ...

    @property
    def objective(self) -> Objective:
        """Who judges what, and how verdicts become a reward."""
        ...

    @property
    def policy(self) -> VerifyPolicy:
        """What to do with slowness, failure and truncation."""
        ...


async def evaluate(
    sampler: Sampler, renderer: Renderer, env: Environment, prompts: Sequence[Prompt],
    params: SamplingParams, judge: Judge, repeats: int = 1,
) -> list[Trajectory]:
    """Return ``repeats`` judged trajectories per prompt, in the order of the prompts.

    Nothing stops an evaluation: what could not be answered or judged stays in the list and is
    counted by :func:`safeladder.eval.metrics.evaluation_metrics`, where a training loop would end.
    Truncated answers are judged like any other.

    Raises:
        DataError, ModelError: a prompt cannot be rendered.
        ConfigError: a prompt's task has no route to a verifier.
        StaleSampler: the sampler belongs to weights that have moved on.
    """
    policy = judge.policy.model_copy(update={"max_abstentions": 1.0, "truncated": "judge"})
    groups = await rollout(sampler, renderer, env, prompts, repeats, params)
    await verify_all(groups, judge.verifiers, judge.objective, policy)
    return [trajectory for group in groups for trajectory in group.trajectories]
