"""Any reasoning-gym scorer as a verifier (extra ``data``), inside killable workers.

Some of its scorers evaluate expressions that the model wrote, so the text is as good as code:
workers have a memory limit and a deadline, but are no sandbox against a determined text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.errors import DataError, import_extra
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.format import after_think, answer_text
from safeladder.verifiers.workers import Isolation


class ReasoningGym(StrictModel):
    """The score (0 to 1) of the generator the prompt came from.

    ``Prompt.meta["reasoning_gym"]`` is ``{"dataset": name, "config": {...}, "entry": {...}}``:
    the generator, its settings and the row it made. With ``index`` as well the row is made again,
    because JSON turns tuples into lists, which some scorers tell apart.

    Classes: ``correct`` (score 1), ``partial`` (reasoning-gym often gives 0.01 for a readable
    wrong answer), ``wrong``, ``unparsable`` (no answer block).
    """

    type: Literal["reasoning_gym"] = "reasoning_gym"
    name: str = "reasoning_gym"
    where: Literal["answer", "after_think"] = Field(
        default="answer", description="the one <answer> block, or all that follows the think block")
    isolate: Isolation | None = Field(
        default=Isolation(), description="null: in this process, where nothing can stop it")

    needs: ClassVar[tuple[str, str]] = ("reasoning_gym", "data")
    cases: ClassVar[tuple[Case, ...]]

    def prepare(self) -> None:
        """Import the library outside the first verdict's time limit."""
        _library()

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Score; raises DataError when the prompt does not say where it came from."""
        name, config, entry = _origin(trajectory.prompt.meta)
        response = trajectory.response
        answer = answer_text(response) if self.where == "answer" else after_think(response)
        if answer is None or not answer.strip():
            return Verdict(self.name, 0.0, "unparsable", reason="no answer")
        score = float(_generator(name, config).score_answer(answer=answer.strip(), entry=entry))
        judged = "correct" if score >= 1 else "partial" if score > 0 else "wrong"
        return Verdict(self.name, score, judged)


def _origin(meta: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """Generator, its settings as JSON, and the row."""
    origin = meta.get("reasoning_gym")
    if not isinstance(origin, Mapping) or not {"dataset", "entry"} <= set(origin):
        raise DataError("reasoning_gym: the prompt's meta needs 'reasoning_gym' with dataset, "
                        "config and entry")
    name, config = origin["dataset"], json.dumps(origin.get("config") or {}, sort_keys=True)
    entry: Mapping[str, Any] = origin["entry"]
    if "index" not in origin:
        return name, config, entry
    again = _entry(name, config, origin["index"])
    if again["question"] != entry["question"]:
        raise DataError(f"reasoning_gym: generator {name!r} makes another row {origin['index']} "
                        "than the prompt's: its version differs; make the prompts again")
    return name, config, again


def _library() -> Any:
    return import_extra("reasoning_gym", "data", "the reasoning_gym verifier")


@functools.lru_cache(maxsize=256)
def _generator(name: str, config: str) -> Any:
    try:
        return _library().create_dataset(name, **json.loads(config))
    except (ValueError, TypeError, AssertionError) as error:
        raise DataError(f"reasoning_gym: generator {name!r} with {config}: {error}") from None


@functools.lru_cache(maxsize=1024)
def _entry(name: str, config: str, index: int) -> Mapping[str, Any]:
    entry: Mapping[str, Any] = _generator(name, config)[index]
    return entry


_META = {"reasoning_gym": {
    "dataset": "basic_arithmetic", "config": {"seed": 1, "size": 1},
    "entry": {"question": "Calculate 5 - 3 - 6.", "answer": "-4",
              "metadata": {"source_dataset": "basic_arithmetic", "source_index": 0}}}}
ReasoningGym.cases = (
    Case("good", "<think>2 - 6</think><answer>-4</answer>", 1.0, None, "correct", _META),
    Case("bad", "<think>2 + 6</think><answer>8</answer>", 0.0, None, None, _META),
    Case("bad", "<think>2 - 6</think>-4", 0.0, None, "unparsable", _META),
    *(Case("hostile", text, 0.0, None, None, _META) for text in HOSTILE_TEXTS),
)
