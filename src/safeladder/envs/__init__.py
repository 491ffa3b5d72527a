"""Environments: what a policy acts in."""

from safeladder.envs.base import Environment, Episode, SingleTurn, StepResult

__all__ = ["Environment", "Episode", "SingleTurn", "StepResult"]
