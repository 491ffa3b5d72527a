"""Learning-rate schedules: they live with the loop and ride on every optimizer step."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from safeladder.config import StrictModel
from safeladder.engine.base import OptimParams


class OptimSettings(StrictModel):
    """Optimizer hyper-parameters and their schedule over ``num_steps`` optimizer steps."""

    learning_rate: float = Field(gt=0, description="AdamW, peak")
    muon_learning_rate: float | None = Field(
        None, gt=0, description="set: hidden matrices take Muon with this rate, the rest AdamW")
    schedule: Literal["constant", "linear", "cosine", "step"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="optimizer steps of linear warm-up from 0")
    min_ratio: float = Field(0.0, ge=0, le=1, description="end of the decay, as a share of peak")
    step_at: float = Field(
        0.5, gt=0, lt=1, description="schedule step: share of the steps at the peak rate; the "
        "rest are at min_ratio of it")
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, gt=0, description="global L2 norm")

    @model_validator(mode="after")
    def _steps_to_a_rate(self) -> OptimSettings:
        if self.schedule == "step" and self.min_ratio == 0:
            raise ValueError("schedule: step goes to min_ratio of the rate, which is 0: give it")
        return self

    def at(self, step: int, num_steps: int) -> OptimParams:
        """The parameters of optimizer step ``step`` (0-based) of ``num_steps``."""
        scale = self.scale(step, num_steps)
        muon = None if self.muon_learning_rate is None else self.muon_learning_rate * scale
        return OptimParams(
            learning_rate=self.learning_rate * scale, muon_learning_rate=muon,
            weight_decay=self.weight_decay, beta1=self.beta1, beta2=self.beta2, eps=self.eps,
            max_grad_norm=self.max_grad_norm)

    def scale(self, step: int, num_steps: int) -> float:
        """Share of the peak rate: (step+1)/warmup, then 1, linear, cosine or one step to
        ``min_ratio``.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        done = (step - self.warmup_steps) / max(num_steps - self.warmup_steps, 1)
        done = min(max(done, 0.0), 1.0)
        if self.schedule == "step":
            return 1.0 if done < self.step_at else self.min_ratio
        left = 1.0 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.min_ratio + (1 - self.min_ratio) * left
