"""Filters on the demonstrations of a supervised rung."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safeladder.data.responses import LabelledResponse
from safeladder.errors import DataError
from safeladder.files import write_text
from safeladder.ladder.filters.pipeline import FilterReport, filter_rows, require_kept, write_report
from safeladder.ladder.filters.steps import FilterStep
from safeladder.types import Prompt
from safeladder.verifiers.base import Verifier, VerifyPolicy


@dataclass(frozen=True)
class RungFilters:
    """The filters of one rung, and where their results lie."""

    rung: str
    steps: Sequence[FilterStep]
    report: Path
    """``filters.json``; the page and ``filters.rows.json`` lie beside it."""
    opened: Mapping[str, Verifier]
    policy: VerifyPolicy
    judges: Path | None = None

    async def keep(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The demonstrations that pass, in order.

        Which ones is kept: a rung that goes on learns from the same rows, although a judge might
        say something else today.

        Raises:
            DataError: a row is no demonstration, or none passes; ConfigError: a verifier cannot
                be built; TooManyAbstentions: more than the policy allows could not be judged;
                StorageError: the report cannot be written.
        """
        rows = [_response(prompt) for prompt in prompts]
        key = self._key(rows)
        numbers = self._kept_before(key)
        if numbers is None:
            numbers, report = await self._filter(rows)
            write_report(report, self.report)
            write_text(self._rows_file, json.dumps({"key": key, "kept": numbers}))
        return [prompts[i] for i in numbers]

    async def _filter(self, rows: Sequence[LabelledResponse]) -> tuple[list[int], FilterReport]:
        result = await filter_rows(rows, self.steps, self.rung, self.opened, self.policy,
                                   self.judges)
        require_kept(result.report)
        passed = {id(row) for row in result.kept}
        return [i for i, row in enumerate(rows) if id(row) in passed], result.report

    @property
    def _rows_file(self) -> Path:
        return self.report.with_suffix(".rows.json")

    def _kept_before(self, key: str) -> list[int] | None:
        """The numbers of the rows that passed these steps, if they have run on these rows."""
        try:
            found = json.loads(self._rows_file.read_text(encoding="utf-8"))
            kept: list[int] = found["kept"]
            return kept if found["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _key(self, rows: Sequence[LabelledResponse]) -> str:
        steps = [step.model_dump(mode="json") for step in self.steps]
        digest = hashlib.sha256(json.dumps(steps).encode())
        for row in rows:
            prompt = row.prompt
            cells = [prompt.id, row.response, [m.to_dict() for m in prompt.messages],
                     [media.digest for media in prompt.media], prompt.reference, prompt.task,
                     prompt.source, dict(prompt.meta)]
            digest.update(json.dumps(cells, sort_keys=True, default=str).encode())
        return digest.hexdigest()


def _response(prompt: Prompt) -> LabelledResponse:
    if prompt.rendered is not None or not prompt.messages or (
            prompt.messages[-1].role != "assistant"):
        raise DataError(f"row {prompt.id!r}: filters judge demonstrations, whose last message is "
                        "the assistant's; give texts a rung of their own")
    asked = replace(prompt, messages=prompt.messages[:-1])
    return LabelledResponse(asked, prompt.messages[-1].text)
