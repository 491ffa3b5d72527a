"""What every Scorer and every ChoiceScorer must do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from safeladder.engine.base import ChoiceScorer, Sampler, Scorer
from safeladder.errors import SafeLadderError
from safeladder.types import Media


@dataclass(frozen=True)
class ScorerCase:
    """A scorer, and rows it takes (token ids, images)."""

    scorer: Scorer
    num_outputs: int
    rows: Sequence[tuple[list[int], list[Media]]]


@dataclass(frozen=True)
class ChoiceCase:
    """A choice scorer and a sampler of the same weights."""

    scorer: ChoiceScorer
    sampler: Sampler
    rows: Sequence[tuple[list[int], list[Media]]]
    choices: Sequence[Sequence[int]]


CHECKS: list[Any] = []
CHOICE_CHECKS: list[Any] = []


def _to(checks: list[Any]) -> Callable[[Callable[[Any], Awaitable[None]]], Any]:
    def register(function: Callable[[Any], Awaitable[None]]) -> Any:
        checks.append(pytest.param(function, id=function.__name__))
        return function
    return register


@_to(CHECKS)
async def outputs_have_the_declared_form(case: ScorerCase) -> None:
    for ids, media in case.rows:
        outputs = await case.scorer.score(ids, media)
        assert outputs.shape == (case.num_outputs,) and outputs.dtype == np.float32
        assert np.isfinite(outputs).all()


@_to(CHECKS)
async def calls_side_by_side_do_not_disturb_each_other(case: ScorerCase) -> None:
    alone = [await case.scorer.score(*row) for row in case.rows]
    together = await asyncio.gather(*(case.scorer.score(*row) for row in [*case.rows] * 3))
    np.testing.assert_allclose(together, alone * 3, atol=1e-4)
    assert len({row.tobytes() for row in alone}) == len(alone)


@_to(CHECKS)
async def the_last_tokens_output_counts_and_all_before_it_matters(case: ScorerCase) -> None:
    ids, media = case.rows[0]
    outputs = await case.scorer.score(ids, media)
    for place in (0, len(ids) - 1):
        changed = [*ids]
        changed[place] = ids[place] - 1 if ids[place] > 5 else ids[place] + 1
        assert np.abs(await case.scorer.score(changed, media) - outputs).max() > 1e-6


@_to(CHECKS)
async def an_error_is_its_own_callers(case: ScorerCase) -> None:
    row = case.rows[0]
    empty, huge, good = await asyncio.gather(
        case.scorer.score([]), case.scorer.score([10**6]), case.scorer.score(*row),
        return_exceptions=True)
    assert isinstance(empty, SafeLadderError) and isinstance(huge, SafeLadderError)
    np.testing.assert_allclose(good, await case.scorer.score(*row), atol=1e-4)


@_to(CHOICE_CHECKS)
async def choices_have_the_log_probabilities_of_the_sampler(case: ChoiceCase) -> None:
    found = await asyncio.gather(*(
        case.scorer.choice_logprobs(ids, case.choices, media) for ids, media in case.rows))
    for (ids, media), logprobs in zip(case.rows, found, strict=True):
        assert logprobs.shape == (len(case.choices),) and logprobs.dtype == np.float32
        rows = [await case.sampler.logprobs([*ids, *choice], media) for choice in case.choices]
        np.testing.assert_allclose(
            logprobs, [row[len(ids):].sum() for row in rows], atol=2e-4)


@_to(CHOICE_CHECKS)
async def an_empty_choice_is_refused(case: ChoiceCase) -> None:
    with pytest.raises(SafeLadderError):
        await case.scorer.choice_logprobs(case.rows[0][0], [[5], []])
