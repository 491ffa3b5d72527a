"""Verifiers: what judges a trajectory. No tensor is known here."""

from safeladder.verifiers.base import (
    BatchVerifier,
    ItemVerifier,
    Objective,
    Verifier,
    VerifyPolicy,
    verify_all,
)
from safeladder.verifiers.behaviours import behaviour_rates, behaviours
from safeladder.verifiers.cases import Case, check
from safeladder.verifiers.logic_rl import LogicRL, logic_rates, parse_answer
from safeladder.verifiers.objective import build_objective
from safeladder.verifiers.registry import (
    build_verifier,
    build_verifiers,
    check_routes,
    close_verifiers,
)
from safeladder.verifiers.report import VerificationReport
from safeladder.verifiers.workers import Isolated, Isolation

__all__ = [
    "BatchVerifier",
    "Case",
    "Isolated",
    "Isolation",
    "ItemVerifier",
    "LogicRL",
    "Objective",
    "VerificationReport",
    "Verifier",
    "VerifyPolicy",
    "behaviour_rates",
    "behaviours",
    "build_objective",
    "build_verifier",
    "build_verifiers",
    "check",
    "check_routes",
    "close_verifiers",
    "logic_rates",
    "parse_answer",
    "verify_all",
]
