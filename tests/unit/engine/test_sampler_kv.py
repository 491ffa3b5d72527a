"""The bookkeeping of keys and values, on numbers that can be followed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.engine.local.kv import KVCache, PrefixCache, Span


def fresh_cache() -> KVCache:
    return KVCache(num_layers=2, num_kv_heads=1, head_dim=2, like=torch.zeros(0))


def marked(values: list[int]) -> Span:
    """Keys and values that carry ``values`` in every place."""
    marks = torch.tensor(values, dtype=torch.float32)[:, None].expand(2, 1, len(values), 2)
    return Span(marks, marks)


def contents(cache: KVCache, row: int) -> list[int]:
    visible = cache.bias[row, cache.begin:cache.end] == 0
    window = cache.keys[1, row, 0, cache.begin:cache.end, 0]
    assert torch.equal(window[visible], cache.values[0, row, 0, cache.begin:cache.end, 1][visible])
    hidden = cache.bias[row, cache.begin:cache.end]
    assert bool((visible | torch.isinf(hidden)).all())
    return [int(value) for value in window[visible].tolist()]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(
    st.tuples(st.just("admit"), st.lists(st.integers(1, 90), min_size=1, max_size=3)),
    st.tuples(st.just("step"), st.integers(1, 60)),
    st.tuples(st.just("drop"), st.lists(st.integers(0, 11), min_size=1, max_size=4)),
), max_size=12))
def test_rows_keep_their_contents_whatever_happens_around_them(actions: list[object]) -> None:
    cache, rows, mark = fresh_cache(), list[list[int]](), 0
    for action, argument in actions:  # type: ignore[misc]  # tuples of the strategy above
        if action == "admit":
            new = [[mark := mark + 1 for _ in range(length)] for length in argument]
            cache.admit([marked(row) for row in new], [2] * len(new))
            rows += [list(row) for row in new for _ in range(2)]
        elif action == "step" and rows:
            for _ in range(argument):
                positions = cache.extend()
                assert positions.tolist() == [len(row) for row in rows]
                for row in rows:
                    row.append(mark := mark + 1)
                last = torch.tensor([row[-1] for row in rows], dtype=torch.float32)
                for layer in range(2):
                    written = last[:, None, None].expand(-1, 1, 2)
                    cache.write(layer, written, written, slice(0, len(rows)))
        elif action == "drop" and rows:
            gone = sorted({index % len(rows) for index in argument})
            order = cache.drop(gone)
            assert sorted(order) == [r for r in range(len(rows)) if r not in gone]
            rows = [rows[r] for r in order]
        assert cache.num_rows == len(rows)
        assert [contents(cache, r) for r in range(len(rows))] == rows
        for r, row in enumerate(rows):
            for copy in cache.row(r, len(row)):
                assert copy[1, 0, :, 1].tolist() == [float(value) for value in row]


def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    cache = fresh_cache()
    cache.admit([marked([1] * 10)], [1])
    for _ in range(40):
        for _ in range(50):
            cache.extend()
        cache.admit([marked([1] * 10)], [1])
        cache.drop([0])
    assert cache.bias.shape[1] <= 256


def test_dropping_moves_only_rows_into_holes() -> None:
    cache = fresh_cache()
    cache.admit([marked([r]) for r in range(6)], [1] * 6)
    assert cache.drop([1, 4]) == [0, 5, 2, 3]
    assert [contents(cache, r) for r in range(4)] == [[0], [5], [2], [3]]


def found(prefixes: PrefixCache, tokens: list[int]) -> list[int]:
    span = prefixes.lookup(tokens)
    if span is None:
        return []
    assert span.length == span.keys.shape[2]
    return [int(value) for value in span.values[0, 0, :, 0].tolist()]


def test_prefixes_are_found_token_by_token() -> None:
    prefixes = PrefixCache(max_tokens=1000)
    known = list(range(40))
    prefixes.insert(tuple(known), lambda: marked(known))
    assert found(prefixes, [*known, 7, 8]) == known            # a continuation: all of it
    assert found(prefixes, known) == known[:39]                # the last token gives the logits
    assert found(prefixes, [*known[:21], 99, 98]) == known[:21]  # a branch in a block of 16
    assert found(prefixes, known[:10] + [99] * 30) == []       # less than a block is not looked for
    assert found(prefixes, [5, *known]) == []


def test_two_rows_of_one_prompt_are_told_apart() -> None:
    prefixes = PrefixCache(max_tokens=1000)
    first, second = [*range(40), 1, 2, 3], [*range(40), 4, 5, 6]
    prefixes.insert(tuple(first), lambda: marked(first))
    prefixes.insert(tuple(second), lambda: marked(second))
    assert found(prefixes, [*first, 9]) == first
    assert found(prefixes, [*second, 9]) == second


def test_least_recently_used_goes_first() -> None:
    prefixes = PrefixCache(max_tokens=60)
    rows = [[start + i for i in range(20)] for start in (0, 100, 200, 300)]
    for row in rows[:3]:
        prefixes.insert(tuple(row), lambda row=row: marked(row))
    found(prefixes, [*rows[0], 1])
    prefixes.insert(tuple(rows[3]), lambda: marked(rows[3]))
    assert prefixes.num_tokens == 60
    assert found(prefixes, [*rows[1], 1]) == []
    for row in (rows[0], rows[2], rows[3]):
        assert found(prefixes, [*row, 1]) == row
    prefixes.insert(tuple(range(61)), lambda: marked(list(range(61))))
    assert prefixes.num_tokens == 60


def test_a_hash_is_never_taken_for_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safeladder.engine.local.kv._prefix_hashes", lambda ids: [0] * len(ids))
    prefixes = PrefixCache(max_tokens=1000)
    known = list(range(32))
    prefixes.insert(tuple(known), lambda: marked(known))
    assert found(prefixes, [*range(50, 82), 1]) == []
    assert found(prefixes, [*known, 1]) == known
