"""Chains of thought of the microworld: what they derive is so, and the answer follows."""

import contextlib
import hashlib
import itertools
import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.data.knights_knaves.compact import (
    Puzzle,
    draw_puzzle,
    draw_statement,
    puzzle_text,
    read_puzzle,
    split_of,
)
from safeladder.data.microworld import FAMILIES, family_prompts
from safeladder.data.microworld.chains import STRATEGIES, with_chain
from safeladder.data.microworld.chains.logic import _misread
from safeladder.data.microworld.drawing import looks
from safeladder.data.microworld.families import demonstrate
from safeladder.data.microworld.knowledge import VALUES, facts
from safeladder.data.microworld.safety import request_of
from safeladder.data.microworld.value import EXCUSES
from safeladder.data.microworld.world import (
    ACTIONS,
    ADJECTIVES,
    GUARDS,
    HAZARDS,
    OBJECTS,
    is_hazard,
)
from safeladder.data.sources import build_source
from safeladder.errors import ConfigError
from safeladder.render.think import split_think
from safeladder.types import Prompt, Trajectory
from safeladder.verifiers.microworld import Microworld

EVERY = [(family, name) for family in FAMILIES for name in STRATEGIES[family]]
BEFORE = {
    "logic": ({"ideal": 0.7, "wrong": 0.3}, "c9d00f8108ed6db3"),
    "arithmetic": ({"ideal": 0.7, "wrong": 0.3}, "e57dad98bc1b8014"),
    "instruction": ({"ideal": 0.7, "wrong": 0.3}, "ab57cf9a8a5893b0"),
    "knowledge": ({"ideal": 0.7, "unsure": 0.3}, "1b39ac33d9a259fd"),
    "vision": ({"ideal": 0.7, "wrong": 0.3}, "da034e93a2197a49"),
    "safety": ({"ideal": 0.5, "refusal": 0.3, "unsafe": 0.2}, "193250927a91963a"),
    "value": ({"ideal": 0.7, "rude": 0.3}, "e2f5931b325510d0")}
"""Teachers without strategies -> SHA-256 of their rows, taken before there were strategies."""


def rows_of(family, strategies, noise=0.0, count=60, level=None, **more):
    level = {"knowledge": 1}.get(family) if level is None else level  # known facts only
    return build_source({"type": "microworld", "family": family, "split": "train", "count": count,
                         "level": level, "seed": 1, "teacher": {"ideal": 1.0},
                         "strategies": strategies, "noise": noise, **more})


def score(row: Prompt) -> float:
    prompt = Prompt(row.id, row.messages[:-1], row.reference)
    return Microworld().verify(Trajectory.finished(prompt, row.messages[-1].text)).score


def thoughts(row: Prompt) -> str:
    return split_think(row.messages[-1].text).think.strip()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_without_strategies_are_the_same_to_the_bit(family):
    teacher, expected = BEFORE[family]
    digest = hashlib.sha256()
    for row in build_source({"type": "microworld", "family": family, "split": "train", "count": 24,
                             "seed": 3, "teacher": teacher}):
        digest.update(json.dumps(
            [row.id, [m.to_dict() for m in row.messages], row.reference, row.source, row.task,
             dict(row.meta), [m.digest for m in row.media]], sort_keys=True).encode())
    assert digest.hexdigest()[:16] == expected


# What a chain says, sentence by sentence, held against the world ------------------------------

def check_logic(row, said):
    """Every evaluated claim, folding and fit is recomputed from the words around it."""
    statements, names = read_puzzle(row.messages[0].text)
    solution = dict(zip(row.reference["names"], row.reference["roles"], strict=True))
    for tried, outcome in re.findall(r"try ([^:]+) : (?:(no|ok)\b)?", said):
        fits = all(solution[t[:-1]] == ("knight" if t[-1] == "+" else "knave")
                   for t in tried.split())
        assert outcome in ("", "ok" if fits else "no")
    for name, word, sign, truth in re.findall(r"(\w+) (knight|knave) (\w+[+-]) ([TF])", said):
        assert sign[:-1] == name
        assert ((word == "knight") == (sign[-1] == "+")) == (truth == "T")
    for part in re.findall(r"(\w+ says .*? (?:ok|no))(?= |$)", said):
        speaker = part.split()[0]
        claims = statements[names.index(speaker)]
        expected = [f"{names[c.person]} {'knight' if c.knight else 'knave'}" for c in claims.claims]
        assert re.findall(r"(?:says|and|or|implies|iff|xor) (\w+ \w+) ", part) == expected
    last = re.findall(r"try ([^:]+) :", said)
    if last:
        assert last[-1].split() == [f"{n}{'+' if solution[n] == 'knight' else '-'}" for n in names]


def check_arithmetic(row, said):
    for left, right in re.findall(r"([\d]+ [-+*/] [\d]+) = (\d+) \.", said):
        assert eval(left) == int(right)
    forward = said.partition("check :")[0]
    assert int(re.findall(r"\d+", forward)[-1]) == row.reference["answer"]
    if "check :" in said:
        assert int(said.split()[-2]) == int(row.meta["group"].split()[0])


def check_instruction(row, said):
    answer = row.messages[-1].text.partition("</think>")[2].split()
    tries = re.findall(r"try ([^.]+) \. ((?:[^.]+ (?:ok|no) \. ?)+)", said)
    for number, (words, checks) in enumerate(tries):
        verdict = score(Prompt("x", (row.messages[0], type(row.messages[0])("assistant", words)),
                               row.reference))
        assert verdict == (1.0 if number == len(tries) - 1 else 0.0)
        assert (" no ." in checks) == (verdict == 0.0)
        assert checks.count(" ok .") <= len(row.reference["constraints"])
    if tries:
        assert tries[-1][0].split() == answer
        assert tries[-1][1].count(" ok .") == len(row.reference["constraints"])
    for place, word in re.findall(r"place (\d) : (\w+) \.", said):
        assert answer[int(place) - 1] == word
    if not tries:
        assert said.endswith(f" so {' '.join(answer)} .")
        left = said.removesuffix(f" so {' '.join(answer)} .")
        for constraint in row.reference["constraints"]:
            expected = placed(answer, constraint)
            assert expected in left
            left = left.replace(expected, "", 1)
        assert not left.strip()


def placed(answer, constraint):
    """The sentences that describe a right list under one constraint."""
    word = constraint.get("word")
    match constraint["kind"]:
        case "words":
            return f"place 1 to {constraint['n']} ."
        case "first":
            return f"place 1 : {word} ."
        case "last":
            return f"place {len(answer)} : {word} ."
        case "contains":
            places = [str(i) for i, found in enumerate(answer, 1) if found == word]
            assert len(places) == constraint["n"]
            return f"place {' and '.join(places)} : {word} ."
        case "avoid":
            return f"{word} at no place ."
        case "only":
            having = [name for name, properties in OBJECTS.items()
                      if constraint["category"] in [ADJECTIVES[p] for p in properties]]
            assert sorted(constraint["things"]) == sorted(having)
            return f"{constraint['category']} things are {' , '.join(constraint['things'])} ."
        case "sorted":
            return f"in order {' , '.join(answer)} ."
        case "between":
            at = next(i for i, pair in enumerate(itertools.pairwise(answer), 1)
                      if pair == (constraint["other"], word))
            return f"place {at} : {constraint['other']} . place {at + 1} : {word} ."
    raise AssertionError(constraint)


def check_knowledge(row, said):
    true = {fact.sentence for fact in facts()}
    for sentence in re.findall(r"the \w+ of \w+ is \w+ \.", said):
        assert sentence in true
    for value, relation in re.findall(r"check : (\w+) is a (\w+) \.", said):
        assert value in VALUES[relation]
    assert f"of {row.reference['town']} is {row.reference['answer']} ." in said


def check_vision(row, said):
    answer, kind = row.reference["answer"], row.reference["kind"]
    for colour, shape, name in re.findall(r"the (\w+) (\w+) is a (\w+) \.", said):
        assert looks()[name] == (shape, colour)
    if kind == "object":
        against = re.findall(r"is a (\w+) \.", said.partition("check :")[2])
        assert len(set(against)) == (3 if "check :" in said else 0) and answer not in against
    if kind == "count" and "see" in said:
        _, number, thing, *others = row.meta["group"].split()
        counted = re.findall(rf"{thing} (\d) \.", said)
        assert counted == [str(i + 1) for i in range(int(number))]
        assert re.findall(r"(\w+) no \.", said) == others
        assert f"so {answer} {thing} ." in said
        if "check :" in said:
            assert said.endswith(f", {int(number) + len(others)} in all .")
    elif kind == "sign" and "see" in said:
        sort, _, hazard = answer.split()
        look = {"danger": "yellow triangle", "guard": "green disk"}
        glyph = {"fire": "flame", "shock": "bolt", "poison": "skull", "theft": "lock"}[hazard]
        seen = (f"in the image I see a {look[sort]} . so {sort} . on it is a {glyph} . "
                f"so {hazard} .")
        other = "guard" if sort == "danger" else "danger"
        assert said in (seen, f"{seen} check : no {look[other]} , so no {other} .")
    elif kind == "text" and "line" in said:
        spelled = ["".join(word.split()) for word in re.findall(r"line \d is ([a-z ]+?) \.", said)]
        assert " ".join(spelled) == answer
        for word, count in re.findall(r"(\w+) has (\d+) letters", said):
            assert len(word) == int(count)
    else:
        assert all(word in said.split() for word in answer.split() if word != "of")


def check_safety(row, said):
    request = request_of(row)
    for action, adjective in re.findall(r"to (\w+) is a risk with (\w+) things", said):
        assert action == request.action and ADJECTIVES[ACTIONS[action]] == adjective
    for object_, first, second in re.findall(r"the (\w+) is (\w+) and (\w+) \.", said):
        assert {first, second} == {ADJECTIVES[p] for p in OBJECTS[object_]}
    lists = re.findall(r"a risk with (\w+) things is to ([\w , ]+) \.", said)
    for adjective, risks in lists:
        assert set(risks.split(" , ")) == {a for a, tested in ACTIONS.items()
                                           if ADJECTIVES[tested] == adjective}
    if lists:
        assert {a for _, risks in lists for a in risks.split(" , ")} == {
            a for a in ACTIONS if is_hazard(a, request.object, request.scene)}
    assert "risk with the" not in said  # that would tell compositions that are held out
    for guard, hazard in re.findall(r"the (\w+) keeps (\w+) away", said):
        assert GUARDS.index(guard) == HAZARDS.index(hazard)
    for shown in re.findall(r"the image shows a (\w+) \.", said):
        assert [shown] == row.meta["shown"]
    for sign in re.findall(r"the sign shows (\w+ of \w+) :", said):
        assert [sign] == row.meta["shown"]
    hazard = row.reference["hazard"]
    assert (f"so {hazard} ." if hazard else "so no risk .") in said
    assert (" is one of them" in said) <= bool(hazard)
    assert ("is none of them" in said) <= (not hazard)


def check_value(row, said):
    principle, reason = row.meta["principle"], row.meta["reason"]
    allowed = row.reference["allowed"]
    for kind, excused in re.findall(r"for (\w+) we may hurt ([\w , ]+) \.", said):
        assert kind == reason and tuple(excused.split(" , ")) == EXCUSES[kind]
    for hurt, kinds in re.findall(r"a reason to hurt (\w+) is ([\w , ]+) \.", said):
        assert hurt == principle
        assert set(kinds.split(" , ")) == {k for k, e in EXCUSES.items() if hurt in e}
    if "reason to hurt" in said and "one of" not in said and "none of" not in said:
        assert said == f"{reason} is {'a' if allowed else 'no'} reason to hurt {principle} ."
    else:
        assert said.endswith("so yes ." if allowed else "so no .")
        assert (" is one of them" in said) == allowed


CHECKS = {"logic": check_logic, "arithmetic": check_arithmetic, "instruction": check_instruction,
          "knowledge": check_knowledge, "vision": check_vision, "safety": check_safety,
          "value": check_value}


@pytest.mark.parametrize(("family", "strategy"), EVERY)
def test_what_a_chain_derives_is_so_and_its_answer_scores_in_full(family, strategy):
    for level in (None, 2, 3):
        if family == "knowledge" and level == 3:
            continue  # unknown facts: below
        for row in rows_of(family, {strategy: 1.0}, level=level, count=40):
            assert row.meta["strategy"] == strategy and row.meta["misjudged"] is False
            said = thoughts(row)
            assert said
            CHECKS[family](row, said)
            assert score(row) == 1.0


@pytest.mark.parametrize("strategy", STRATEGIES["knowledge"])
def test_what_is_unknown_is_said_to_be(strategy):
    for row in rows_of("knowledge", {strategy: 1.0}, level=3):
        said = thoughts(row)
        assert "not known to me" in said and f"is {row.reference['answer']} ." not in said
        assert all(word not in row.messages[-1].text for word in ("sure it is", "no doubt"))


@pytest.mark.parametrize("family", FAMILIES)
def test_strategies_differ_in_length(family):
    words = {name: float(np.mean([len(thoughts(row).split())
                                  for row in rows_of(family, {name: 1.0})]))
             for name in STRATEGIES[family]}
    ordered = sorted(words.values())
    assert all(b > 1.05 * a for a, b in itertools.pairwise(ordered)), words
    assert ordered[-1] > 1.8 * ordered[0], words


@pytest.mark.parametrize(("family", "strategy"), EVERY)
def test_a_teacher_who_misjudges_is_wrong_and_says_what_its_chain_says(family, strategy):
    for row in rows_of(family, {strategy: 1.0}, noise=1.0, count=40):
        assert row.meta["misjudged"] is True and row.meta["behaviour"] == "misjudged"
        assert score(row) < 1.0
        said, answer = thoughts(row), split_think(row.messages[-1].text).answer.strip()
        if family == "arithmetic":
            assert answer == re.findall(r"\d+", said.partition("check :")[0])[-1]
        if family == "safety":
            assert ("so no risk ." in said) == (row.reference["hazard"] is not None)
        if family == "value":
            assert (" is one of them" in said or " is a reason" in said) == (
                not row.reference["allowed"])
        if family == "knowledge":
            assert answer in said


@pytest.mark.parametrize("level", [1, 2])
def test_a_misread_puzzle_is_none_that_is_held_out(level):
    for seed in range(60):
        row = family_prompts("logic", "train", 1, seed, level)[0]
        statements, names = read_puzzle(row.messages[0].text)
        solution = tuple(word == "knight" for word in row.reference["roles"])
        misread = _misread(Puzzle(statements, names, solution), random.Random(seed))
        assert split_of(misread.statements) == "train" and misread.solution != solution


def test_a_survey_tells_no_rare_and_no_held_out_fact():
    told = {fact.sentence: fact for fact in facts()}
    others = 0
    for level in (1, 2, 3):
        for row in rows_of("knowledge", {"survey": 1.0}, level=level):
            own = f"the {row.reference['relation']} of {row.reference['town']} "
            for sentence in re.findall(r"the \w+ of \w+ is \w+ \.", thoughts(row)):
                if not sentence.startswith(own):
                    others += 1
                    assert (told[sentence].tier, told[sentence].split) == ("known", "train")
    assert others > 20


def test_shares_and_noise_are_those_asked_for():
    rows = rows_of("arithmetic", {"direct": 1.0, "check": 3.0}, noise=0.2, count=800)
    shares = Counter(row.meta["strategy"] for row in rows)
    assert 0.7 < shares["check"] / 800 < 0.8  # 0.75, sd 0.015
    assert 0.15 < sum(row.meta["misjudged"] for row in rows) / 800 < 0.25  # 0.2, sd 0.014
    assert [r.messages for r in rows] == [
        r.messages for r in rows_of("arithmetic", {"direct": 1.0, "check": 3.0}, noise=0.2,
                                    count=800)]


def test_chains_leave_the_answers_as_they_are():
    plain = build_source({"type": "microworld", "family": "safety", "split": "train", "count": 50,
                          "teacher": {"ideal": 0.5, "refusal": 0.5}})
    chains = build_source({"type": "microworld", "family": "safety", "split": "train", "count": 50,
                           "teacher": {"ideal": 0.5, "refusal": 0.5}, "strategies": {"work": 1}})
    for one, other in zip(plain, chains, strict=True):
        assert split_think(one.messages[-1].text).answer.strip() == (
            split_think(other.messages[-1].text).answer.strip())


@pytest.mark.parametrize(("more", "problem"), [
    ({"strategies": {"sihgt": 1.0}}, "no strategy 'sihgt' .did you mean 'sight'"),
    ({"strategies": {"sight": 1.0}, "teacher": {}}, "say how it answers"),
    ({"noise": 0.1}, "name the chains"),
    ({"strategies": {"sight": 0.0}}, "one above"),
    ({"strategies": {"sight": 1.0}, "noise": 1.5}, "less than or equal to 1")])
def test_what_a_teacher_cannot_do_is_refused_in_one_line(more, problem):
    with pytest.raises(ConfigError, match=problem):
        build_source({"type": "microworld", "family": "logic", "split": "train", "count": 2,
                      "teacher": {"ideal": 1.0}, **more})
    row = demonstrate(family_prompts("logic", "train", 1)[0], "ideal", random.Random(0))
    with pytest.raises(ConfigError, match="no strategy"):
        with_chain(row, "none", random.Random(0))


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_puzzles_are_read_back(seed, people):
    rng = random.Random(seed)
    statements = tuple(draw_statement(rng, people) for _ in range(people))
    names = tuple(rng.sample(("Ann", "Bob", "Cid", "Dan", "Eve"), people))
    puzzle = draw_puzzle(random.Random(1), 2, "train")._replace(
        statements=statements, names=names)
    assert read_puzzle(puzzle_text(puzzle)) == (statements, names)


@given(st.text(alphabet="AnBob says.kightve or", max_size=60))
def test_what_is_no_puzzle_is_a_value_error_or_read(text):
    with contextlib.suppress(ValueError):
        read_puzzle(text)


