import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.render.think import CLOSE, OPEN, ThinkStream, split_think


@pytest.mark.parametrize(("response", "think", "answer"), [
    ("plain", None, "plain"),
    ("", None, ""),
    ("<think>a</think>b", "a", "b"),
    ("<think></think>b", "", "b"),
    ("<think>\na\n</think>\n\nb", "\na\n", "\n\nb"),
    ("<think>a", "a", ""),
    ("seen <think>a", "a", "seen "),
    ("a</think>b", "a", "b"),
    ("seen<think>a</think>b", "a", "seenb"),
    ("<think>a<think>b</think>c</think>d", "a<think>b", "c</think>d"),
    ("<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
    ("a</think>b<think>c", "a", "b<think>c"),
    ("<THINK>a</THINK>b", None, "<THINK>a</THINK>b"),
])
def test_one_meaning_for_each_shape_of_tags(response: str, think: str | None, answer: str) -> None:
    assert split_think(response) == (think, answer)


tagged = st.lists(st.sampled_from([OPEN, CLOSE, "<", "<think", "/think>", "x", " ", "\n"])).map(
    "".join)


@given(tagged)
def test_no_character_is_lost(response: str) -> None:
    think, answer = split_think(response)
    assert len((think or "") + answer) + tags_length(response, think) == len(response)


def tags_length(response: str, think: str | None) -> int:
    """Length of the tags that delimit the block, from its definition."""
    if think is None:
        return 0
    head, close, _ = response.partition(CLOSE)
    return len(close) + (len(OPEN) if OPEN in head else 0)


@given(tagged, st.lists(st.integers(0, 60)))
def test_the_stream_agrees_with_the_parser_however_it_is_cut(
    response: str, cuts: list[int],
) -> None:
    places = sorted({min(cut, len(response)) for cut in cuts})
    chunks = [response[a:b] for a, b in zip([0, *places], [*places, len(response)], strict=True)]
    stream = ThinkStream()
    pieces = [piece for chunk in chunks for piece in stream.feed(chunk)] + list(stream.flush())
    assert "".join(piece.text for piece in pieces) == response
    joined = {kind: "".join(p.text for p in pieces if p.kind == kind)
              for kind in ("think", "answer")}
    think, answer = split_think(response)
    opened_late = CLOSE in response and OPEN not in response.partition(CLOSE)[0]
    if opened_late:
        assert joined["answer"] == (think or "") + answer
    else:
        assert (joined["think"], joined["answer"]) == (think or "", answer)


def test_a_tag_is_recognised_as_soon_as_it_is_complete() -> None:
    stream = ThinkStream()
    assert list(stream.feed("<thi")) == []
    assert [tuple(p) for p in stream.feed("nk>so")] == [("tag", OPEN), ("think", "so")]
    assert [tuple(p) for p in stream.feed(" </")] == [("think", " ")]
    assert [tuple(p) for p in stream.feed("b")] == [("think", "</b")]


@pytest.mark.parametrize("unit", ["<think>", "</think>", "<", "<think"])
def test_time_grows_linearly_with_length(unit: str) -> None:
    def seconds(count: int) -> float:
        text = unit * count
        start = time.perf_counter()
        split_think(text)
        list(ThinkStream().feed(text))
        return time.perf_counter() - start

    seconds(1000)
    assert seconds(400_000) < 2.0


def test_the_parser_needs_neither_torch_nor_transformers() -> None:
    code = ("import sys, safeladder.render, safeladder.envs;"
            "assert not {'torch', 'transformers', 'jinja2', 'httpx'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
