"""Distilling from a real server: resumable, nothing lost, failures counted and shown."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_server import ModelServer, serve

from safeladder.cli.data_filter import run_distill
from safeladder.config import validate
from safeladder.data.images import to_media
from safeladder.data.responses import read_responses
from safeladder.data.sources import build_source
from safeladder.engine.fake import FakeSampler
from safeladder.engine.remote import Endpoint
from safeladder.errors import ConfigError, DataError
from safeladder.ladder.distill import (
    IN_A_ROW,
    DistillSettings,
    distill,
    load_questions,
    open_teacher,
    prompt_hash,
)
from safeladder.ladder.filters import filter_file, load_steps
from safeladder.types import Media, Message, Prompt

CHAIN = "<think>two and two are four</think> 4"


@pytest.fixture(scope="module")
def running() -> Iterator[ModelServer]:
    with serve(ModelServer(FakeSampler.scripted({}))) as server:
        yield server


@pytest.fixture
def server(running: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running.engine = FakeSampler.scripted({"": [CHAIN, "<think>I count them</think> 4"]})
    running.faults, running.requests, running.headers = [], [], []
    return running


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"q{i}", (Message("user", f"{i} + {i} ?"),), str(2 * i), "sums", "math",
                   meta={"level": i}) for i in range(count)]


def ask(server: ModelServer, rows: list[Prompt], out: Path, endpoint: Any = None,
        **settings: Any) -> Any:
    told = {"base_url": server.url, "model": "teacher-1", "backoff": 0.001, "max_backoff": 0.01,
            "max_retries": 1} | (endpoint or {})
    return asyncio.run(distill(rows, Endpoint(**told), DistillSettings(**settings), out))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_response_is_a_row_that_says_where_it_is_from(server, tmp_path):
    out = tmp_path / "chains.jsonl"
    result = ask(server, prompts(3), out, n=2, seed=7, temperature=0.8, max_tokens=60)
    assert (result.written, result.kept, result.failures, result.not_asked) == (6, 0, [], 0)
    rows = {row["id"]: row for row in lines(out)}
    assert list(rows) == [f"q{i}/{k}" for i in range(3) for k in range(2)]
    row = rows["q2/1"]
    assert row["messages"] == [{"role": "user", "content": "2 + 2 ?"}]
    assert (row["reference"], row["task"], row["source"], row["level"]) == ("4", "math", "sums", 2)
    assert (row["teacher"], row["number"], row["seed"]) == ("teacher-1", 1, 8)
    assert row["finish_reason"] == "stop" and row["response"].startswith("<think>")
    assert row["prompt_hash"] == prompt_hash(prompts(3)[2]) == rows["q2/0"]["prompt_hash"]
    assert row["request_hash"] != rows["q2/0"]["request_hash"]
    sent = [r for r in server.requests if r["messages"][0]["content"] == "2 + 2 ?"]
    assert sorted(r["seed"] for r in sent) == [7, 8]
    assert {r["temperature"] for r in sent} == {0.8} and {r["max_tokens"] for r in sent} == {60}
    assert read_responses(out)[0].prompt.reference is not None
    assert (tmp_path / "chains.jsonl.failures.jsonl").read_text() == ""


def test_a_rerun_asks_only_for_what_is_missing(server, tmp_path):
    out = tmp_path / "chains.jsonl"
    ask(server, prompts(2), out)
    before = out.read_text()
    server.requests.clear()
    result = ask(server, prompts(4), out)
    assert (result.written, result.kept, result.other) == (2, 2, 0)
    assert sorted(r["messages"][0]["content"] for r in server.requests) == ["2 + 2 ?", "3 + 3 ?"]
    assert out.read_text().startswith(before)
    assert result.finish_reasons == {"stop": 4}
    for changed in ({"seed": 1}, {"max_tokens": 99}, {"temperature": 0.5},
                    {"system_prompt": "think first"}):
        kept = ask(server, prompts(4)[:1], out, **changed)
        assert (kept.written, kept.kept) == (1, 0) and kept.other >= 4
    other = ask(server, prompts(1), out, {"model": "teacher-2"})
    assert other.written == 1


def test_a_line_that_a_killed_run_left_half_is_asked_again(server, tmp_path):
    out = tmp_path / "chains.jsonl"
    ask(server, prompts(3), out)
    whole = out.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 40):
        out.write_bytes(whole[:cut])
        result = ask(server, prompts(3), out)
        assert (result.written, result.kept) == (1, 2)
        assert len(lines(out)) == 3


def test_a_file_of_another_making_is_left_alone(server, tmp_path):
    out = tmp_path / "mine.jsonl"
    for text in ('{"prompt": "x", "response": "y"}\n', "not json\n", "[1]\n"):
        out.write_text(text)
        with pytest.raises(DataError, match=r"mine\.jsonl:1: not written by"):
            ask(server, prompts(1), out)
        assert out.read_text() == text


def test_failures_are_counted_shown_and_asked_again(server, tmp_path):
    out = tmp_path / "chains.jsonl"
    one_at_a_time = {"max_concurrency": 1, "max_retries": 0}
    server.faults = [400, 503]
    result = ask(server, prompts(4), out, one_at_a_time)
    assert (result.written, result.kept, len(result.failures), result.not_asked) == (2, 0, 2, 0)
    failed = lines(tmp_path / "chains.jsonl.failures.jsonl")
    assert [(f["id"], f["number"]) for f in failed] == [("q0", 0), ("q1", 0)]
    assert "400" in failed[0]["error"] and "503" in failed[1]["error"]
    assert sum(result.reasons.values()) == 2
    again = ask(server, prompts(4), out, one_at_a_time)
    assert (again.written, again.kept, again.failures) == (2, 2, [])
    assert (tmp_path / "chains.jsonl.failures.jsonl").read_text() == ""
    assert sorted(row["id"] for row in lines(out)) == ["q0/0", "q1/0", "q2/0", "q3/0"]


def test_what_passes_is_retried_without_being_a_failure(server, tmp_path):
    server.faults = [503, 429]
    result = ask(server, prompts(3), tmp_path / "chains.jsonl", {"max_retries": 3})
    assert (result.written, result.failures) == (3, []) and result.usage.retries == 2


def test_a_dead_server_is_not_asked_for_ever(server, tmp_path):
    server.faults = [400] * 200
    result = ask(server, prompts(100), tmp_path / "c.jsonl",
                 {"max_concurrency": 4, "max_retries": 0})
    assert result.written == 0
    assert IN_A_ROW <= len(result.failures) <= IN_A_ROW + 4
    assert len(result.failures) + result.not_asked == 100


def test_single_failures_between_successes_stop_nothing(server, tmp_path):
    reply = {"choices": [{"message": {"content": CHAIN}, "finish_reason": "stop"}]}
    server.faults = [fault for _ in range(20) for fault in (400, reply)]
    result = ask(server, prompts(40), tmp_path / "c.jsonl",
                 {"max_concurrency": 1, "max_retries": 0})
    assert (result.written, len(result.failures), result.not_asked) == (20, 20, 0)


def test_truncated_responses_are_rows_that_a_filter_can_drop(server, tmp_path):
    out = tmp_path / "chains.jsonl"
    result = ask(server, prompts(2), out, max_tokens=5)
    assert result.finish_reasons == {"length": 2}
    steps = tmp_path / "steps.yaml"
    steps.write_text("steps: [{type: meta, key: finish_reason, accept: [stop]}]")
    report = asyncio.run(filter_file(out, tmp_path / "out", load_steps(str(steps))))
    assert report.steps[0].reasons == {"finish_reason is length": 2}


def test_the_system_prompt_is_sent_and_not_written(server, tmp_path):
    rows = [*prompts(1), Prompt("own", (Message("system", "mine"), Message("user", "?")))]
    ask(server, rows, tmp_path / "c.jsonl", system_prompt="think aloud")
    sent = {r["messages"][-1]["content"]: r["messages"][0] for r in server.requests}
    assert sent["0 + 0 ?"] == {"role": "system", "content": "think aloud"}
    assert sent["?"] == {"role": "system", "content": "mine"}
    written = {row["id"]: row["messages"][0]["role"] for row in lines(tmp_path / "c.jsonl")}
    assert written == {"q0/0": "user", "own/0": "system"}


def test_images_are_sent_and_stored(server, tmp_path):
    image = Media(pixels=np.zeros((4, 4, 3), np.uint8))
    shown = Prompt("i", (Message("user", ({"type": "image"}, {"type": "text", "text": "?"})),),
                   media=(image,))
    with pytest.raises(ConfigError, match="takes_images"):
        ask(server, [shown], tmp_path / "c.jsonl")
    assert not server.requests
    result = ask(server, [shown], tmp_path / "c.jsonl", {"takes_images": True})
    assert result.written == 1
    part = server.requests[0]["messages"][0]["content"][0]
    assert part["image_url"]["url"].startswith("data:image/png;base64,")
    (read,) = read_responses(tmp_path / "c.jsonl")
    stored = to_media(str(read.prompt.media[0].path), "here", tmp_path)
    assert stored.digest == read.prompt.media[0].digest
    assert ask(server, [shown], tmp_path / "c.jsonl", {"takes_images": True}).kept == 1


def test_a_prompt_that_cannot_be_sent_is_one_line_and_what_came_stays(server, tmp_path):
    lost = Prompt("i", (Message("user", ({"type": "image"},)),))
    with pytest.raises(DataError, match="1 image parts in the messages, but 0 images"):
        ask(server, [*prompts(3), lost], tmp_path / "c.jsonl", {"max_concurrency": 1})
    assert len(lines(tmp_path / "c.jsonl")) == 3


def test_equal_prompts_are_asked_once_and_greedy_ones_not_n_times(server, tmp_path):
    twice = [*prompts(1), *prompts(1)]
    result = ask(server, twice, tmp_path / "c.jsonl")
    assert (result.written, result.repeated, len(server.requests)) == (1, 1, 1)
    with pytest.raises(ConfigError, match="temperature 0"):
        ask(server, twice, tmp_path / "c.jsonl", n=2, temperature=0)


def test_questions_come_from_files_and_sources_without_their_answers(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "?"},
                                             {"role": "assistant", "content": "!"}],
                                "response": "old", "label": "x", "answer": "4"}) + "\n")
    (prompt,) = load_questions(file)
    assert [m.role for m in prompt.messages] == ["user"]
    assert prompt.reference == "4" and not {"response", "label"} & set(prompt.meta)
    source = tmp_path / "s.yaml"
    source.write_text("{type: microworld, family: value, split: train, count: 5, "
                      "teacher: {ideal: 1.0}}")
    assert [m.role for p in load_questions(source, 3) for m in p.messages] == ["user"] * 3
    file.write_text('{"prompt": "<|im_start|>user\\n?<|im_end|>\\n<|im_start|>assistant\\n"}\n')
    with pytest.raises(DataError, match="chat template already"):
        load_questions(file)


def test_a_teacher_is_a_file_or_an_address(tmp_path):
    card = tmp_path / "t.yaml"
    card.write_text("{base_url: 'http://127.0.0.1:1/v1', model: m, takes_images: true}")
    assert open_teacher(str(card), None).takes_images
    assert open_teacher("http://127.0.0.1:1/v1", "m").model == "m"
    for text, model, problem in ((str(card), "m", "says the model itself"),
                                 ("http://127.0.0.1:1/v1", None, "--model"),
                                 (str(tmp_path / "none.yaml"), None, "No such file")):
        with pytest.raises(ConfigError, match=problem):
            open_teacher(text, model)
    with pytest.raises(ConfigError, match="n: "):
        validate(DistillSettings, {"n": 0}, "distill")


def test_chains_are_distilled_filtered_and_imitated(server, tmp_path):
    out = tmp_path / "chains.jsonl"
    ask(server, prompts(5), out, n=2)
    steps = tmp_path / "steps.yaml"
    steps.write_text("""
steps:
  - {type: meta, key: finish_reason, accept: [stop]}
  - {type: verifier, name: answer, verifier: {type: numeric, where: [last]}}
  - {type: verifier, verifier: {type: format}}
  - {type: deduplicate, of: pair}
""")
    report = asyncio.run(filter_file(out, tmp_path / "out", load_steps(str(steps))))
    # the teacher always says 4: right for 2 + 2 alone, in one or two wordings
    assert report.steps[1].dropped == 8 and 1 <= report.kept <= 2
    imitated = build_source({"type": "responses", "path": str(tmp_path / "out/kept.jsonl")})
    assert {m.messages[-1].role for m in imitated} == {"assistant"}
    assert {m.meta["teacher"] for m in imitated} == {"teacher-1"}


def test_the_command_prints_what_it_did_and_fails_when_something_is_missing(
    server, tmp_path, capsys,
):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "2+2"}\n{"prompt": "3+3"}\n')
    card = tmp_path / "teacher.yaml"
    card.write_text(f"{{base_url: '{server.url}', model: m, max_retries: 0, max_concurrency: 1}}")
    note = tmp_path / "system.txt"
    note.write_text("think aloud\n")
    settings = {"n": 1, "temperature": 1.0, "max_tokens": 60, "seed": 0}
    out = tmp_path / "c.jsonl"
    server.faults = [400]
    assert not run_distill(file, out, str(card), None, f"@{note}", None, settings)
    said = capsys.readouterr().out
    assert "1 responses written now, 0 were there already, 1 failed, 0 not asked" in said
    assert "run the same command again" in said and "fault 400" in said
    assert server.requests[-1]["messages"][0] == {"role": "system", "content": "think aloud"}
    assert run_distill(file, out, str(card), None, f"@{note}", None, settings)
    assert "1 were there already" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="cannot be read"):
        run_distill(file, out, str(card), None, "@nowhere", None, settings)


def test_replies_with_line_separators_and_repeated_prompts_keep_their_place(server, tmp_path):
    server.engine = FakeSampler.scripted({"": ["one\u2028two\x85three"]})
    out = tmp_path / "chains.jsonl"
    first, second = prompts(2)
    for _ in range(2):
        result = ask(server, [first, second, first], out)
        assert (result.written + result.kept, result.failures) == (2, [])
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
    assert [row["id"] for row in rows] == ["q0/0", "q1/0"]
    assert rows[0]["response"] == "one\u2028two\x85three"


def test_a_column_of_the_prompts_never_takes_the_place_of_the_reply(server, tmp_path):
    row = Prompt("q", (Message("user", "?"),), meta={"response": "OLD", "messages": "OLD", "x": 1})
    out = tmp_path / "chains.jsonl"
    ask(server, [row], out)
    (found,) = lines(out)
    assert (found["response"], found["x"]) == (CHAIN, 1) and found["messages"] != "OLD"
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "?", "seed": 3}\n')
    with pytest.raises(DataError, match="column 'seed' is one that this command writes"):
        load_questions(path)
