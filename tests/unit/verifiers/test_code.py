"""Programs are run, their tricks gain nothing, and each failure is somebody's."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.config import validate
from safeladder.errors import ConfigError, DataError
from safeladder.verifiers.cases import trajectory_of
from safeladder.verifiers.code import Code, is_plain, last_program, same_value
from safeladder.verifiers.code_tests import read_tests
from safeladder.verifiers.workers import Isolated, Isolation

ADD = {"tests": ["assert f(1) == 2", "assert f(-1) == 0", "assert f(9) == 10"]}
CALLS = {"function": "f", "cases": [{"input": [1], "output": 2}, {"input": [5], "output": 6}]}


def judged(program, reference=ADD, **fields):
    row = trajectory_of(f"<think>x</think>```python\n{program}\n```", reference)
    return Code(isolate=None, **fields).verify(row)


@pytest.mark.parametrize(("program", "verdict_class", "passed"), [
    ("def f(x): return x + 1", "correct", 1), ("f = lambda x: x + 1", "correct", 1),
    ("def f(x): return 2", "partial", 1 / 3), ("def f(x): return x", "wrong", 0),
    ("def g(x): return x + 1", "error", 0), ("def f(x): return x + 1\nf(1, 2)", "error", 0),
    ("def f(x): return None", "wrong", 0), ("def f(x:", "error", 0), ("1/0", "error", 0),
    ("def f(x):\n    return input()", "error", 0),
    ("def f(x): return 'a' * 10**9", "memory_limit", 0), ("x = f = 10**10**10", "memory_limit", 0),
    ("def f(x): return f(x)", "error", 0), ("", "no_program", 0),
    ("def f(x): return 10**5000", "wrong", 0),
])
def test_verdicts(program, verdict_class, passed):
    verdict = judged(program)
    assert verdict.verdict_class == verdict_class
    assert verdict.parts["passed"] == pytest.approx(passed)
    assert verdict.score == float(verdict_class == "correct")
    assert judged(program, score="share").score == pytest.approx(passed)


@pytest.mark.parametrize("program", [
    "class S:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n"
    "def f(x): return S()",
    "class S:\n    def __eq__(self, o): return True\ndef f(x): return [S()]",
    "class S:\n    def __sub__(self, o): return S()\n    def __lt__(self, o): return True\n"
    "    def __abs__(self): return self\ndef f(x): return S()",
    "abs = lambda x: 0\nsorted = lambda x: [1, 2]\nlen = lambda x: 2\ndef f(x): return 0",
    "def f(x): return _probe_0", "_probe_0 = 2\ndef f(x): return x",
    "raise SystemExit", "import sys\nsys.exit(0)", "exit()", "import os\nos._exit(0)",
    "def f(x):\n    assert False", "f = bool", "def f(x): return True",
    "def f(x): return float('nan')",
    "bool = lambda x: True\ndef f(x): return 0",
])
@pytest.mark.parametrize("reference", [
    {"tests": ["assert f(7) == 2"]}, {"tests": ["assert abs(f(7) - 2.5) < 1e-6"]},
    {"tests": ["assert sorted(f(7)) == [1, 2]"]}, {"tests": ["assert len(f(7)) == 2"]},
    {"function": "f", "cases": [{"input": [7], "output": 2}]},
])
def test_tricks(program, reference):
    verdict = judged(program, reference)
    # "unsupported" would abstain: that is no score either.
    assert verdict.score in (0.0, None)


@pytest.mark.parametrize(("tests", "program"), [
    (["import math\nassert math.isclose(f(2), 1.5)"], "def f(x): return x - .5"),
    (["x = [2, 1]\nf(x)\nassert x == [1, 2]"], "def f(x): x.sort()"),
    (["assert f(1) is True and not f(2)"], "def f(x): return x == 1"),
    (["assert sorted(f([2, 1]), reverse=True) == [2, 1], 'sorted'"], "def f(x): return x"),
    (["assert f(1)[0] == f(2)[1] == 7"], "def f(x): return [7, 7]"),
    (["s = S()\ns.push(3)\nassert s.pop() == 3"],
     "class S:\n    def __init__(self): self.a = []\n    def push(self, x): self.a.append(x)\n"
     "    def pop(self): return self.a.pop()"),
    (["assert f({'a': 1}) == {'a': (1, {2})}"], "def f(x): return {'a': (1, {2})}"),
    (["assert f(3) in [i * i for i in range(4)]"], "def f(x): return 9"),
])
def test_forms_of_assertions(tests, program):
    assert judged(program, {"tests": tests}).verdict_class == "correct"
    assert judged("def f(x): return 5\nclass S: pass", {"tests": tests}).score == 0.0


def test_setup_is_shared_by_all_tests():
    reference = {"setup": "import math\nx = 2", "tests": ["assert f(x) == math.floor(3.5)"]}
    assert judged("def f(x): return x + 1", reference).score == 1.0


def test_a_program_starts_anew_for_every_test():
    counter = "n = 0\ndef f(x):\n    global n\n    n += 1\n    return n"
    reference = {"tests": ["assert f(1) == 1", "assert f(1) == 1"]}
    assert judged(counter, reference).score == 1.0


def test_slow_programs_fail_and_slow_tests_together():
    started = time.monotonic()
    assert judged("while True: pass", time_limit=0.3).verdict_class == "time_limit"
    assert judged("def f(x):\n    while True: pass", time_limit=0.3).verdict_class == "time_limit"
    caught = ("def f(x):\n    try:\n        while True: pass\n"
              "    except BaseException:\n        return 2")
    assert judged(caught, time_limit=0.3).verdict_class == "time_limit"
    slow = ("import time\nend = time.time() + .2\nwhile time.time() < end: pass\n"
            "def f(x): return x + 1")
    verdict = judged(slow, {"tests": ADD["tests"] * 9}, time_limit=0.5)
    assert (verdict.score, verdict.verdict_class) == (0.0, "time_limit")
    assert time.monotonic() - started < 8


def test_sleeping_costs_nothing():
    started = time.monotonic()
    assert judged("import time\ntime.sleep(60)\ndef f(x): return x + 1").score == 1.0
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("program", [
    "def f(x):\n    yield x", "import heapq\ndef f(x): return x + 1", "import string",
    "class A: pass\nclass B(A): pass", "def f(x): return globals()"])
def test_what_the_sandbox_cannot_run_is_not_wrong(program):
    verdict = judged(program)
    assert verdict.score is None and "cannot run" in verdict.error
    assert judged(program, unsupported="fail").verdict_class == "unsupported"


@pytest.mark.parametrize("program", ["import numpy", "import no_such_thing", "no_such_name",
                                     "import math\nmath.no_such_thing",
                                     "raise NotImplementedError"])
def test_what_nobody_could_run_is_wrong(program):
    assert judged(program).verdict_class == "error"


def test_the_sandbox_reaches_nothing(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("2")
    for source in (f"open({str(secret)!r}).read()", "__import__('os').environ['PATH']",
                   f"__import__('pathlib').Path({str(secret)!r}).read_text()"):
        verdict = judged(f"def f(x): return int({source})")
        assert verdict.score in (0.0, None)
    judged(f"open({str(tmp_path / 'new')!r}, 'w').write('x')")
    assert not (tmp_path / "new").exists()


def test_streams():
    reference = {"cases": [{"stdin": "2\n3 4\n", "stdout": "7 \n\n"},
                           {"stdin": "1", "stdout": "0"}]}
    good = ("n = int(input())\nprint(sum(map(int, input().split())) if n > 1 else 0)")
    assert judged(good, reference).score == 1.0
    assert judged("print(7)", reference).parts["passed"] == 0.5
    assert judged("input()\ninput()\ninput()\ninput()", reference).verdict_class == "error"
    assert judged("while True:\n    try:\n        input()\n    except Exception:\n        pass",
                  reference, time_limit=0.5).score == 0.0


def test_calls_compare_types():
    for program, passed in (("lambda x: 2.0", True), ("lambda x: True", False),
                            ("lambda x: '2'", False), ("lambda x: [2]", False)):
        reference = {"function": "f", "cases": [{"input": [1], "output": 2}]}
        assert judged(f"f = {program}", reference).score == float(passed), program
    assert judged("f = lambda: (1, [2])", {"function": "f", "cases": [
        {"input": [], "output": [1, [2]]}]}).score == 1.0


@pytest.mark.parametrize(("value", "expected", "same"), [
    ([1, (2,)], [1, [2]], True), ({"a": 1}, {"a": 1.0}, True), (1, True, False),
    (0.1 + 0.2, 0.3, True), (1, 1 + 1e-6, False), (10**400, 1.5, False),
    (10**17, 10**17 + 1, False), ("1", 1, False),
    (None, None, True), (None, 0, False), (float("nan"), float("nan"), False), ([1], [1, 2], False),
    ({"a": 1}, {"b": 1}, False), ({1}, [1], False)])
def test_equality_of_data(value, expected, same):
    assert same_value(value, expected) == same


def test_plain_data():
    assert is_plain([1, {"a": (None, {2.0}, b"x", frozenset([True]))}])
    assert not is_plain([object()]) and not is_plain({"a": {1: type}})
    assert not is_plain(type("L", (list,), {})())


@pytest.mark.parametrize(("text", "program"), [
    ("```python\na\n```", "a"), ("```py\na\n```\n```\nb\n```", "b"),
    ("```python\na\n```\n```bash\nb\n```", "a"), ("```python\na", None), ("a", None),
    ("``a``", None), ("```python\na\n```\n```python\nb", "a"),
    ("````python\n```\na\n````", "```\na"),
    ("```Python title=x\na\n  ```", "a"), ("```python a```", None), ("```\n```", "")])
def test_blocks(text, program):
    assert last_program(text) == program


@pytest.mark.parametrize("reference", [
    None, "assert f(1) == 2", [], {}, {"tests": []}, {"tests": [1]}, {"tests": ["assert f("]},
    {"tests": ["f(1)"]}, {"tests": ["assert True"]}, {"tests": ["assert sorted([1]) == [1]"]},
    {"tests": ["for x in [1]:\n    assert f(x)"]}, {"tests": ["assert all(f(i) for i in [1])"]},
    {"tests": ["assert (lambda: f(1))()"]}, {"cases": []},
    {"cases": [{"input": [1], "output": 2}]},
    {"function": "f(", "cases": [{"input": [1], "output": 2}]},
    {"function": "f", "cases": [{"input": 1, "output": 2}]},
    {"tests": ["assert f(1)"], "setup": 1}])
def test_a_reference_that_tests_nothing_is_no_wrong_answer(reference):
    with pytest.raises(DataError):
        read_tests(reference)


def test_a_judge_must_outlast_a_program():
    with pytest.raises(ConfigError, match="at least 23"):
        validate(Code, {"time_limit": 10, "isolate": {"time_limit": 20}}, "v")


def test_a_slow_program_fails_in_a_worker_too():
    rule = Code(time_limit=0.5)
    row = trajectory_of("```python\nwhile True: pass\n```", ADD)
    with Isolated(rule, Isolation(workers=1, time_limit=10)) as pool:
        (verdict,) = asyncio.run(pool.verify_many([row]))
    assert (verdict.score, verdict.verdict_class) == (0.0, "time_limit")


@given(st.text())
@settings(max_examples=20, deadline=None)
def test_any_text_gets_a_verdict(text):
    verdict = judged(text, CALLS, unsupported="fail", time_limit=1.0)
    assert verdict.score == 0.0


def test_many_fences_take_linear_time():
    for text in ("```x\n" * 200_000, "```\n" * 200_000, "`" * 1_000_000, "````\n```\n" * 100_000):
        started = time.process_time()
        last_program(text)
        assert time.process_time() - started < 1.0
