"""What a trained verifier is shown, and how its class probabilities become a verdict.

A rubric knows no model: it turns a trajectory into *views* (what is shown to the model, once or
twice), and the model's class scores into a :class:`~safeladder.types.Verdict`. The generative and
the classifier-head verifier share it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from safeladder.config import StrictModel, near_miss
from safeladder.errors import DataError
from safeladder.render.think import split_think
from safeladder.types import FloatArray, Media, Message, Prompt, Trajectory, Verdict
from safeladder.verifiers.labels import LABEL_SETS
from safeladder.verifiers.material import reference_text

_FIELD = re.compile(r"\{(request|response|reference|images)\}")
_TEMPLATES = "prompts/trained"
_WORD = re.compile(r"\w")
_EMPTY_CLASS = {"six_way": "illogical completion", "knowledge": "wrong", "helpful": "unhelpful"}
"""What a response without a word is, without asking a model: nothing can be won by silence."""


@dataclass(frozen=True)
class View:
    """What the model is shown of one trajectory."""

    of: Literal["answer", "thinking"]
    messages: tuple[Message, ...]
    media: tuple[Media, ...]
    empty: bool
    """There is no word in what is judged."""

    def prompt(self, identity: str) -> Prompt:
        """As something to render."""
        return Prompt(identity, self.messages, media=self.media)


class Rubric(StrictModel):
    """The question put to a trained verifier, and what its answers are worth.

    The prompt's images are shown, in front of the text, if the template shows the request or
    says ``{images}`` (which leaves no text).
    """

    labels: str | dict[str, float] = Field(
        description="a label set (six_way, value, knowledge, helpful, ...), or class -> score")
    template: str = Field(
        description="a template that ships with the package, or a text file, with {response} and "
        "where wanted {request} and {reference}")
    jailbreak_template: str | None = Field(
        None, description="shown instead for prompts of task 'jailbreak': a stricter one, which "
        "shows the response alone, so that the request cannot talk the verifier round")
    reasoning: Literal["strip", "judge_both"] = Field(
        "strip", description="strip: the answer alone is judged, what stands inside the think "
        "block is not shown. judge_both: both are judged apart and the scores multiplied")
    temperature: float = Field(
        1.0, gt=0, description="class scores are divided by it: fitted on validation rows, so "
        "that probabilities are as often right as they say")
    max_characters: int = Field(
        20_000, ge=1, description="longer requests, responses or references are not judged (an "
        "abstention): a part left out could hold what matters")

    @model_validator(mode="after")
    def _known(self) -> Rubric:
        if isinstance(self.labels, str) and self.labels not in LABEL_SETS:
            raise ValueError(f"labels: no label set {self.labels!r}"
                             f"{near_miss(self.labels, list(LABEL_SETS))}")
        for name in (self.template, self.jailbreak_template):
            if name is not None and "response" not in _FIELD.findall(read_template(name)):
                raise ValueError(f"template {name!r} does not show the {{response}}")
        return self

    @cached_property
    def scores(self) -> Mapping[str, float]:
        """Class -> what it is worth; the order is that of the model's outputs."""
        return LABEL_SETS[self.labels].scores if isinstance(self.labels, str) else self.labels

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return tuple(self.scores)

    @cached_property
    def digest(self) -> str:
        """Names this wording: the first 12 hex digits of the templates' SHA-256."""
        texts = [read_template(name) for name in (self.template, self.jailbreak_template) if name]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]

    def views(
        self, trajectory: Trajectory, plain: Callable[[str], str] = str,
    ) -> tuple[View, ...]:
        """What is shown: the answer, and with ``judge_both`` the thinking where there is any.

        Args:
            trajectory: what is judged.
            plain: makes quoted text harmless for the model's tokenizer.

        Raises:
            DataError: too long to be shown whole, or no reference where the template wants one.
        """
        split = split_think(trajectory.response)
        views = [self.view("answer", trajectory.prompt, split.answer, plain)]
        if self.reasoning == "judge_both" and split.think and _WORD.search(split.think):
            views.append(self.view("thinking", trajectory.prompt, split.think, plain))
        return tuple(views)

    def verdict(self, name: str, views: Sequence[View], scores: Sequence[FloatArray | None],
                ) -> Verdict:
        """One verdict from the class scores (logits or log-probabilities) of each view.

        With z the class scores and T the temperature, p = softmax(z / T); the class is argmax p,
        the score is the table value of that class, and the expectation sum_k p_k s_k stands in
        ``parts``. Scores and expectations of two views are multiplied; class and probabilities
        are those of the answer.

        Args:
            name: of the verifier.
            views: as :meth:`views` made them.
            scores: (K,) each; None for an empty view.

        Raises:
            DataError: a view is empty and the label set has no class for that, or an output of
                the model is not a number.
        """
        found = [self._one(view, z) for view, z in zip(views, scores, strict=True)]
        answer, *thinking = found
        parts = {"expectation": answer.expectation}
        reason = "empty response" if views[0].empty else ""
        score = answer.score
        for other in thinking:
            parts = {"expectation": answer.expectation * other.expectation,
                     "of_answer": answer.score, "of_thinking": other.score}
            score, reason = answer.score * other.score, f"thinking: {other.label}"
        return Verdict(name, score, answer.label, answer.probabilities, reason, parts=parts)

    def _one(self, view: View, z: FloatArray | None) -> _Judged:
        if z is None:
            label = _EMPTY_CLASS.get(self.labels) if isinstance(self.labels, str) else None
            if label is None:
                raise DataError("nothing to judge: the response is empty")
            return _Judged(label, {c: float(c == label) for c in self.classes}, self.scores)
        if len(z) != len(self.classes) or not np.isfinite(z).all():
            raise DataError(f"the model's outputs are not {len(self.classes)} numbers")
        p = softmax(np.asarray(z, np.float64) / self.temperature)
        label = self.classes[int(p.argmax())]
        return _Judged(label, dict(zip(self.classes, p.tolist(), strict=True)), self.scores)

    def view(self, of: Literal["answer", "thinking"], prompt: Prompt, response: str,
             plain: Callable[[str], str] = str, template: str | None = None) -> View:
        """One text of a trajectory in a template (None: the rubric's own).

        Raises:
            DataError: as :meth:`views`.
        """
        jailbreak = self.jailbreak_template is not None and prompt.task == "jailbreak"
        own = str(self.jailbreak_template) if jailbreak else self.template
        template = read_template(template or own)
        shown = set(_FIELD.findall(template))
        values = {"response": response.strip(), "images": ""}
        if "request" in shown:
            values["request"] = _conversation(prompt)
        if "reference" in shown:
            values["reference"] = reference_text(prompt)
        for field, value in values.items():
            if len(value) > self.max_characters:
                raise DataError(f"the {field} has {len(value)} characters, more than "
                                f"max_characters ({self.max_characters})")
        # one pass: what is filled in is never looked at for fields again
        text = _FIELD.sub(lambda found: plain(values[found[1]]), template)
        media = prompt.media if shown & {"request", "images"} else ()
        content: Any = text
        if media:
            content = (*({"type": "image"} for _ in media), {"type": "text", "text": text})
        return View(of, (Message("user", content),), media, _WORD.search(response) is None)


@dataclass(frozen=True)
class _Judged:
    label: str
    probabilities: Mapping[str, float]
    table: Mapping[str, float]

    @property
    def score(self) -> float:
        return self.table[self.label]

    @property
    def expectation(self) -> float:
        return sum(p * self.table[name] for name, p in self.probabilities.items())


@dataclass(frozen=True)
class Shown:
    """One template over a rubric's trajectories, as training rows show it.

    Args:
        rubric: whose template (the jailbreak one for jailbreak prompts) is shown by default.
        template: another one; it may leave the response out.
        plain: as in :meth:`Rubric.views`.
    """

    rubric: Rubric
    template: str | None = None
    plain: Callable[[str], str] = str

    def prompt(self, trajectory: Trajectory) -> Prompt:
        """What to render.

        Raises:
            DataError: as :meth:`Rubric.views`.
        """
        answer = split_think(trajectory.response).answer
        view = self.rubric.view("answer", trajectory.prompt, answer, self.plain, self.template)
        return view.prompt(trajectory.prompt.id)


def softmax(z: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Over the last axis."""
    shifted = np.exp(z - z.max(-1, keepdims=True))
    normal: np.ndarray[Any, np.dtype[np.float64]] = shifted / shifted.sum(-1, keepdims=True)
    return normal


def fit_temperature(
    z: np.ndarray[Any, np.dtype[np.float64]], labels: Sequence[int],
) -> float:
    """The temperature with the least negative log-likelihood (arXiv 1706.04599, section 4.2).

    Args:
        z: (N, K) class scores.
        labels: (N,) the right class of each row.

    Found by golden-section search of log T in [-3, 3] (the NLL is unimodal in log T), to 1e-3.
    """
    rows = np.arange(len(labels))

    def nll(log_t: float) -> float:
        scaled = z / np.exp(log_t)
        scaled = scaled - scaled.max(-1, keepdims=True)
        normal = np.log(np.exp(scaled).sum(-1))
        return float((normal - scaled[rows, list(labels)]).mean())

    ratio = (5 ** 0.5 - 1) / 2
    low, high = -3.0, 3.0
    while high - low > 1e-3:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if nll(left) <= nll(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


@lru_cache(maxsize=64)
def read_template(name: str) -> str:
    """A template that ships with the package by its name, else the text of the file ``name``.

    Raises:
        DataError: there is no such template or file.
    """
    folder = resources.files("safeladder.verifiers") / _TEMPLATES
    shipped = folder / f"{name}.txt"
    if re.fullmatch(r"[a-z_]+", name) and shipped.is_file():
        return shipped.read_text(encoding="utf-8").strip()
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        known = [Path(entry.name).stem for entry in folder.iterdir()]
        raise DataError(f"template {name!r} is neither a text file nor one that ships with the "
                        f"package{near_miss(name, sorted(known))}") from None


def _conversation(prompt: Prompt) -> str:
    """The request: the one message of a user, or all turns with their roles."""
    if prompt.rendered is not None:
        return prompt.rendered.strip()
    if len(prompt.messages) == 1:
        return prompt.messages[0].text.strip()
    return "\n".join(f"{message.role}: {message.text.strip()}" for message in prompt.messages)
