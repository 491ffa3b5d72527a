import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.data.source import Source
from safeladder.data.stream import CurriculumSpec, Part, PromptStream, Stage, build_stream
from safeladder.errors import ConfigError, DataError
from safeladder.types import Media, Message, Prompt


def rows(name, count, **meta):
    return [Prompt(f"{name}{i}", (Message("user", f"{name} {i}"),), meta=meta, source=name)
            for i in range(count)]


def ids(prompts):
    return [prompt.id for prompt in prompts]


class Given(Source):
    """A source of the prompts it is given."""

    prompts: list

    def build(self, base):
        return self.finish(self.prompts)


def test_an_epoch_sees_every_prompt_once_in_a_new_order():
    stream = PromptStream.of(rows("a", 10), seed=0)
    first, second = ids(stream.take(10)), ids(stream.take(10))
    assert sorted(first) == sorted(second) == ids(rows("a", 10))
    assert first != second and first != sorted(first)
    assert stream.taken == 20
    assert ids(PromptStream.of(rows("a", 10), seed=0).take(20)) == first + second
    assert ids(PromptStream.of(rows("a", 10), seed=1).take(10)) != first
    assert ids(PromptStream.of(rows("a", 3), 0, shuffle=False).take(5)) == [
        "a0", "a1", "a2", "a0", "a1"]


def test_the_order_is_pinned():
    # Resumed runs must find the same order in every later version.
    taken = PromptStream.of(rows("a", 6), seed=0).take(6)
    assert ids(taken) == ["a3", "a2", "a5", "a4", "a0", "a1"]


def test_weights_are_kept_in_every_stretch():
    parts = (Part("a", rows("a", 5), 3.0), Part("b", rows("b", 50), 1.0))
    stream = PromptStream([Stage("mixed", parts)], seed=0)
    taken = stream.take(80)
    # 3 : 1, so of k prompts 0.75 k are from a, give or take one.
    for k in range(1, 81):
        assert abs(sum(p.source == "a" for p in taken[:k]) - 0.75 * k) < 1
    # a is passed through 12 times while b gives its first 20.
    counts = Counter(ids(taken))
    assert {counts[f"a{i}"] for i in range(5)} == {12}
    assert sum(counts[f"b{i}"] for i in range(50)) == 20


def test_without_weights_sources_are_one_set():
    stream = build_stream([Given(prompts=rows("a", 2)), Given(prompts=rows("b", 6))],
                          CurriculumSpec(), seed=0)
    assert sorted(ids(stream.take(8))) == ids(rows("a", 2)) + ids(rows("b", 6))
    with pytest.raises(ConfigError, match="every source a weight, or none"):
        build_stream([Given(prompts=rows("a", 2), weight=1), Given(prompts=rows("b", 2))],
                     CurriculumSpec(), seed=0)


def test_weighted_sources():
    stream = build_stream([Given(prompts=rows("a", 2), weight=1), Given(prompts=rows("b", 9),
                                                                        weight=2)],
                          CurriculumSpec(), seed=0)
    assert Counter(p.source for p in stream.take(9)) == {"a": 3, "b": 6}


def test_staged_by_source_and_the_last_goes_on():
    specs = [Given(prompts=rows("a", 2)), Given(prompts=rows("b", 3))]
    stream = build_stream(specs, CurriculumSpec(type="staged", epochs=2), seed=0)
    taken = [p.source for p in stream.take(20)]
    assert taken == ["a"] * 4 + ["b"] * 16
    stream = build_stream(specs, CurriculumSpec(type="staged", prompts=3), seed=0)
    assert [p.source for p in stream.take(5)] == ["a", "a", "a", "b", "b"]


def test_staged_by_level_in_ascending_order():
    mixed = rows("x", 3, people=5) + rows("y", 2, people=3)
    stream = build_stream([Given(prompts=mixed), Given(prompts=rows("z", 2, people=4))],
                          CurriculumSpec(type="staged", by="people"), seed=0)
    assert [p.meta["people"] for p in stream.take(7)] == [3, 3, 4, 4, 5, 5, 5]
    assert stream.stage.name == "people 5"
    assert len(stream.prompts) == 7
    with pytest.raises(DataError, match=r"x0: meta has no 'level' \(found: people\)"):
        build_stream([Given(prompts=mixed)], CurriculumSpec(type="staged", by="level"), seed=0)
    odd = [*rows("x", 1, people=5), *rows("y", 1, people="six")]
    with pytest.raises(DataError, match="have no order"):
        build_stream([Given(prompts=odd)], CurriculumSpec(type="staged", by="people"), seed=0)


PLANS = {
    "mixed": lambda: build_stream([Given(prompts=rows("a", 7))], CurriculumSpec(), 3),
    "weighted": lambda: build_stream(
        [Given(prompts=rows("a", 3), weight=1), Given(prompts=rows("b", 5), weight=2.5)],
        CurriculumSpec(), 3),
    "staged": lambda: build_stream(
        [Given(prompts=rows("a", 3)), Given(prompts=rows("b", 5))],
        CurriculumSpec(type="staged", epochs=2), 3),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PLANS)), st.integers(0, 30), st.integers(1, 30))
def test_a_resumed_stream_goes_on_with_the_same_prompts(plan, before, after):
    stream = PLANS[plan]()
    stream.take(before)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = ids(stream.take(after))
    resumed = PLANS[plan]()
    resumed.load_state_dict(state)
    assert ids(resumed.take(after)) == expected
    assert resumed.taken == before + after


def test_taking_one_by_one_is_taking_at_once():
    for make in PLANS.values():
        at_once, one_by_one = make(), make()
        assert ids(at_once.take(40)) == [one_by_one.take(1)[0].id for _ in range(40)]


@pytest.mark.parametrize("change", [
    lambda p: replace(p, messages=(Message("user", "other"),)), lambda p: replace(p, id="other"),
    lambda p: replace(p, reference="other"), lambda p: replace(p, task="other"),
    lambda p: replace(p, meta={"x": 1}), lambda p: replace(p, rendered="other"),
    lambda p: replace(p, media=(Media(pixels=np.zeros((1, 1, 3), np.uint8)),)),
])
def test_data_that_changed_since_the_state_was_saved_is_noticed(change):
    prompts = rows("a", 3)
    state = PromptStream.of(prompts, 0).state_dict()
    with pytest.raises(DataError, match="the data of all/all changed since the state was saved"):
        PromptStream.of([*prompts[:2], change(prompts[2])], 0).load_state_dict(state)
    with pytest.raises(DataError, match="the data of"):
        PromptStream.of(prompts[::-1], 0).load_state_dict(state)


def test_a_plan_that_changed_is_noticed():
    state = PromptStream.of(rows("a", 3), 0).state_dict()
    with pytest.raises(DataError, match="seed changed"):
        PromptStream.of(rows("a", 3), 1).load_state_dict(state)
    weighted = [Stage("all", (Part("all", rows("a", 3), 2.0),))]
    with pytest.raises(DataError, match="weights"):
        PromptStream(weighted, 0).load_state_dict(state)


def test_what_cannot_be_drawn_from():
    with pytest.raises(DataError, match="no prompts"):
        PromptStream.of([], 0)
    with pytest.raises(ConfigError, match="weight must be positive"):
        Part("a", rows("a", 1), 0.0)
    with pytest.raises(ConfigError, match="at least one stage"):
        PromptStream([], 0)
    odd = [Prompt("a", (Message("user", "x"),), meta={"x": object()})]
    with pytest.raises(DataError, match="prompt a: reference and meta must be JSON"):
        PromptStream.of(odd, 0).state_dict()


def test_demonstrations_are_no_prompts_to_reinforce():
    said = [Prompt("a", (Message("user", "q"), Message("assistant", "answer")))]
    with pytest.raises(DataError, match=r"prompt a ends with the assistant.*demonstration: drop"):
        build_stream([Given(prompts=said)], CurriculumSpec(), 0)
    assert build_stream([Given(prompts=said)], CurriculumSpec(prefilled=True), 0).take(1) == said
