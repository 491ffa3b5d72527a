"""IFEval's verifiable instructions; :mod:`safeladder.verifiers.ifeval.verifier` has the rules."""

from safeladder.verifiers.ifeval.instructions import INSTRUCTIONS
from safeladder.verifiers.ifeval.verifier import IFEval, IFEvalRates, ifeval_rates

__all__ = ["INSTRUCTIONS", "IFEval", "IFEvalRates", "ifeval_rates"]
