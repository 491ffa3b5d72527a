"""What the light verifier sees of a response: named features, the same in training and judging."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safeladder.config import StrictModel


class LightFeatures(StrictModel):
    """Which features there are."""

    word: int = Field(2, ge=0, le=4, description="longest word n-gram of the response; 0: none")
    character: int = Field(
        5, ge=0, le=6, description="longest character n-gram (from 2, inside words); 0: none")
    prompt: Literal["no", "yes"] = "no"
