"""Environments as a recipe names them."""

import asyncio
import json

import pytest
from pydantic import TypeAdapter, ValidationError

from safeladder.envs import Episode, Search, SingleTurn
from safeladder.errors import DataError
from safeladder.ladder.environments import EnvironmentSpec, SearchSpec, build_environment
from safeladder.types import Message, Prompt

PROMPT = Prompt("p", (Message("user", "who built it ?"),))


def search(env, query, prompt=PROMPT):
    episode = Episode(prompt, [
        Message("assistant", f"<think> so </think> <search> {query} </search>")])
    return asyncio.run(env.step(episode)).messages[0]


def test_passages_from_a_file(tmp_path):
    path = tmp_path / "passages.jsonl"
    path.write_text("\n".join(json.dumps({"title": f"Tower {i}", "text": f"tower {i} is high"})
                              for i in range(4)))
    env = build_environment(SearchSpec(type="search", passages=str(path), k=2, abstract_words=2,
                                       role="user", instructions=True, max_turns=9))
    assert isinstance(env, Search) and env.max_turns == 9
    said = search(env, "tower")
    assert said == Message(
        "user", "<information> 1 : Tower 0 : tower 0 ; 2 : Tower 1 : tower 1 </information>")
    shown = asyncio.run(env.reset(PROMPT))
    assert shown.messages[0].role == "system" and "<search>" in shown.messages[0].text


def test_the_microworld_has_every_condition_and_shows_no_value_before_a_read():
    env = build_environment(SearchSpec(type="search", passages="microworld"))
    found = {name: search(env, "river of Aldor", Prompt("p", (), meta={"passages": name})).text
             for name in ("clean", "noisy", "conflicting", "mixed")}
    assert "1 : Aldor : in year 9 : ;" in found["clean"]
    assert "a song of Aldor" in found["noisy"] and "old map of Aldor" in found["conflicting"]
    assert search(env, "river of Aldor").text == found["mixed"]
    assert not any("Sil" in text or "Ond" in text for text in found.values())
    with pytest.raises(DataError, match="no passages named 'clean 1'"):
        asyncio.run(env.reset(Prompt("p", (), meta={"passages": "clean 1"})))
    several = build_environment(SearchSpec(type="search", passages="microworld", editions=2))
    assert several.tools.keys() == {
        *env.tools, "clean 1", "noisy 1", "conflicting 1", "missing 1"}
    with pytest.raises(DataError, match="no passages named 'clear'"):
        asyncio.run(env.reset(Prompt("p", (), meta={"passages": "clear"})))


def test_passages_of_files_are_capped_and_those_of_the_microworld_are_not(tmp_path):
    path = tmp_path / "passages.jsonl"
    path.write_text(json.dumps({"title": "Tower", "text": "high " * 500}))
    files = {"type": "search", "passages": str(path)}
    assert build_environment(SearchSpec(**files)).passage_words == 200
    assert build_environment(SearchSpec(**files, passage_words=7)).passage_words == 7
    world = SearchSpec(type="search", passages="microworld")
    assert build_environment(world).passage_words is None


def test_equal_words_are_one_environment():
    specs = [SearchSpec(type="search", passages="microworld", k=5) for _ in range(2)]
    assert build_environment(specs[0]) is build_environment(specs[1])


def test_left_out_it_is_a_single_turn():
    spec = TypeAdapter(EnvironmentSpec).validate_python({"type": "single_turn"})
    assert build_environment(spec) == SingleTurn()
    with pytest.raises(ValidationError, match="serch"):
        TypeAdapter(EnvironmentSpec).validate_python({"type": "serch"})
