"""Environments: what a policy acts in."""

from safeladder.envs.base import Environment, Episode, SingleTurn, StepResult
from safeladder.envs.search import Search

__all__ = ["Environment", "Episode", "Search", "SingleTurn", "StepResult"]
