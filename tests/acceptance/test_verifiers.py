"""Rule verifiers against 10,000 hostile texts each."""

import pytest

from safeladder.verifiers.hostile_targets import TARGETS, assail

TEXTS = 10_000


@pytest.mark.parametrize("kind", TARGETS)
def test_hostile_texts(kind, figures):
    outcome = assail(kind, TEXTS, seed=2)
    figures.update(
        texts=outcome.texts, of_a_million_characters=outcome.huge, crashes=outcome.crashes,
        late=outcome.late, false_full_scores=outcome.full, abstained=dict(outcome.abstained),
        slowest_seconds=round(outcome.slowest, 3), seconds=round(outcome.seconds, 1))
    assert outcome.texts == TEXTS
    assert outcome.huge >= TEXTS / 100
    assert outcome.held, outcome.examples
