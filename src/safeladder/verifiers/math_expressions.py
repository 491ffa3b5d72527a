r"""Equality of expressions and equations: what math-verify and sympy are asked (extra ``math``).

math-verify parses LaTeX and simplifies with sympy: slow on hostile input, and its own time limit is
an alarm that works in the main thread only and turns errors into "wrong". Both are switched off
here; the worker's deadline takes their place, and an error stays an abstention.
"""

from __future__ import annotations

import functools
from typing import Any

from safeladder.errors import DataError, import_extra
from safeladder.verifiers.math_text import split_top

DIGITS = 30
"""Decimal digits that numbers are worked out to."""
PROBES = 6
"""Points at which two equations are compared; at least ``PROBES - 2`` must give a ratio."""


def math_verify() -> Any:
    """The package.

    Raises:
        MissingExtra: it is not installed.
    """
    return import_extra("math_verify", "math", "the math verifier")


def same_expression(gold: str, answer: str, relative: float) -> bool:
    """Whether two expressions are equal; two numbers within the relative tolerance.

    math-verify rounds to six decimals, so that 0.0000001 equals 0.0000002 and 1.414214 the root of
    2; numbers are therefore worked out here, to ``DIGITS`` digits.

    Raises:
        DataError: the gold answer cannot be parsed.
    """
    golds, found = parse_gold(gold), _parse(f"\\boxed{{{answer}}}")
    if not found:
        return False
    numbers = _number(golds[0]), _number(found[0])
    if numbers[0] is not None and numbers[1] is not None:
        return bool(abs(numbers[0] - numbers[1]) <= abs(numbers[0]) * relative)
    package, failure = math_verify(), None
    for one_gold in golds:
        for one in found:
            try:
                if package.verify(one_gold, one, timeout_seconds=None, raise_on_error=True):
                    return True
            # Another pair may still match; if none does, the first failure is raised.
            except Exception as error:
                failure = failure or error
    if failure is not None:
        raise failure
    return False


def same_equation(gold: str, answer: str, relative: float) -> bool:
    r"""Whether the differences of both sides have a constant ratio: x + y = 1 and 2x + 2y = 2.

    The ratio is taken at ``PROBES`` rational points and worked out to ``DIGITS`` digits, which
    unlike simplification takes a bounded time. Other equations (of sets, of matrices) go to
    math-verify.

    Raises:
        DataError: the gold answer cannot be parsed.
    """
    one, other = _difference(gold), _difference(answer)
    if one is None:
        return same_expression(gold, answer, relative)
    if other is None or not one.free_symbols:
        return False
    ratios = []
    for point in _points(sorted(one.free_symbols, key=str)):
        below, above = (d.subs(point).evalf(DIGITS) for d in (one, other))
        if below.is_number and above.is_number and below.is_finite and above.is_finite and abs(
                below) > 1e-12:
            ratios.append(above / below)
    if len(ratios) < PROBES - 2 or abs(ratios[0]) < 1e-12:
        return False
    return all(abs(ratio / ratios[0] - 1) < 1e-15 for ratio in ratios)


@functools.lru_cache(maxsize=4096)
def parse_gold(gold: str) -> tuple[Any, ...]:
    """The readings of a gold answer.

    Raises:
        DataError: it has none.
    """
    found = _parse(f"\\boxed{{{gold}}}") or _parse(gold)
    if not found:
        raise DataError(f"math: the reference cannot be parsed: {gold!r:.80}")
    return tuple(found)


def _parse(text: str) -> list[Any]:
    return list(math_verify().parse(text, parsing_timeout=None, raise_on_error=True))


def _number(parsed: Any) -> Any:
    """A number worked out, or None for anything else."""
    import sympy

    if not isinstance(parsed, sympy.Expr) or not parsed.is_number or not parsed.is_finite:
        return None
    value = parsed.evalf(DIGITS)
    return value if value.is_number and value.is_finite else None


def _difference(equation: str) -> Any:
    """Left side minus right side; None where a side is no expression."""
    import sympy

    parts = split_top(equation, "=")
    if parts is None or len(parts) != 2:
        return None
    sides = [_parse(f"\\boxed{{{part}}}") for part in parts]
    if not all(side and isinstance(side[0], sympy.Expr) for side in sides):
        return None
    return sides[0][0] - sides[1][0]


def _points(symbols: list[Any]) -> list[dict[Any, Any]]:
    import sympy

    primes = list(sympy.primerange(2, 200))
    return [{symbol: sympy.Rational((-1) ** (k + i) * primes[3 * k + 2 * i + 5], primes[k + i + 1])
             for i, symbol in enumerate(symbols[:10])} for k in range(PROBES)]
