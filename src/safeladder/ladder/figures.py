"""The figures of an evaluation under their full names, none of them twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safeladder.errors import ConfigError
from safeladder.eval.deliberation import deliberation_metrics
from safeladder.eval.metrics import evaluation_metrics, suffix
from safeladder.eval.statistics import Estimate
from safeladder.ladder.recipe import EvaluationSet
from safeladder.types import Prompt, Status, Trajectory


def set_figures(
    chosen: EvaluationSet, trajectories: Sequence[Trajectory], temperature: float,
) -> dict[str, Estimate]:
    """What an evaluation set says of verified trajectories.

    Raises:
        ConfigError: two of its figures have one name.
    """
    found = evaluation_metrics(trajectories, chosen.name, temperature)
    if chosen.environment.type != "search":
        return found
    return distinct(found, deliberation_metrics(trajectories, chosen.suffix, temperature))


def distinct(
    figures: Mapping[str, Estimate], more: Mapping[str, Estimate],
) -> dict[str, Estimate]:
    """Both together.

    Raises:
        ConfigError: a name is in both.
    """
    twice = sorted(figures.keys() & more.keys())
    if twice:
        raise ConfigError(f"evaluation.sets: two figures are named {twice[0]!r}; give the sets "
                          "other names, or another split")
    return {**figures, **more}


def figure_names(
    sets: Sequence[tuple[EvaluationSet, Sequence[Prompt]]], temperatures: Sequence[float],
) -> set[str]:
    """Names of the figures that an evaluation can have.

    Raises:
        ConfigError: two of them have one name.
    """
    found: dict[str, Estimate] = {}
    for chosen, prompts in sets:
        unanswered = [Trajectory(p, (), Status.ERROR_SAMPLER) for p in prompts]
        for temperature in temperatures:
            figures = set_figures(chosen, unanswered, temperature)
            for name in ("format", "truncated"):
                figures[name + suffix(chosen.name, temperature)] = Estimate(None, 0, None)
            found = distinct(found, figures)
    return set(found)
