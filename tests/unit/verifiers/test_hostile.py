"""Rule verifiers under fire, briefly; tests/acceptance/test_verifiers.py has the long version."""

import time
from dataclasses import replace

import pytest

from safeladder.types import Verdict
from safeladder.verifiers.check_all import shipped_types
from safeladder.verifiers.format import ThinkFormat
from safeladder.verifiers.hostile import HUGE, KINDS, hostile_text
from safeladder.verifiers.hostile_targets import TARGETS, assail, fragments_of
from safeladder.verifiers.registry import VERIFIERS

IN_WORKERS = [kind for kind in TARGETS if "isolate" in VERIFIERS[kind].model_fields]
IN_PROCESS = [kind for kind in TARGETS if kind not in IN_WORKERS]


def test_every_complete_type_has_a_target():
    assert set(TARGETS) == set(shipped_types())


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_rules_hold(kind):
    outcome = assail(kind, count=200)
    assert outcome.texts == 200
    assert outcome.huge >= 2
    assert outcome.held, outcome.examples


@pytest.mark.parametrize("kind", IN_WORKERS)
def test_rules_in_workers_hold(kind):
    target = TARGETS[kind][-1]
    one = replace(target, settings={**target.settings, "isolate": {"workers": 1}})
    outcome = assail(kind, count=30, seed=1, targets=[one])
    assert outcome.texts == 30
    assert outcome.held, outcome.examples


def test_texts_depend_on_seed_and_number_alone():
    pieces = fragments_of()
    first = [hostile_text(3, i, pieces) for i in range(100)]
    assert [hostile_text(3, i, pieces) for i in reversed(range(100))] == first[::-1]
    assert len(set(first)) > 90
    assert hostile_text(4, 0, pieces) != first[0]


def test_two_in_a_hundred_have_a_line_of_a_million_characters():
    texts = [hostile_text(0, i) for i in range(300)]
    huge = [text for text in texts if max(map(len, text.split("\n"))) >= HUGE]
    assert len(huge) >= 6
    assert max(map(len, texts)) < 1.2 * HUGE


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_text_is_drawn(kind, monkeypatch):
    drawn = []
    monkeypatch.setattr("safeladder.verifiers.hostile.KINDS", tuple(
        (lambda rng, pieces, one=one: drawn.append(one) or one(rng, pieces)) for one in KINDS))
    for i in range(200):
        hostile_text(0, i)
    assert kind in drawn


def broken(verify, monkeypatch):
    monkeypatch.setattr(ThinkFormat, "verify", verify)
    return assail("format", count=5)


def test_a_fooled_verifier_is_seen(monkeypatch):
    outcome = broken(lambda self, row: Verdict(self.name, 1.0), monkeypatch)
    assert (outcome.full, outcome.crashes, outcome.late, outcome.held) == (5, 0, 0, False)
    assert outcome.examples[0].startswith("score 1.0: ")


def test_a_crash_is_seen(monkeypatch):
    outcome = broken(lambda self, row: 1 / 0, monkeypatch)
    assert (outcome.full, outcome.crashes, outcome.held) == (0, 5, False)
    assert outcome.examples[0].startswith("ZeroDivisionError: division by zero: ")


def test_a_slow_verdict_is_seen(monkeypatch):
    def slow(self, row):
        end = time.thread_time() + 0.3
        while time.thread_time() < end and row.response == hostile_text(0, 0, fragments_of()):
            pass
        return Verdict(self.name, 0.0)
    monkeypatch.setattr("safeladder.verifiers.hostile_targets.RULE_SECONDS", 0.25)
    outcome = broken(slow, monkeypatch)
    assert (outcome.late, outcome.crashes, outcome.held) == (1, 0, False)
