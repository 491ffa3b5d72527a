"""Killable workers: every way to misbehave ends in an abstention of its own, and heals."""

import asyncio
import dataclasses
import json
import os
import pickle
import threading
import time

import pytest

from safeladder.errors import ConfigError
from safeladder.types import Verdict
from safeladder.verifiers import Isolated, Isolation
from safeladder.verifiers.adapters import VerlScore
from safeladder.verifiers.cases import trajectory_of
from safeladder.verifiers.worker_main import _plain

COMPUTE = "reward_functions:compute_score"


@pytest.fixture(scope="module")
def pool():
    isolation = Isolation(workers=2, time_limit=1.5, memory_mb=512)
    with Isolated(VerlScore(path=COMPUTE), isolation) as isolated:
        isolated.start()
        yield isolated


def judge(pool, *responses):
    rows = [trajectory_of(response) for response in responses]
    return asyncio.run(pool.verify_many(rows))


HOSTILE = {
    "loop": "time limit 1.5 s",
    "fork": "time limit 1.5 s",
    "bomb": "memory limit 512 MB",
    "exit": "worker died: exit code 3",
    "abort": "worker died: signal SIGSEGV",
    "recurse": "RecursionError",
    "raise": "ZeroDivisionError: division by zero",
    "sysexit": "SystemExit: 4",
    "nan": "the function returned nan",
    "text": "ValueError: could not convert string to float",
}


@pytest.mark.parametrize("action", HOSTILE)
def test_misbehaviour_abstains_with_its_own_reason_and_the_pool_goes_on(pool, action):
    verdicts = judge(pool, f"{action} now", "good 0.75")
    assert verdicts[0].score is None
    assert verdicts[0].error.startswith(HOSTILE[action])
    assert verdicts[1].score == 0.75
    # both workers serve again, whichever of them it hit
    assert [v.score for v in judge(pool, *(f"good {i}" for i in range(6)))] == list(range(6))


def test_recursion_without_a_limit_abstains(pool):
    (verdict,) = judge(pool, "deep")
    assert verdict.score is None
    # which of these depends on the version of Python
    assert verdict.error.startswith(("worker died: signal", "memory limit", "SystemError"))
    assert judge(pool, "good 1")[0].score == 1.0


def pids_of(pool):
    return [worker.process.pid for worker in pool._workers]


@pytest.mark.parametrize(("action", "replaced"), [("bomb", 1), ("loop", 1), ("raise", 0)])
def test_a_worker_is_replaced_when_it_is_not_fit_to_go_on(pool, action, replaced):
    judge(pool, *["good 1"] * 8)
    before = pids_of(pool)
    judge(pool, action)
    judge(pool, *["good 1"] * 8)
    for worker in pool._workers:
        worker.ensure()
    assert len(set(before) - set(pids_of(pool))) == replaced


def test_what_a_verifier_started_is_killed_with_it(pool):
    judge(pool, *["good 1"] * 8)
    before = pids_of(pool)
    judge(pool, "fork")
    (ended,) = [pid for pid in before if not alive(pid)]
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and group_of(pid) == ended]


def group_of(pid):
    """Process group of a living process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[2]) if fields[0] != "Z" else None
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_verdicts_come_back_in_order_from_a_thread_that_is_not_the_main_one(pool):
    found = []
    work = ["good 0", "loop", "good 2", "exit", "good 4", "good 5"]
    thread = threading.Thread(target=lambda: found.extend(judge(pool, *work)))
    thread.start()
    thread.join(30)
    assert [v.score for v in found] == [0.0, None, 2.0, None, 4.0, 5.0]


def test_what_a_verifier_prints_or_reads_cannot_forge_a_verdict(pool):
    assert judge(pool, "noise", "good 1")[0].score == 0.5
    assert judge(pool, "good 1")[0].score == 1.0


def test_long_requests_and_long_replies_pass(pool):
    verdicts = judge(pool, "good 1 " + "x" * 3_000_000, "huge")
    assert verdicts[0].score == 1.0
    assert len(verdicts[1].parts) == 20_000


def test_a_sleeping_verifier_is_killed_on_time(pool):
    started = time.monotonic()
    (verdict,) = judge(pool, "sleep")
    assert verdict.error == "time limit 1.5 s"
    assert time.monotonic() - started < 10


def test_a_verifier_that_cannot_be_built_says_so_once_for_all():
    with Isolated(VerlScore(path="no_such_module:f"), Isolation(workers=1)) as broken:
        with pytest.raises(ConfigError, match=r"verl.*no_such_module.*importable"):
            broken.start()
        with pytest.raises(ConfigError):
            judge(broken, "good 1")


class Local:
    """Lives in a test module under a name the child cannot import."""

    name = "local"

    def verify(self, trajectory):
        raise NotImplementedError


def test_a_class_that_the_child_cannot_import_is_a_config_error():
    verifier = Local()
    Local.__module__ = "__main__"
    try:
        import __main__
        __main__.Local = Local
        with (Isolated(verifier, Isolation(workers=1)) as isolated,
              pytest.raises(ConfigError, match="importable module")):
            isolated.start()
    finally:
        Local.__module__ = __name__
        del __main__.Local


def test_closing_ends_the_processes_and_everything_they_started():
    isolated = Isolated(VerlScore(path=COMPUTE), Isolation(workers=2, time_limit=30))
    isolated.start()
    pids = [worker.process.pid for worker in isolated._workers]
    isolated.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert isolated.judge(trajectory_of("good 1")).error == "worker died: it was closed"


def test_workers_end_when_their_owner_is_killed(tmp_path):
    import signal
    import subprocess
    import sys

    script = tmp_path / "owner.py"
    script.write_text(
        "import json, sys, time\n"
        "sys.path[:] = json.loads(sys.argv[1])\n"
        "import threading\n"
        "from safeladder.verifiers import Isolated, Isolation\n"
        "from safeladder.verifiers.adapters import VerlScore\n"
        "from safeladder.verifiers.cases import trajectory_of\n"
        "pool = Isolated(VerlScore(path='reward_functions:compute_score'),\n"
        "                Isolation(workers=2, time_limit=600))\n"
        "pool.start()\n"
        "row = trajectory_of('loop')\n"
        "threading.Thread(target=pool.judge, args=(row,), daemon=True).start()\n"
        "time.sleep(0.3)\n"
        "print(*[w.process.pid for w in pool._workers], flush=True)\n"
        "time.sleep(600)\n")
    import json
    owner = subprocess.Popen([sys.executable, str(script), json.dumps(sys.path)],
                             stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 15
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(pids) == 2
    assert not any(map(alive, pids))


def alive(pid):
    """A zombie nobody has reaped yet is not alive."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_pool_works_from_one_event_loop_after_another(pool):
    assert [judge(pool, "good 1")[0].score for _ in range(3)] == [1.0] * 3


def test_verdicts_survive_the_journey_whole(pool):
    isolated = Isolated(VerlScore(path="reward_functions:detailed"), Isolation(workers=1))
    with isolated:
        row = trajectory_of("\ud800 caf\u00e9", "\ud800 caf\u00e9", {"b": 1, "a": 2}, source="s")
        assert pickle.loads(pickle.dumps(row)).response == row.response
        verdict = isolated.judge(row)
    assert (verdict.verifier, verdict.score, verdict.parts) == ("verl", 1.0, {"length": 6.0})


def test_a_verdict_crosses_the_pipe_whole():
    verdict = Verdict("v", 0.5, "a", {"a": 0.75, "b": 0.25}, "why", None, {"x": 1.0}, "judge@12ab")
    fields = json.loads(json.dumps(_plain(verdict)))
    assert set(fields) == {field.name for field in dataclasses.fields(Verdict)}
    assert Verdict(**fields) == verdict
