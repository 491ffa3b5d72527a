"""The bookkeeping of keys and values, on numbers that can be followed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.engine.local.kv import KVCache, PrefixCache


def fresh_cache() -> KVCache:
    return KVCache(num_layers=2, num_kv_heads=1, head_dim=2, dtype=torch.float32,
                   device=torch.device("cpu"))


def marked(values: list[int]) -> torch.Tensor:
    """(2, 2, 1, T, 2) keys and values that carry ``values`` in every place."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None, :, None].expand(
        2, 2, 1, len(values), 2)


def contents(cache: KVCache, row: int) -> list[int]:
    visible = cache.bias[row, cache.begin:cache.end] == 0
    window = cache.buffer[1, 1, row, 0, cache.begin:cache.end, 0]
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
                    cache.write(layer, last[None, :, None, None].expand(2, -1, 1, 2),
                                slice(0, len(rows)))
        elif action == "drop" and rows:
            gone = sorted({index % len(rows) for index in argument})
            order = cache.drop(gone)
            assert sorted(order) == [r for r in range(len(rows)) if r not in gone]
            rows = [rows[r] for r in order]
        assert cache.num_rows == len(rows)
        assert [contents(cache, r) for r in range(len(rows))] == rows
        assert [cache.row(r, len(row))[0, 0, 0, :, 0].tolist() for r, row in enumerate(rows)] == (
            [[float(value) for value in row] for row in rows])


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


def kv_of(tokens: list[int]) -> torch.Tensor:
    return marked(tokens).clone()


def found(prefixes: PrefixCache, tokens: list[int]) -> list[int]:
    kv = prefixes.lookup(tokens)
    return [] if kv is None else [int(v) for v in kv[0, 0, 0, :, 0].tolist()]


def test_prefixes_are_found_token_by_token() -> None:
    prefixes = PrefixCache(max_tokens=1000)
    known = list(range(40))
    prefixes.insert(tuple(known), lambda: kv_of(known))
    assert found(prefixes, [*known, 7, 8]) == known            # a continuation: all of it
    assert found(prefixes, known) == known[:39]                # the last token gives the logits
    assert found(prefixes, [*known[:21], 99, 98]) == known[:21]  # a branch in a block of 16
    assert found(prefixes, known[:10] + [99] * 30) == []       # less than a block is not looked for
    assert found(prefixes, [5, *known]) == []


def test_two_rows_of_one_prompt_are_told_apart() -> None:
    prefixes = PrefixCache(max_tokens=1000)
    first, second = [*range(40), 1, 2, 3], [*range(40), 4, 5, 6]
    prefixes.insert(tuple(first), lambda: kv_of(first))
    prefixes.insert(tuple(second), lambda: kv_of(second))
    assert found(prefixes, [*first, 9]) == first
    assert found(prefixes, [*second, 9]) == second


def test_least_recently_used_goes_first() -> None:
    prefixes = PrefixCache(max_tokens=60)
    rows = [[start + i for i in range(20)] for start in (0, 100, 200, 300)]
    for row in rows[:3]:
        prefixes.insert(tuple(row), lambda row=row: kv_of(row))
    found(prefixes, [*rows[0], 1])
    prefixes.insert(tuple(rows[3]), lambda: kv_of(rows[3]))
    assert prefixes.num_tokens == 60
    assert found(prefixes, [*rows[1], 1]) == []
    for row in (rows[0], rows[2], rows[3]):
        assert found(prefixes, [*row, 1]) == row
    prefixes.insert(tuple(range(61)), lambda: kv_of(list(range(61))))
    assert prefixes.num_tokens == 60


def test_a_hash_is_never_taken_for_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safeladder.engine.local.kv._prefix_hashes", lambda ids: [0] * len(ids))
    prefixes = PrefixCache(max_tokens=1000)
    known = list(range(32))
    prefixes.insert(tuple(known), lambda: kv_of(known))
    assert found(prefixes, [*range(50, 82), 1]) == []
    assert found(prefixes, [*known, 1]) == known
