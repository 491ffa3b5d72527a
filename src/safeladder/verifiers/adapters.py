"""Users' own reward functions, unchanged: TRL's form and verl's, by import path.

Both run in killable workers by default, one trajectory per call. ``isolate: null`` runs them in
this process: a TRL function then sees all its trajectories in one call, and nothing can stop it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from safeladder.config import StrictModel
from safeladder.errors import ConfigError
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.base import abstention, not_applicable
from safeladder.verifiers.cases import Case
from safeladder.verifiers.workers import Isolation

Function = Callable[..., Any]


@functools.lru_cache(maxsize=256)
def load_function(path: str) -> Function:
    """Import ``package.module:function``.

    Raises:
        ConfigError: no such module or function, or the module fails to import.
    """
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import {path!r}: {error}") from None
    if not callable(found):
        raise ConfigError(f"{path!r} is not a function but a {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # callable() does not narrow Any


class _Adapter(StrictModel):
    path: str = Field(description="package.module:function")
    isolate: Isolation | None = Field(
        default=Isolation(), description="null: in this process, where nothing can stop it")

    cases: ClassVar[tuple[Case, ...]] = ()

    @field_validator("path")
    @classmethod
    def _well_formed(cls, path: str) -> str:
        module, _, function = path.partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), *function.split(".")]):
            raise ValueError("expected package.module:function")
        return path

    def prepare(self) -> None:
        """Import the function, outside the first verdict's time limit."""
        load_function(self.path)


class TRLReward(_Adapter):
    """A function in TRL's form: ``f(prompts, completions, **columns) -> list[float | None]``.

    ``prompts`` and ``completions`` are lists of messages, as TRL passes conversational data, or
    strings with ``conversational: false`` (the prompt's text parts joined). ``columns`` are the
    keys of ``Prompt.meta`` (None where a prompt lacks one), ``completion_ids``, and the reference
    under the name ``reference_column``; a function without ``**columns`` gets those it names.
    None means "not applicable", as in TRL. Plain or ``async``.
    """

    type: Literal["trl"] = "trl"
    name: str = "trl"
    conversational: bool = True
    reference_column: str = Field(
        default="ground_truth", description="column that holds the reference")

    async def verify_many(self, trajectories: Sequence[Trajectory]) -> list[Verdict]:
        """Call the function once with all trajectories."""
        function = load_function(self.path)
        scores = function(**_accepted(function, self._arguments(trajectories)))
        if inspect.isawaitable(scores):
            scores = await scores
        if len(scores) != len(trajectories):
            raise ValueError(f"{self.path} returned {len(scores)} scores for "
                             f"{len(trajectories)} completions")
        return [self._verdict(score) for score in scores]

    def _arguments(self, trajectories: Sequence[Trajectory]) -> dict[str, list[Any]]:
        prompts = [t.prompt for t in trajectories]
        keys = dict.fromkeys(key for prompt in prompts for key in prompt.meta)
        arguments: dict[str, list[Any]] = {key: [p.meta.get(key) for p in prompts] for key in keys}
        arguments[self.reference_column] = [prompt.reference for prompt in prompts]
        arguments["completion_ids"] = [
            list(t.turns[-1].completion.token_ids) if t.turns else [] for t in trajectories]
        if self.conversational:
            arguments["prompts"] = [[m.to_dict() for m in p.messages] for p in prompts]
            arguments["completions"] = [
                [{"role": "assistant", "content": t.response}] for t in trajectories]
        else:
            arguments["prompts"] = ["\n".join(m.text for m in p.messages) for p in prompts]
            arguments["completions"] = [t.response for t in trajectories]
        return arguments

    def _verdict(self, score: Any) -> Verdict:
        if score is None:
            return not_applicable(self.name, "the function returned None")
        return _scored(self.name, score)


class VerlScore(_Adapter):
    """A function in verl's form: ``compute_score(data_source, solution_str, ground_truth,
    extra_info=None) -> float | dict``.

    It gets ``Prompt.source``, the response alone (never the prompt), ``Prompt.reference`` and
    ``Prompt.meta``; a function that names fewer of these gets fewer. Of a returned dict,
    ``score`` is the score and the other numbers become ``Verdict.parts``. Plain or ``async``.
    """

    type: Literal["verl"] = "verl"
    name: str = "verl"

    def verify(self, trajectory: Trajectory) -> Verdict | Awaitable[Verdict]:
        """Call the function for one trajectory."""
        function = load_function(self.path)
        prompt = trajectory.prompt
        result = function(**_accepted(function, {
            "data_source": prompt.source, "solution_str": trajectory.response,
            "ground_truth": prompt.reference, "extra_info": dict(prompt.meta)}))
        return self._later(result) if inspect.isawaitable(result) else self._verdict(result)

    async def _later(self, result: Awaitable[Any]) -> Verdict:
        return self._verdict(await result)

    def _verdict(self, result: Any) -> Verdict:
        if not isinstance(result, Mapping):
            return _scored(self.name, result)
        if "score" not in result:
            raise ValueError(f"{self.path} returned a dict without 'score'")
        parts = {str(key): float(value) for key, value in result.items()
                 if key != "score" and isinstance(value, int | float) and math.isfinite(value)}
        return _scored(self.name, result["score"], parts)


def _scored(name: str, score: Any, parts: Mapping[str, float] | None = None) -> Verdict:
    value = float(score)
    if not math.isfinite(value):
        return abstention(name, f"the function returned {value}")
    return Verdict(name, value, parts=parts or {})


def _accepted(function: Function, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments the function's signature takes."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return dict(arguments)
    return {key: value for key, value in arguments.items() if key in parameters}
