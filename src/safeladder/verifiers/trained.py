"""What a climb's recipe says of a verifier that the climb trains before its first rung."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from safeladder.config import StrictModel


class TrainedSpec(StrictModel):
    """The ladder trains it (``ladder/verifier_trained.py``) and opens what training left.

    Other keys than these are those of the type that the verifier's recipe trains (``reasoning`` of
    a generative one, ``scores`` of a light one).
    """

    model_config = ConfigDict(extra="allow")

    type: Literal["trained"] = "trained"
    name: str = "trained"
    recipe: str = Field(description="a verifier's recipe: a file, or the name of one that ships "
                        "under recipes/verifiers")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="a.b -> value: what differs from the recipe, as --set of "
        "'safeladder verifier train' has it")
