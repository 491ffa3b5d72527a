"""Rollout: prompts to trajectories."""

from safeladder.rollout.rollout import failures, rollout
from safeladder.rollout.seeds import derive_seed

__all__ = ["derive_seed", "failures", "rollout"]
