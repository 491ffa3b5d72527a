"""The tests of a program, taken apart so that the program never sees what is expected.

An assertion such as ``assert sorted(f([2, 1])) == [1, 2]`` is split in two: the *probe* ``f([2,
1])`` is evaluated where the program lives, its value is moved out as plain data, and the *check*
``sorted(_probe_0) == [1, 2]`` is evaluated where the program never was. An object that calls
itself equal to everything, a redefined ``sorted`` or ``abs``, or a program that reads the expected
values from the interpreter gains nothing.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from safeladder.errors import DataError

PROBE = "_probe_{}"
_BUILTINS = frozenset(dir(builtins))


@dataclass(frozen=True)
class Step:
    """One thing to do, in order."""

    run: str = ""
    """Statements for the program's own session."""
    imports: str = ""
    """Imports of the tests, for both sessions."""
    probes: Mapping[str, str] = field(default_factory=dict)
    """Name -> expression, evaluated in the program's session."""
    check: str = ""
    """Expression over the probes that must be true."""


@dataclass(frozen=True)
class CallCase:
    """A call of a function and the value it must return."""

    function: str
    arguments: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True)
class StreamCase:
    """Lines that ``input()`` returns, and what must be printed."""

    stdin: str
    stdout: str


@dataclass(frozen=True)
class AssertTest:
    """One entry of ``tests``: the steps of its statements."""

    steps: tuple[Step, ...]


Test = AssertTest | CallCase | StreamCase


def read_tests(reference: Any, name: str = "code") -> tuple[Test, ...]:
    """Read a reference as :class:`safeladder.verifiers.code.Code` describes it.

    Raises:
        DataError: no such form, no test, or an assertion that cannot be taken apart.
    """
    if isinstance(reference, Mapping) and isinstance(reference.get("tests"), list | tuple):
        tests, setup = reference["tests"], reference.get("setup", "")
        if tests and isinstance(setup, str) and all(isinstance(test, str) for test in tests):
            return tuple(_assert_test(f"{setup}\n{test}", name) for test in tests)
    if isinstance(reference, Mapping) and isinstance(reference.get("cases"), list | tuple):
        function = reference.get("function")
        cases = [_case(case, function) for case in reference["cases"]]
        if cases and all(cases):
            return tuple(case for case in cases if case is not None)
    raise DataError(f"{name}: the prompt's reference must be a mapping with 'tests' (assertions as "
                    f"text) or with 'cases' (input and output), found {reference!r:.80}")


def _case(case: Any, function: Any) -> Test | None:
    if not isinstance(case, Mapping):
        return None
    if {"stdin", "stdout"} <= set(case):
        return StreamCase(str(case["stdin"]), str(case["stdout"]))
    if not isinstance(function, str) or not function.isidentifier():
        return None
    if not isinstance(case.get("input"), list | tuple) or "output" not in case:
        return None
    return CallCase(function, tuple(case["input"]), case["output"])


@lru_cache(maxsize=4096)
def _assert_test(source: str, name: str) -> AssertTest:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{name}: a test is no Python: {error}: {source[:80]!r}") from None
    trusted = set(_BUILTINS)
    steps: list[Step] = []
    for statement in tree.body:
        text = ast.unparse(statement)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            trusted |= {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
            steps.append(Step(imports=text))
        elif isinstance(statement, ast.Assert):
            hoist = _Hoist(frozenset(trusted), name, text)
            check = ast.unparse(hoist.visit(statement.test))
            if not hoist.probes:
                raise DataError(f"{name}: an assertion calls nothing of the program: {text[:80]!r}")
            steps.append(Step(probes=hoist.probes, check=check))
        elif any(isinstance(node, ast.Assert) for node in ast.walk(statement)):
            raise DataError(f"{name}: assertions inside other statements cannot be taken apart; "
                            f"write them one by one: {text[:80]!r}")
        else:
            steps.append(Step(run=text))
    if not any(step.check for step in steps):
        raise DataError(f"{name}: a test asserts nothing: {source[:80]!r}")
    return AssertTest(tuple(steps))


class _Hoist(ast.NodeTransformer):
    """Replaces each maximal expression that starts from a name of the program by a probe."""

    def __init__(self, trusted: frozenset[str], name: str, where: str) -> None:
        self.trusted = trusted
        self.name = name
        self.where = where
        self.probes: dict[str, str] = {}

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript | ast.Call):
            root = _root(node)
            if root is not None and root not in self.trusted:
                name = PROBE.format(len(self.probes))
                self.probes[name] = ast.unparse(node)
                return ast.copy_location(ast.Name(name, ast.Load()), node)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
                      | ast.Lambda | ast.NamedExpr | ast.Await):
            if _free_names(node) - self.trusted:
                raise DataError(f"{self.name}: a test calls the program inside a comprehension or "
                                f"lambda; write one assertion per value: {self.where[:80]!r}")
            return node
        return self.generic_visit(node)


def _root(node: ast.AST) -> str | None:
    """The name that a chain of calls, attributes and subscripts starts from."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _free_names(node: ast.AST) -> set[str]:
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
    bound = {n.id for n in names if isinstance(n.ctx, ast.Store)}
    bound |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    return {n.id for n in names if isinstance(n.ctx, ast.Load)} - bound
