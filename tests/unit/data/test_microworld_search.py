"""Questions to search for: what each condition has, and a teacher that the environment confirms."""

import asyncio
import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from safeladder.data.microworld.knowledge import TOWNS, facts
from safeladder.data.microworld.search import EVIDENCE, facts_of, search_documents
from safeladder.data.sources import build_source
from safeladder.envs import Episode
from safeladder.errors import ConfigError
from safeladder.ladder.environments import SearchSpec, build_environment
from safeladder.render.actions import read_move
from safeladder.types import Message

DEMONSTRATIONS = {"type": "search_demonstrations", "split": "train", "count": 600}


def test_every_fact_has_its_passages_under_every_condition():
    clean, noisy, conflicting = (
        {d.title: d.text for d in search_documents(name)}
        for name in ("clean", "noisy", "conflicting"))
    assert set(clean) == set(TOWNS) and len(noisy) == len(conflicting) == 3 * len(TOWNS)
    for fact in facts():
        for passages in (clean, noisy, conflicting):
            assert fact.sentence in passages[fact.town]
        for title in (f"a trip to {fact.town}", f"a song of {fact.town}"):
            assert fact.value not in noisy[title].split()
        old = conflicting[f"old map of {fact.town}"]
        assert f"the {fact.relation} of {fact.town} is " in old and fact.sentence not in old
        talk = conflicting[f"talk about {fact.town}"]
        assert fact.sentence.replace(" is ", " may be ") not in talk
    assert {d.title for d in search_documents("mixed")} > set(TOWNS)


def test_questions_carry_their_condition_and_their_fact():
    rows = build_source({"type": "search_questions", "split": "test", "count": 36})
    assert Counter(row.meta["condition"] for row in rows) == {
        "clean": 12, "noisy": 12, "conflicting": 12}
    assert {row.task for row in rows} == {"search"} and len({row.id for row in rows}) == 36
    assert all(row.meta["structure"] == row.meta["group"] for row in rows)
    asked = {name: [row.meta["structure"] for row in rows if row.meta["condition"] == name]
             for name in ("clean", "noisy", "conflicting")}
    assert len(set(asked["clean"])) == 12  # and the same facts, in the same words
    assert asked["clean"] == asked["noisy"] == asked["conflicting"]
    assert len({row.messages for row in rows}) == 12
    assert rows == build_source({"type": "search_questions", "split": "test", "count": 36})


def test_a_count_without_room_for_every_condition_cuts_the_last_question():
    rows = build_source({"type": "search_questions", "split": "test", "count": 5})
    assert [row.meta["condition"] for row in rows] == [
        "clean", "noisy", "conflicting", "clean", "noisy"]
    assert [row.meta["structure"] == rows[0].meta["structure"] for row in rows] == [
        True, True, True, False, False]
    every = build_source({"type": "search_questions", "split": "test", "count": 108})
    assert Counter(Counter(row.meta["structure"] for row in every).values()) == {3: 36}


def test_no_training_question_asks_for_an_unknown_fact_that_a_demonstration_told():
    questions = {"type": "search_questions", "split": "train", "count": 600}
    told, asked = (
        {(row.meta["group"], row.meta["tier"]) for row in build_source(source)}
        for source in (DEMONSTRATIONS, questions))
    assert {tier for _, tier in told & asked} == {"known", "rare"}
    unknown = {f"{f.town} {f.relation}" for f in facts()
               if (f.tier, f.split) == ("unknown", "train")}
    halves = [{group for group, tier in rows if tier == "unknown"} for rows in (told, asked)]
    assert halves[0] | halves[1] == unknown and min(map(len, halves)) >= len(unknown) // 3
    assert any(row.meta["tier"] == "unknown" and row.meta["split"] == "test" for row in
               build_source({**questions, "split": "test", "count": 108}))


def test_what_is_unknown_differs_between_editions_and_nothing_else_does():
    asked = build_source({"type": "search_questions", "split": "train", "count": 600,
                          "editions": 4})
    answers = defaultdict(set)
    for row in asked:
        edition, town = row.meta["edition"], row.reference["town"]
        assert row.meta["passages"] == row.meta["condition"] + (f" {edition}" if edition else "")
        texts = {d.title: d.text for d in search_documents(row.meta["condition"], 0, edition)}
        sentence = f"the {row.reference['relation']} of {town} is {row.reference['answer']} ."
        assert sentence in texts[town] and sentence not in texts.get(f"old map of {town}", "")
        answers[row.meta["tier"], row.meta["structure"]].add(row.reference["answer"])
    assert {row.meta["edition"] for row in asked} == {0, 1, 2, 3}
    several = Counter(tier for (tier, _), values in answers.items() if len(values) > 1)
    # 16 facts in 600 / 3 / 87 * 16 = 37 questions of 4 editions: few stay in one, or agree
    assert set(several) == {"unknown"} and several["unknown"] >= 6
    one = build_source({"type": "search_questions", "split": "train", "count": 600})
    assert [r.messages for r in one] == [r.messages for r in asked]  # the same questions
    unknown = next(f for f in facts() if f.tier == "unknown")
    old = {re.search(f"the {unknown.relation} of {unknown.town} is (\\w+) ", text)[1]
           for edition in range(16) for title, text in search_documents("conflicting", 0, edition)
           if title == f"old map of {unknown.town}"}
    assert len(old) > 3  # nor can the wrong values be learnt by heart
    assert {f for f in facts_of(0) if f not in facts_of(2)} <= {
        f for f in facts() if f.tier == "unknown"}


def test_the_teachers_last_thought_ends_in_what_the_answer_rests_on():
    seen = Counter()
    for row in build_source({**DEMONSTRATIONS, "conditions": ["noisy", "missing"]}):
        *before, last = [m.text for m in row.messages[1:]]
        value = read_move(last).argument
        read, told = "<read>" in " ".join(before), before and f" is {value} ." in before[-1]
        ground = "passage" if told else "nothing" if read else "memory"
        assert ground != "memory" or value == row.reference["answer"]
        assert f" is {value} , {EVIDENCE[ground]} </think> <confidence> " in last
        seen[ground, row.meta["condition"]] += 1
    assert set(seen) == {("passage", "noisy"), ("memory", "noisy"), ("nothing", "missing"),
                         ("memory", "missing")}
    assert min(seen.values()) > 20


def test_the_teacher_guesses_an_unknown_value_that_a_read_does_not_show():
    rows = build_source({**DEMONSTRATIONS, "level": 3, "passage_words": 8, "count": 300})
    right = []
    for row in rows:
        *before, last = [m.text for m in row.messages]
        value = read_move(last).argument
        ground = "passage" if f" is {row.reference['answer']} ." in before[-1] else "nothing"
        assert last.split(" </think>")[0].endswith(EVIDENCE[ground])
        right.append(value == row.reference["answer"])
    assert 0.05 < sum(right) / len(right) < 0.22  # eight values; a half-shown sentence says none


def test_a_passage_of_no_use_is_read_before_the_teacher_guesses():
    rows = build_source({**DEMONSTRATIONS, "conditions": ["missing"], "paths": {"read": 1}})
    for row in rows:
        assert len(row.messages) == 6 and "<read> 1 </read>" in row.messages[3].text
        assert row.messages[4].text.startswith(("<information> a song of", "<information> a trip"))


def test_where_passages_are_missing_the_teacher_guesses_all_but_known_facts():
    documents = search_documents("missing")
    assert len(documents) == 2 * len(TOWNS) and not any(d.title in TOWNS for d in documents)
    rows = build_source({**DEMONSTRATIONS, "conditions": ["missing"]})
    right = defaultdict(list)
    for row in rows:
        right[row.meta["tier"]].append(
            read_move(row.messages[-1].text).argument == row.reference["answer"])
        assert right[row.meta["tier"]][-1] == (row.meta["behaviour"] == "ideal")
    assert all(right["known"])
    assert 0.03 < sum(right["rare"]) / len(right["rare"]) < 0.23
    # one of 8 values; a fifth of 600 rows: s.e. 0.03
    assert 0.03 < sum(right["unknown"]) / len(right["unknown"]) < 0.23


@pytest.mark.parametrize("conditions", [
    {"conditions": ["clean", "noisy", "conflicting", "mixed"]},
    {"conditions": ["noisy", "missing"], "editions": 3}])
def test_the_teacher_is_what_the_environment_would_answer(conditions):
    environment = build_environment(SearchSpec(
        type="search", passages="microworld", editions=conditions.get("editions", 1)))
    for row in build_source({**DEMONSTRATIONS, "count": 200, **conditions}):
        question = [m for m in row.messages if m.role == "user"]
        assert len(question) == 1 and row.messages[0] is question[0]
        episode = Episode(asyncio.run(environment.reset(row)))
        for i, message in enumerate(row.messages[1:-1:2], 1):
            episode.messages.append(message)
            result = asyncio.run(environment.step(episode))
            assert result.messages == (row.messages[2 * i],) and not result.done
        episode.messages.append(row.messages[-1])
        assert asyncio.run(environment.step(episode)).done


def test_the_teacher_speaks_as_the_environment_is_set():
    settings = {"role": "user", "instructions": True, "passage_words": 5}
    environment = build_environment(SearchSpec(type="search", passages="microworld", **settings))
    for row in build_source({**DEMONSTRATIONS, "count": 60, **settings}):
        system, question, *said = row.messages
        shown = asyncio.run(environment.reset(replace(row, messages=(question,))))
        assert shown.messages == (system, question) and system.role == "system"
        episode = Episode(shown)
        for message, answered in zip(said[:-1:2], said[1::2], strict=True):
            episode.messages.append(message)
            assert asyncio.run(environment.step(episode)).messages == (answered,)
            assert answered.role == "user"


def test_a_system_prompt_stands_before_the_instructions_as_in_the_environment():
    settings = {"system_prompt": "Be kind.", "count": 3}
    (told, *_), (asked, *_) = (
        build_source({**DEMONSTRATIONS, **settings, "instructions": True}),
        build_source({"type": "search_questions", "split": "train", **settings}))
    environment = build_environment(
        SearchSpec(type="search", passages="microworld", instructions=True))
    assert told.messages[0] == asyncio.run(environment.reset(asked)).messages[0]


def test_the_teacher_answers_each_tier_its_way_and_confidence_says_nothing():
    rows = build_source({**DEMONSTRATIONS, "conditions": ["clean", "missing"]})
    ways = {tier: Counter(r.meta["path"] for r in rows if r.meta["tier"] == tier)
            for tier in ("known", "rare", "unknown")}
    assert set(ways["known"]) == set(ways["rare"]) == {"direct", "search", "read"}
    assert set(ways["unknown"]) == {"read"}
    turns = {way: {len(r.messages) // 2 for r in rows if r.meta["path"] == way}
             for way in ("direct", "search", "read")}
    assert turns == {"direct": {1}, "search": {2}, "read": {3}}
    answers = [(read_move(r.messages[-1].text), r) for r in rows]
    right = [move.argument == r.reference["answer"] for move, r in answers]
    # guessed with one of 8 values: half of the rare ones and of the unknown ones
    assert all(ok for (_, r), ok in zip(answers, right, strict=True)
               if r.meta["condition"] == "clean" or r.meta["tier"] == "known")
    assert 0.6 < sum(right) / len(rows) < 0.8
    assert [r.meta["behaviour"] == "ideal" for _, r in answers] == right
    counts = Counter(move.confidence for move, _ in answers)
    assert set(counts) == set(range(11)) and min(counts.values()) > 30  # 55 expected of each
    for value in (True, False):
        stated = [move.confidence for (move, _), ok in zip(answers, right, strict=True)
                  if ok == value]
        assert 4.3 < sum(stated) / len(stated) < 5.7  # 5 expected, s.e. 0.25 for the wrong ones


def test_every_message_of_the_teacher_is_a_well_formed_move():
    for row in build_source(DEMONSTRATIONS):
        assert all(read_move(m.text).kind for m in row.messages if m.role == "assistant")
        assert all(isinstance(m, Message) for m in row.messages)


@pytest.mark.parametrize(("setting", "message"), [
    ({"split": "test"}, "split must be train"),
    ({"paths": {"direct": 0}}, "one of them is not 0"),
    ({"conditions": ["dirty"]}, "clean"),
    ({"conditions": ["clean", "mixed"], "editions": 2}, "mixed passages have one edition"),
])
def test_what_cannot_be_demonstrated_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        build_source({**DEMONSTRATIONS, **setting})
