"""Filters on the demonstrations of a supervised rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from safeladder.data.responses import LabelledResponse
from safeladder.errors import DataError
from safeladder.ladder.filters.pipeline import FilterReport, filter_rows, require_kept
from safeladder.ladder.filters.steps import FilterStep
from safeladder.types import Message, Prompt
from safeladder.verifiers.base import Verifier, VerifyPolicy


async def filter_demonstrations(
    prompts: Sequence[Prompt], steps: Sequence[FilterStep], data: str,
    opened: Mapping[str, Verifier], policy: VerifyPolicy,
) -> tuple[list[Prompt], FilterReport]:
    """The demonstrations that pass, in order, and the report.

    Raises:
        DataError: a row is no demonstration, or none passes; ConfigError: a verifier cannot be
            built; TooManyAbstentions: more than the policy allows could not be judged.
    """
    rows = [_response(prompt) for prompt in prompts]
    result = await filter_rows(rows, steps, data, opened, policy)
    require_kept(result.report)
    kept = [replace(row.prompt, messages=(*row.prompt.messages, Message("assistant", row.response)))
            for row in result.kept]
    return kept, result.report


def _response(prompt: Prompt) -> LabelledResponse:
    if prompt.rendered is not None or not prompt.messages or (
            prompt.messages[-1].role != "assistant"):
        raise DataError(f"row {prompt.id!r}: filters judge demonstrations, whose last message is "
                        "the assistant's; give texts a rung of their own")
    asked = replace(prompt, messages=prompt.messages[:-1])
    return LabelledResponse(asked, prompt.messages[-1].text)
