"""A verifier with a classification head: the outputs of a :class:`Scorer` are the class scores.

The template is shown as to a generative verifier, and the head reads the hidden state where the
label would begin. The head costs nothing beside the backbone, so this is the cheaper of the two;
it says nothing but the class.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.engine.base import Scorer
from safeladder.types import FloatArray
from safeladder.verifiers.model_based import Encoder, ModelVerifier, rendered_view
from safeladder.verifiers.rubric import Rubric, View


class ClassifierSpec(StrictModel):
    """What a recipe says of a classifier-head verifier; the ladder loads it."""

    type: Literal["classifier"] = "classifier"
    name: str = "classifier"
    path: str = Field(description="a folder that 'safeladder verifier train' left, or a "
                      "sequence-classification checkpoint of a decoder together with a rubric")
    rubric: Rubric | None = Field(None, description="None: the folder's own")
    reasoning: Literal["strip", "judge_both"] | None = Field(
        None, description="instead of the rubric's")
    device: str = "cpu"


class ClassifierVerifier(ModelVerifier):
    """Judges by the class logits of a model.

    Args:
        name, rubric, encoder, origin: as :class:`ModelVerifier`; the rubric's classes are in the
            order of the scorer's outputs.
        scorer: the model.
    """

    def __init__(
        self, name: str, rubric: Rubric, encoder: Encoder, scorer: Scorer, origin: str = "",
    ) -> None:
        super().__init__(name, rubric, encoder, origin)
        self._scorer = scorer

    async def class_scores(self, view: View) -> tuple[FloatArray, str]:
        """(K,) logits."""
        shown = rendered_view(self._encoder, view)
        return await self._scorer.score(shown.token_ids, shown.media), ""
