"""Behaviours are counted by rules that are data."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.verifiers import behaviour_rates, behaviours
from safeladder.verifiers.behaviours import ENGLISH, Rule


def shown(text, rules=ENGLISH):
    return {name for name, holds in behaviours(text, rules).items() if holds}


@pytest.mark.parametrize(("text", "expected"), [
    ("Zoey is a knight, so Ethan lies.", set()),
    ("Let me check this again.", {"verify"}),
    ("We verify\n  each claim.", {"verify"}),
    ("LET'S CHECK", {"verify"}),
    ("Checkers is a game.", set()),
    ("Wait, that cannot be.", {"reflect"}),
    ("The waiter is a knave.", set()),
    ("We await the answer.", set()),
    ("Hmm. Actually yes.", {"reflect"}),
    ("This is a contradiction.", set()),
    ("This is a contradiction. Now suppose Zoey is a knave.", {"reflect"}),
    ("Suppose Zoey is a knave. This is a contradiction.", set()),
    ("In summary, Zoey is a knave.", {"summarise"}),
    ("On second  thought, let me double-check. To conclude: both.",
     {"verify", "reflect", "summarise"}),
    ("", set()),
])
def test_english_rules(text, expected):
    assert shown(text) == expected


def test_a_world_brings_its_own_words():
    rules = {"reflect": (Rule(("= no",), then=("try",)),), "verify": (Rule(("check :",)),)}
    assert shown("try A+ = no try A- = yes", rules) == {"reflect"}
    assert shown("try A+ = no", rules) == set()
    assert shown("check : A+ = yes", rules) == {"verify"}
    assert shown("check A+ = not try", rules) == set()


def test_rates_are_shares_of_texts():
    texts = ["wait", "wait, let me check", "so", "in summary"]
    assert behaviour_rates(texts) == {"verify": 0.25, "reflect": 0.5, "summarise": 0.25}
    assert behaviour_rates([]) == {}


def test_an_empty_phrase_would_hold_everywhere_and_is_refused():
    for phrases, then in [((), ()), (("",), ()), (("a", " "), ()), (("a",), ("",))]:
        with pytest.raises(ValueError, match="phrases"):
            Rule(phrases, then)


@given(st.text())
def test_any_text_has_an_answer(text):
    assert set(behaviours(text)) == {"verify", "reflect", "summarise"}


def test_a_megabyte_is_quick():
    started = time.process_time()
    for text in ("let me " * 150_000, "contradiction " * 80_000, "w" * 1_000_000, " " * 1_000_000,
                 "no," + " " * 1_000_000):
        behaviours(text)
    assert time.process_time() - started < 10
