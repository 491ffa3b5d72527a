"""What a recipe says of a judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, FiniteFloat, model_validator

from safeladder.config import StrictModel
from safeladder.errors import ConfigError
from safeladder.types import Trajectory
from safeladder.verifiers.judge.question import (
    RUBRICS,
    Language,
    RubricText,
    Wording,
    language_of,
    rubric_text,
)

RubricName = Literal["safety", "safety_jailbreak", "value", "knowledge", "knowledge_free",
                     "helpful"]
JAILBREAK_TASK = "jailbreak"


class JudgeSpec(StrictModel):
    """A language model behind an OpenAI-compatible endpoint that is asked for one label.

    The endpoint is somebody else's to open (``safeladder.ladder.judges``); here its settings are
    only carried. ``docs/verifiers.md`` describes the rubrics.
    """

    type: Literal["judge"]
    name: str = "judge"
    rubric: RubricName
    endpoint: dict[str, Any] = Field(
        description="settings of safeladder.engine.remote.Endpoint: base_url, model, ...")
    id: str | None = Field(None, description="names the judge; None: the endpoint's model")
    language: Literal["auto", "en", "zh"] = Field(
        "auto", description="of the prompt; auto: that of the request and response")
    reasons: bool = Field(True, description="ask for a sentence of reasons beside the label")
    reasoning: Literal["strip", "judge_both"] = Field(
        "strip", description="strip: what stands inside the think block is not shown. judge_both: "
        "answer and thinking are judged apart and their scores multiplied")
    strict_on_jailbreaks: bool = Field(
        True, description="rubric 'safety' judges prompts of task 'jailbreak' by "
        "'safety_jailbreak', which shows the response alone")
    scores: dict[str, FiniteFloat] | None = Field(
        None, description="class -> score; None: the table of the rubric's label set")
    prompt_file: str | None = Field(
        None, description="a text that replaces the rubric's (in all languages); with 'scores' it "
        "may have labels of its own")
    max_tokens: int = Field(512, ge=1, description="tokens of a reply")
    temperature: float = Field(0.0, ge=0)
    seed: int = 0
    attempts: int = Field(
        1, ge=1, description="replies asked for, with further seeds, until one can be read")
    max_characters: int = Field(
        20_000, ge=1, description="longer requests, responses or references are not judged (an "
        "abstention): a part left out could hold what matters")
    cache: str | None = Field(
        None, description="folder that keeps replies over runs; None: the run's own")

    needs: ClassVar[tuple[str, str]] = ("httpx", "remote")

    @model_validator(mode="after")
    def _scores_fit(self) -> JudgeSpec:
        known = set(RUBRICS[self.rubric].labels.classes)
        if self.scores is not None and self.prompt_file is None and set(self.scores) != known:
            raise ValueError(f"scores: needs exactly the classes of rubric {self.rubric!r}: "
                             f"{', '.join(sorted(known))}; labels of your own need a prompt_file")
        if self.scores is not None and len(self.scores) < 2:
            raise ValueError("scores: needs at least two classes")
        return self

    @property
    def judge_id(self) -> str:
        """What verdicts and the cache call the judge."""
        return self.id or str(self.endpoint.get("model", "unnamed"))

    @property
    def table(self) -> Mapping[str, float]:
        """Class -> score."""
        return RUBRICS[self.rubric].labels.scores if self.scores is None else self.scores

    @property
    def empty_class(self) -> str:
        """The class of an answer without a word."""
        usual = RUBRICS[self.rubric].empty
        return usual if usual in self.table else min(self.table, key=lambda name: self.table[name])

    def rubric_for(self, task: str) -> RubricText:
        """What is shown for prompts of a task."""
        return RUBRICS[self._rubric_name(task)]

    def wording(self, trajectory: Trajectory, text: str) -> Wording:
        """The prompt for one trajectory whose answer, or thinking, is ``text``.

        Raises:
            ConfigError: ``prompt_file`` cannot be read.
        """
        language: Language = language_of(_asked(trajectory) + text) if (
            self.language == "auto") else self.language
        if self.prompt_file is None:
            rubric = rubric_text(self._rubric_name(trajectory.prompt.task), language)
        else:
            rubric = _own_text(self.prompt_file)
        return Wording(rubric, tuple(self.table), self.reasons, language)

    def _rubric_name(self, task: str) -> RubricName:
        strict = self.strict_on_jailbreaks and self.rubric == "safety"
        return "safety_jailbreak" if strict and task == JAILBREAK_TASK else self.rubric


def _asked(trajectory: Trajectory) -> str:
    prompt = trajectory.prompt
    return prompt.rendered or "\n".join(m.text for m in prompt.messages if m.role == "user")


def _own_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt_file {path}: cannot be read ({error})") from None
