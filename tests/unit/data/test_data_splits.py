import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.data.splits import key_of, part_of, split_by_key
from safeladder.errors import ConfigError, DataError
from safeladder.types import Message, Prompt

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def row(number, key):
    return Prompt(f"p{number}", (Message("user", "q"),), meta={"structure": key, "a": {"b": key}})


@given(st.lists(st.integers(0, 30), max_size=60))
def test_no_key_is_in_two_parts_and_no_row_is_lost(keys):
    rows = [row(i, key) for i, key in enumerate(keys)]
    parts = split_by_key(rows, "structure", FRACTIONS)
    found = [{p.meta["structure"] for p in part} for part in parts.values()]
    assert sum(map(len, found)) == len(set(keys))
    assert sorted(p.id for part in parts.values() for p in part) == sorted(p.id for p in rows)


def test_a_row_stays_where_it_is_when_others_come():
    few = split_by_key([row(i, i) for i in range(50)], "structure", FRACTIONS)
    many = split_by_key([row(i, i) for i in range(500)], "structure", FRACTIONS)
    for name, part in few.items():
        assert part == [p for p in many[name] if int(p.id[1:]) < 50]
    # 400, 50, 50 expected; binomial standard deviations 9, 7, 7.
    assert [abs(len(many[n]) - 500 * f) < 35 for n, f in FRACTIONS.items()] == [True] * 3


def test_the_split_is_pinned():
    # A split that moved between versions would leak test rows into training.
    parts = [part_of(key, FRACTIONS) for key in range(12)]
    assert parts == PINNED
    assert [part_of(key, FRACTIONS, salt="x") for key in range(12)] != parts


PINNED = ["validation", "train", "test", *["train"] * 9]


def test_keys():
    prompt = row(1, "k")
    assert key_of(prompt, "structure") == key_of(prompt, "a.b") == "k"
    assert key_of(prompt, "id") == "p1"
    assert key_of(prompt, lambda p: len(p.messages)) == 1
    with pytest.raises(DataError, match=r"prompt p1: meta has no 'a\.c'"):
        key_of(prompt, "a.c")


@pytest.mark.parametrize("fractions", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 1.0, "b": 0.0}, {}])
def test_fractions_must_cut_the_whole(fractions):
    with pytest.raises(ConfigError, match="sum to 1"):
        part_of("k", fractions)
