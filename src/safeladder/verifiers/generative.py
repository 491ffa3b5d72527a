"""A verifier that writes its verdict: any language model, asked for one of a few labels.

After SafeWork-R1's verifiers (arXiv 2507.18576), which emit one label string. Ours never samples
the label: every label string l_k is scored by the model,

    z_k = sum_t log p(l_k,t | template, l_k,<t)          p_k = softmax(z / T)_k

so a verdict carries a distribution over the labels, cannot be unparsable, and costs one pass over
the prompt. Where one label's ids begin another's, the end of the turn is scored with each.

Variants are values of the :class:`~safeladder.verifiers.rubric.Rubric` (templates, what is done
with reasoning) and of this class (``reason_tokens``). Departures: labels of our own wording; the
report's value verifier takes the first token's logits of "good" and "bad" and a hard threshold,
which for one-token labels is the same distribution and class.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from safeladder.config import StrictModel
from safeladder.engine.base import ChoiceScorer, Sampler, SamplingParams
from safeladder.types import FloatArray, Media, Message
from safeladder.verifiers.model_based import Encoder, ModelVerifier, rendered_view
from safeladder.verifiers.rubric import Rubric, View

VERDICT_MARK = "Verdict:"
"""What stands between the verifier's own reasons and its label."""


class GenerativeSpec(StrictModel):
    """What a recipe says of a generative verifier; the ladder loads it."""

    type: Literal["generative"] = "generative"
    name: str = "generative"
    path: str = Field(description="a folder that 'safeladder verifier train' left, or any "
                      "Hugging Face checkpoint together with a rubric")
    rubric: Rubric | None = Field(None, description="None: the folder's own")
    reasoning: Literal["strip", "judge_both"] | None = Field(
        None, description="instead of the rubric's")
    reason_tokens: int = Field(
        0, ge=0, description="tokens of reasons the verifier writes before its label; 0: none")
    device: str = "cpu"


class GenerativeVerifier(ModelVerifier):
    """Scores label strings with a language model.

    Args:
        name, rubric, encoder, origin: as :class:`ModelVerifier`.
        sampler: the model; it must be able to give log-probabilities.
        choices: compares the labels at the price of one pass; None: through ``sampler``, one
            pass per label.
        reason_tokens: above 0 the verifier first writes so many tokens of reasons, greedily (use
            a template that asks for them); they are the verdict's ``reason``, and the label is
            scored behind them and :data:`VERDICT_MARK`.
    """

    def __init__(
        self, name: str, rubric: Rubric, encoder: Encoder, sampler: Sampler,
        choices: ChoiceScorer | None = None, reason_tokens: int = 0, origin: str = "",
    ) -> None:
        super().__init__(name, rubric, encoder, origin)
        self._sampler, self._reason_tokens = sampler, reason_tokens
        self._choices = choices or _OneByOne(sampler)

    async def class_scores(self, view: View) -> tuple[FloatArray, str]:
        """(K,) log-probabilities of the label strings, and the reasons if any were asked for."""
        if not self._reason_tokens:
            shown = rendered_view(self._encoder, view)
            return await self._choices.choice_logprobs(
                shown.token_ids, self._labels, shown.media), ""
        reasons = await self._reasons(view)
        shown = rendered_view(
            self._encoder, view, Message("assistant", f"{reasons}\n{VERDICT_MARK}"))
        return await self._choices.choice_logprobs(
            shown.token_ids, self._spaced_labels, shown.media), reasons

    async def _reasons(self, view: View) -> str:
        shown = rendered_view(self._encoder, view)
        params = SamplingParams(self._reason_tokens, temperature=0.0,
                                stop_token_ids=self._encoder.stop_token_ids)
        (completion,) = await self._sampler.sample(shown.token_ids, params, media=shown.media)
        text = self._encoder.response_text(shown, completion)
        return text.partition(VERDICT_MARK)[0].strip()

    @cached_property
    def _labels(self) -> tuple[tuple[int, ...], ...]:
        return label_ids(self._encoder, self.rubric.classes)

    @cached_property
    def _spaced_labels(self) -> tuple[tuple[int, ...], ...]:
        return label_ids(self._encoder, [f" {name}" for name in self.rubric.classes])


def label_ids(encoder: Encoder, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The ids of each label; with the end of the turn where one label would begin another."""
    ids = [encoder.encode(label) for label in labels]
    clash = any(a is not b and b[:len(a)] == a for a in ids for b in ids)
    end = encoder.stop_token_ids[:1] if clash else ()
    return tuple((*row, *end) for row in ids)


class _OneByOne:
    """A :class:`ChoiceScorer` out of any sampler: the prompt is computed once per label."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    async def choice_logprobs(
        self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]],
        media: Sequence[Media] = (),
    ) -> FloatArray:
        rows = await asyncio.gather(*(
            self._sampler.logprobs((*prompt_ids, *choice), media) for choice in choices))
        return np.array([row[len(prompt_ids):].sum() for row in rows], np.float32)
