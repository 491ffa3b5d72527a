"""Programs: the last fenced Python block is run against tests in a sandbox (extra ``code``).

The sandbox is pydantic-monty: an interpreter of its own, in a process of its own, without files,
network, environment, clock tricks or access to this Python. It enforces time and memory, and what
it cannot run it names. The program never sees the expected values
(:mod:`safeladder.verifiers.code_tests`).

Who is to blame decides what a failure is. The *program's* failures score 0: it raises, is no
Python, returns the wrong thing, runs too long (``time_limit``) or takes too much memory
(``memory_limit``). Failures of the *judge* are abstentions: the sandbox died, the worker around it
is late or dead, or the program uses what the sandbox does not know (``unsupported: fail`` scores
it 0 instead; without it a policy that gives up on a test can abstain by using such a thing, which
earns nothing, but is counted and above the threshold stops the run).

Known not to run (1.4): generators (``yield``), inheritance, ``property`` and other decorators of
methods, ``del``, ``sys.stdin``, ``EOFError``, files, and modules such as heapq, string or numpy.
Values move out of the sandbox as plain data: a Counter as a dict, a deque or a generator expression
as a list, an object of a class of the program not at all.
"""

from __future__ import annotations

import builtins
import functools
import math
import re
import reprlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, FiniteFloat, model_validator

from safeladder.config import StrictModel
from safeladder.errors import import_extra
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.base import abstention
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.code_tests import AssertTest, CallCase, StreamCase, Test, read_tests
from safeladder.verifiers.format import after_think
from safeladder.verifiers.workers import Isolation

MAX_CHARS = 50_000
"""A longer program (characters) is not run and scores 0."""
MAX_CALLS = 10_000
"""Calls of ``input()`` per test."""
GRACE = 2.0
"""Seconds past the limit before the sandbox's process is killed."""

_LANGUAGES = frozenset(["", "python", "py", "python3"])
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CANNOT = re.compile(r"^(?:NotImplementedError: .*\bmonty\b"
                     r"|ModuleNotFoundError: No module named '(?P<module>\w+)"
                     r"|AttributeError: module '(?P<owner>\w+)' has no attribute "
                     r"'(?P<attribute>\w+)"
                     r"|NameError: name '(?P<name>\w+)' is not defined)")

Failure = Literal["wrong", "error", "time_limit", "memory_limit", "unsupported"]


class Code(StrictModel):
    """1 when the program of the response passes all tests, else 0 (or the share that it passes).

    Read is the last closed fenced block that follows the thinking and is marked as Python or not
    at all. The reference is one of::

        {"tests": ["assert f(1) == 2", ...], "setup": "import math"}
        {"function": "f", "cases": [{"input": [1], "output": 2}, ...]}
        {"cases": [{"stdin": "3 4", "stdout": "7"}, ...]}

    A test may hold statements before its assertion, which run beside the program. Outputs of
    functions are equal when type (list and tuple are one), structure and values are, floats within
    1e-9 relative; printed text is compared line by line without white space at line ends.

    Classes: ``correct``, ``partial``, ``wrong``, ``error`` (raised, or no Python), ``time_limit``,
    ``memory_limit``, ``unsupported`` (if that fails), ``no_program``. Parts: ``passed``, the share.
    """

    type: Literal["code"] = "code"
    name: str = "code"
    score: Literal["all", "share"] = "all"
    time_limit: FiniteFloat = Field(
        default=5.0, gt=0, description="seconds for all tests of one program together")
    memory_mb: int = Field(default=128, ge=8, description="memory of a program, MiB")
    unsupported: Literal["abstain", "fail"] = Field(
        default="abstain", description="what a program is worth that needs more than the sandbox")
    isolate: Isolation | None = Field(
        default=Isolation(time_limit=30.0), description="null: the sandbox's process only")

    needs: ClassVar[tuple[str, str]] = ("pydantic_monty", "code")
    cases: ClassVar[tuple[Case, ...]]

    @model_validator(mode="after")
    def _judge_outlasts_the_program(self) -> Code:
        longest = 2 * self.time_limit + GRACE + 1
        if self.isolate is not None and self.isolate.time_limit < longest:
            raise ValueError(f"isolate.time_limit must be at least {longest} s (twice time_limit "
                             "and a margin): a slow program has to fail, not the judge")
        return self

    def prepare(self) -> None:
        """Start the sandbox, outside the first verdict's time limit."""
        _pool(self.time_limit)

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Run the tests; raises DataError when the reference cannot be read."""
        tests = read_tests(trajectory.prompt.reference, self.name)
        program = last_program(after_think(trajectory.response))
        if program is None or not program.strip() or len(program) > MAX_CHARS:
            return self._verdict(0, len(tests), "no_program", "no closed block of Python, or too "
                                 "long a one")
        deadline = time.monotonic() + self.time_limit
        passed, first = 0, _Result("correct", "")
        for number, test in enumerate(tests):
            result = self._run(program, test)
            if result.kind == "unsupported" and self.unsupported == "abstain":
                return abstention(self.name, f"the sandbox cannot run this: {result.reason}")
            passed += result.kind == "correct"
            if result.kind != "correct" and first.kind == "correct":
                first = _Result(result.kind, f"test {number + 1}: {result.reason}")
            if result.kind == "time_limit" or (time.monotonic() > deadline
                                               and number + 1 < len(tests)):
                first = first if first.kind != "correct" else _Result("time_limit", "all tests")
                break
        kind = "partial" if first.kind == "wrong" and passed else first.kind
        return self._verdict(passed, len(tests), kind, first.reason)

    def _verdict(self, passed: int, total: int, verdict_class: str, reason: str) -> Verdict:
        share = passed / total
        score = share if self.score == "share" else float(passed == total)
        return Verdict(self.name, score, verdict_class, reason=reason[:500],
                       parts={"passed": share})

    def _run(self, program: str, test: Test) -> _Result:
        limits = {"max_feed_duration_secs": self.time_limit, "max_suspensions": MAX_CALLS,
                  "max_memory": self.memory_mb * 2**20}
        sandbox = _Sandbox(_pool(self.time_limit), limits)
        try:
            if isinstance(test, StreamCase):
                return _run_stream(sandbox, program, test)
            with sandbox.session() as session:
                sandbox.feed(session, program)
                if isinstance(test, CallCase):
                    call = f"{test.function}(*_arguments)"
                    value = sandbox.feed(session, call, inputs={"_arguments": list(test.arguments)})
                    return _compared(value, test.expected)
                return _run_assertions(sandbox, session, test)
        except _ProgramError as error:
            return _Result(error.kind, str(error))


class _Result(NamedTuple):
    kind: Literal["correct"] | Failure
    reason: str


class _ProgramError(Exception):
    """The program failed; ``kind`` says how."""

    def __init__(self, kind: Failure, reason: str) -> None:
        super().__init__(reason)
        self.kind: Failure = kind


class _Sandbox(NamedTuple):
    """Sessions of the interpreter, and what their errors mean."""

    pool: Any
    limits: Mapping[str, Any]

    def session(self) -> Any:
        """A fresh one: nothing of an earlier program is in it."""
        return self.pool.checkout(limits=dict(self.limits),
                                  os_policy={"sleep": "zero", "random_start": {"seed": 0}})

    def feed(self, session: Any, source: str, **options: Any) -> Any:
        """Run source and return the value of its last expression; raises _ProgramError."""
        import pydantic_monty as monty

        try:
            return session.feed_run(source, **{
                "print_callback": _drop, "external_lookup": {"input": _no_input}, **options})
        except monty.MontyCrashedError as error:
            if error.timed_out:
                raise _ProgramError("time_limit", "killed after the time limit") from None
            raise
        except (monty.MontySyntaxError, monty.MontyRuntimeError) as error:
            raise _ProgramError(*_blame(error)) from None


def _drop(stream: str, text: str) -> None:
    """What a program prints while functions are tested goes nowhere."""


def _no_input(prompt: str = "") -> str:
    """There is nobody to type."""
    raise EOFError("EOF when reading a line")


@functools.lru_cache(maxsize=8)
def _pool(time_limit: float) -> Any:
    pydantic_monty = import_extra("pydantic_monty", "code", "the code verifier")
    return pydantic_monty.Monty(max_processes=2, request_timeout=time_limit + GRACE).__enter__()


def _blame(error: Any) -> tuple[Failure, str]:
    """What an exception of the sandboxed program says of it."""
    text = " ".join(str(error).split())[:300]
    inner = error.exception()
    if isinstance(inner, TimeoutError) and "time limit exceeded" in text:
        return "time_limit", text
    if isinstance(inner, MemoryError):
        return "memory_limit", text
    match = _CANNOT.match(text)
    if match is None:
        return "error", text
    known = (not any(match.groups())
             or match["module"] in sys.stdlib_module_names
             or (match["owner"] in sys.stdlib_module_names
                 and _has(match["owner"], match["attribute"]))
             or (match["name"] is not None and hasattr(builtins, match["name"])))
    return ("unsupported" if known else "error"), text


def _has(module: str, attribute: str) -> bool:
    """Whether Python's own module has what the sandbox's has not; only loaded ones are looked at.

    Importing a module because a program names it would run code here.
    """
    loaded = sys.modules.get(module)
    return loaded is None or hasattr(loaded, attribute)


def _run_assertions(sandbox: _Sandbox, session: Any, test: AssertTest) -> _Result:
    """Probes where the program is, checks where it is not."""
    with sandbox.session() as clean:
        for step in test.steps:
            if step.imports:
                sandbox.feed(session, step.imports)
                sandbox.feed(clean, step.imports)
            if step.run:
                sandbox.feed(session, step.run)
            if not step.check:
                continue
            values = {name: sandbox.feed(session, source) for name, source in step.probes.items()}
            strange = next((v for v in values.values() if not is_plain(v)), None)
            if strange is not None:
                return _Result("wrong", f"returned an object: {type(strange).__name__}")
            try:
                holds = bool(sandbox.feed(clean, f"bool({step.check})", inputs=values))
            except _ProgramError as error:
                # An assertion that cannot be evaluated on the value does not hold for it.
                if error.kind == "error":
                    return _Result("wrong", f"{step.check[:100]}: {error}")
                raise
            if not holds:
                return _Result("wrong", f"{step.check[:100]} with {_shown(values)}")
    return _Result("correct", "")


def _run_stream(sandbox: _Sandbox, program: str, case: StreamCase) -> _Result:
    import pydantic_monty

    lines = iter(case.stdin.splitlines())
    printed = pydantic_monty.CollectString()

    def read(prompt: str = "") -> str:
        line = next(lines, None)
        return _no_input() if line is None else line

    with sandbox.session() as session:
        sandbox.feed(session, program, external_lookup={"input": read}, print_callback=printed)
    found, wanted = (_lines(text) for text in (printed.output, case.stdout))
    return _Result("correct", "") if found == wanted else _Result(
        "wrong", f"printed {printed.output!r:.100}, expected {case.stdout!r:.100}")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _compared(value: Any, expected: Any) -> _Result:
    if is_plain(value) and same_value(value, expected):
        return _Result("correct", "")
    return _Result("wrong", f"returned {_shown(value)}, expected {_shown(expected)}")


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"a long {type(value).__name__}"


def is_plain(value: Any) -> bool:
    """Whether a value is data all the way down, of Python's own types."""
    rest = [value]
    while rest:
        one = rest.pop()
        if type(one) in (list, tuple, set, frozenset):
            rest.extend(one)
        elif type(one) is dict:
            rest.extend(one.keys())
            rest.extend(one.values())
        elif type(one) not in _PLAIN:
            return False
    return True


def same_value(value: Any, expected: Any) -> bool:
    """Equality of plain data that JSON can hold: list and tuple are one, True is not 1."""
    if isinstance(expected, list | tuple):
        return (isinstance(value, list | tuple) and len(value) == len(expected)
                and all(map(same_value, value, expected)))
    if isinstance(expected, Mapping):
        return (isinstance(value, dict) and value.keys() == expected.keys()
                and all(same_value(value[key], expected[key]) for key in expected))
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, int | float) and isinstance(expected, int | float):
        if isinstance(value, int) and isinstance(expected, int):
            return value == expected
        try:
            return math.isclose(value, expected, rel_tol=1e-9, abs_tol=0.0)
        except OverflowError:  # an integer beyond all floats
            return False
    return type(value) is type(expected) and bool(value == expected)


def last_program(text: str) -> str | None:
    """The last closed fenced block marked as Python, or not marked; None without one."""
    found: str | None = None
    for language, block in _blocks(text):
        if language in _LANGUAGES:
            found = block
    return found


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of closed fenced blocks, line by line."""
    fence, language, lines = "", "", list[str]()
    for line in text.split("\n"):
        bare = line.strip()
        if not fence:
            if bare.startswith("```"):
                fence = "`" * (len(bare) - len(bare.lstrip("`")))
                words = bare[len(fence):].split()
                language, lines = (words[0].lower() if words else ""), []
        elif bare == fence:
            yield language, "\n".join(lines)
            fence = ""
        else:
            lines.append(line)


def _block(program: str) -> str:
    return f"<think>f adds one</think>So:\n```python\n{program}\n```\nDone."


_TESTS = {"tests": ["assert f(1) == 2", "assert f(-1) == 0"]}
_CALLS = {"function": "f", "cases": [{"input": [1], "output": 2}, {"input": [5], "output": 6}]}
_STREAM = {"cases": [{"stdin": "3 4\n", "stdout": "7\n"}]}
_RIGHT = "def f(x):\n    return x + 1"
_SAME = "class Same:\n    def __eq__(self, other):\n        return True\n"
Code.cases = (
    Case("good", _block(_RIGHT), 1.0, _TESTS, "correct"),
    Case("good", _block(_RIGHT), 1.0, _CALLS, "correct"),
    Case("good", _block("def f(x):\n    return x") + _block(_RIGHT)[26:], 1.0, _TESTS, "correct"),
    Case("good", _block("a, b = map(int, input().split())\nprint(a + b)"), 1.0, _STREAM, "correct"),
    Case("bad", _block("def f(x):\n    return 2"), 0.0, _TESTS, "partial"),
    Case("bad", _block("def f(x):\n    return x"), 0.0, _TESTS, "wrong"),
    Case("bad", _block("def f(x:"), 0.0, _TESTS, "error"),
    Case("bad", _block("raise SystemExit(0)"), 0.0, _TESTS, "error"),
    Case("bad", _block(f"{_SAME}def f(x):\n    return Same()"), 0.0, _TESTS, "wrong"),
    Case("bad", _block("def f(x):\n    return open('/etc/passwd').read()"), 0.0, _CALLS, "error"),
    Case("bad", _block("def f(x):\n    return [0] * 10**9"), 0.0, _CALLS, "memory_limit"),
    Case("bad", _block("def f(x):\n    return 9**9**9**9"), 0.0, _CALLS, "memory_limit"),
    Case("bad", "<think>f</think>\ndef f(x):\n    return x + 1", 0.0, _TESTS, "no_program"),
    Case("bad", f"<think>```python\n{_RIGHT}\n```", 0.0, _TESTS, "no_program"),
    Case("bad", f"```python\n{_RIGHT}", 0.0, _TESTS, "no_program"),
    *(Case("hostile", text, 0.0, _TESTS) for text in HOSTILE_TEXTS),
    *(Case("hostile", f"```python\n{text}\n```", 0.0, _TESTS) for text in HOSTILE_TEXTS),
)
