import asyncio
import base64
import logging
import math
import random
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_server import TOKENS, ModelServer, serve
from pydantic import ValidationError
from suite_sampler import CHECKS, SamplerCase, run_check

from safeladder.engine.base import Capability, SamplingParams
from safeladder.engine.fake import FakeSampler, TableModel
from safeladder.engine.remote import Endpoint, RemoteSampler
from safeladder.engine.remote.transport import backoff
from safeladder.envs import SingleTurn
from safeladder.errors import ConfigError, DataError, SamplingError
from safeladder.render import Renderer
from safeladder.rollout import failures, rollout
from safeladder.types import Media, Message, Prompt, Status

ASK = [Message("user", "2+2")]
PARAMS = SamplingParams(max_tokens=30, seed=1)
CONTRACT_PROMPT = (3, 1, 4)


@pytest.fixture(scope="module")
def running() -> Iterator[ModelServer]:
    with serve(ModelServer(FakeSampler.scripted({}))) as server:
        yield server


@pytest.fixture
def server(running: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running.engine = FakeSampler.scripted({"2+2": ["four", "4"], "": "what?"})
    running.processed_logprobs, running.returns_ids = False, True
    running.faults, running.requests, running.headers = [], [], []
    running.most_under_way = 0
    return running


def sampler(server: ModelServer, **more: Any) -> RemoteSampler:
    settings = {"model": "m", "backoff": 0.001, "max_backoff": 0.01} | more
    return RemoteSampler(Endpoint(base_url=server.url, **settings))


def run(call: Any) -> Any:
    return asyncio.run(call)


async def listed(stream: Any) -> list[Any]:
    return [item async for item in stream]


@pytest.mark.parametrize("entry", CHECKS)
@pytest.mark.parametrize("mode", ["raw", "processed"])
def test_sampler_contract(server: ModelServer, entry: Any, mode: str) -> None:
    if mode == "processed" and entry[0].__name__ in (
            "truncation_keeps_the_likeliest", "greedy_rows_are_equal_and_take_the_most_"
            "probable_token", "sampled_logprobs_are_those_of_scoring"):
        pytest.skip("truncation, and scoring at another temperature, are refused: tested below")
    table = np.random.default_rng(1).normal(size=(20, 20))
    server.engine, server.processed_logprobs = FakeSampler(TableModel(table)), mode == "processed"
    remote = sampler(server, dialect="vllm", logprobs_mode=mode)
    run_check(entry, SamplerCase(remote, CONTRACT_PROMPT, stop_token_id=7, temperatures=(1.0,)))


def test_chat_replies_in_order_with_usage(server: ModelServer) -> None:
    remote = sampler(server)
    replies = run(remote.chat(ASK, PARAMS, n=6))
    direct = run(FakeSampler.scripted({"2+2": ["four", "4"]}).sample(
        TOKENS("2+2")["input_ids"], SamplingParams(30, seed=1, stop_token_ids=(256,)), 6))
    assert [r.text for r in replies] == [
        TOKENS.decode(c.token_ids, skip_special_tokens=True) for c in direct]
    assert {r.text for r in replies} == {"four", "4"}
    assert {r.finish_reason for r in replies} == {"stop"}
    spent = sum(len(c.token_ids) for c in direct)
    usage = remote.usage
    assert (usage.calls, usage.retries, usage.failures) == (1, 0, 0)
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, spent)
    assert usage.seconds > 0
    assert (replies[0].prompt_tokens, replies[0].completion_tokens) == (3, None)
    (single,) = run(remote.chat(ASK, PARAMS))
    assert single.completion_tokens == len(single.text) + 1


def test_a_plain_endpoint_gets_no_fields_it_does_not_know(server: ModelServer) -> None:
    run(sampler(server).chat(ASK, PARAMS))
    assert server.requests[0] == {
        "model": "m", "messages": [{"role": "user", "content": "2+2"}], "max_tokens": 30,
        "temperature": 1.0, "top_p": 1.0, "seed": 1, "n": 1}
    renamed = sampler(server, max_tokens_field="max_completion_tokens",
                      extra_body={"seed": None, "reasoning_effort": "low"})
    with pytest.raises(SamplingError):
        run(renamed.chat(ASK, PARAMS))  # this server wants its seed
    assert server.requests[1]["max_completion_tokens"] == 30
    assert server.requests[1]["reasoning_effort"] == "low"
    assert not {"seed", "max_tokens"} & set(server.requests[1])
    for params in (SamplingParams(5, top_k=3), SamplingParams(5, min_tokens=2)):
        with pytest.raises(ConfigError, match="dialect: vllm"):
            run(sampler(server).chat(ASK, params))


def test_vllm_is_told_every_parameter_so_no_default_of_the_server_counts(
    server: ModelServer,
) -> None:
    remote = sampler(server, dialect="vllm")
    prompt_ids = TOKENS("2+2")["input_ids"]
    params = SamplingParams(30, seed=1, stop_token_ids=(256,), top_k=5, top_p=0.9, min_tokens=1)
    (completion,) = run(remote.sample(prompt_ids, params))
    assert TOKENS.decode(completion.token_ids) in ("four<|end|>", "4<|end|>")
    assert completion.finish_reason == "stop"
    assert completion.sampler_logprobs[0] == pytest.approx(math.log(0.5), abs=1e-6)
    assert server.requests[0] == {
        "model": "m", "prompt": prompt_ids, "max_tokens": 30, "n": 1, "temperature": 1.0,
        "top_p": 0.9, "top_k": 5, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 1,
        "seed": 1, "stop_token_ids": [256], "ignore_eos": True, "logprobs": 1,
        "return_token_ids": True, "return_tokens_as_token_ids": True,
        "skip_special_tokens": False}


def test_rows_come_in_order(server: ModelServer) -> None:
    prompt_ids, params = TOKENS("2+2")["input_ids"], SamplingParams(30, stop_token_ids=(256,))
    rows = run(sampler(server, dialect="vllm").sample(prompt_ids, params, 8))
    direct = run(server.engine.sample(prompt_ids, params, 8))
    assert [c.token_ids for c in rows] == [c.token_ids for c in direct]
    assert len({c.token_ids for c in rows[:3]}) == 2


def test_ids_are_found_in_the_token_names_of_older_servers(server: ModelServer) -> None:
    server.returns_ids = False
    params = SamplingParams(30, stop_token_ids=(256,))
    (completion,) = run(sampler(server, dialect="vllm").sample(TOKENS("hi")["input_ids"], params))
    assert TOKENS.decode(completion.token_ids) == "what?<|end|>"


def test_log_probabilities_of_another_kind_are_refused(server: ModelServer) -> None:
    raw = sampler(server, dialect="vllm")
    processed = sampler(server, dialect="vllm", logprobs_mode="processed")
    with pytest.raises(ConfigError, match="--logprobs-mode processed_logprobs"):
        run(raw.sample((1,), SamplingParams(3, temperature=0.5)))
    for params in (SamplingParams(3, top_p=0.9), SamplingParams(3, top_k=2)):
        with pytest.raises(ConfigError, match="truncated"):
            run(processed.sample((1,), params))
    with pytest.raises(ConfigError, match="temperature 1 only"):
        run(processed.logprobs((1, 2), temperature=0.5))
    assert server.requests == []
    table = np.random.default_rng(1).normal(size=(20, 20))
    server.engine, server.processed_logprobs = FakeSampler(TableModel(table)), True
    params = SamplingParams(5, temperature=0.5)
    (cold,) = run(processed.sample(CONTRACT_PROMPT, params))
    expected = run(server.engine.logprobs(CONTRACT_PROMPT + cold.token_ids, temperature=0.5))
    np.testing.assert_allclose(cold.sampler_logprobs, expected[3:], atol=1e-6)


def test_capabilities_are_what_the_dialect_gives(server: ModelServer) -> None:
    assert sampler(server).capabilities == frozenset()
    vllm = sampler(server, dialect="vllm", takes_images=True)
    assert vllm.capabilities == {Capability.LOGPROBS, Capability.MEDIA}
    with pytest.raises(ConfigError, match="only 'dialect: vllm'"):
        run(sampler(server).sample((1,), PARAMS))
    image = Media(pixels=np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ConfigError, match="takes no images: use chat"):
        run(vllm.sample((1,), PARAMS, 1, [image]))


@pytest.mark.parametrize("fault", [429, 500, 502, 503, "html", "drop"])
def test_passing_faults_are_retried(server: ModelServer, fault: Any) -> None:
    server.faults = [fault, fault]
    remote = sampler(server, max_retries=2)
    (reply,) = run(remote.chat([Message("user", "hi")], PARAMS))
    assert reply.text == "what?"
    assert (remote.usage.calls, remote.usage.retries, len(server.requests)) == (1, 2, 3)
    assert server.requests[0] == server.requests[2]


@pytest.mark.parametrize(("fault", "line"), [
    (503, r"POST /v1/chat/completions: 503 .*: fault 503, 3 attempts"),
    ("html", r"POST /v1/chat/completions: the answer is not JSON, 3 attempts"),
    ("drop", r"POST /v1/chat/completions: connection failed \(RemoteProtocolError.*3 attempts"),
])
def test_lasting_faults_end_in_one_line(server: ModelServer, fault: Any, line: str) -> None:
    server.faults = [fault] * 3
    remote = sampler(server, max_retries=2)
    with pytest.raises(SamplingError, match=line):
        run(remote.chat(ASK, PARAMS))
    assert (remote.usage.retries, remote.usage.failures) == (2, 1)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_faults_that_will_not_pass_are_not_retried(server: ModelServer, status: int) -> None:
    server.faults = [status]
    with pytest.raises(SamplingError, match=rf"POST /v1/chat/completions: {status} .*fault"):
        run(sampler(server).chat(ASK, PARAMS))
    assert len(server.requests) == 1


def test_an_answer_that_drips_is_given_up_too(server: ModelServer) -> None:
    server.faults = ["drip"]
    remote = sampler(server, request_timeout=0.2)
    (reply,) = run(remote.chat([Message("user", "hi")], PARAMS))
    assert reply.text == "what?" and remote.usage.retries >= 1


def test_a_slow_answer_is_given_up_and_asked_for_again(server: ModelServer) -> None:
    server.faults = ["slow"]
    remote = sampler(server, request_timeout=0.2)
    (reply,) = run(remote.chat([Message("user", "hi")], PARAMS))
    assert reply.text == "what?" and remote.usage.retries >= 1
    server.faults = ["slow"] * 9
    start = time.perf_counter()
    with pytest.raises(SamplingError, match=r"gave up after 0\.25 s and . attempts; the last: no"):
        run(sampler(server, request_timeout=0.1, total_timeout=0.25).chat(ASK, PARAMS))
    assert time.perf_counter() - start < 1.5


def test_no_server_at_all(server: ModelServer) -> None:
    closed = Endpoint(base_url="http://user:secret@127.0.0.1:9/v1", model="m", max_retries=1,
                      backoff=0.0)
    with pytest.raises(SamplingError, match="connection failed") as caught:
        run(RemoteSampler(closed).chat(ASK, PARAMS))
    assert "secret" not in str(caught.value)


def test_waits_double_are_capped_and_jittered_by_seed() -> None:
    endpoint = Endpoint(base_url="http://h/v1", model="m", backoff=1.0, max_backoff=4.0)
    bases = [1, 2, 4, 4]

    def waits(seed: int) -> list[float]:
        jitter = random.Random(seed)
        return [backoff(endpoint, tries, jitter) for tries in (1, 2, 3, 4)]

    shares = [wait / base for wait, base in zip(waits(7), bases, strict=True)]
    assert all(0.5 <= share <= 1 for share in shares) and len(set(shares)) == 4
    assert waits(7) == waits(7) != waits(8)
    assert backoff(endpoint, 1, random.Random(0), after=3.0) == 3.0
    assert backoff(endpoint, 1, random.Random(0), after=900.0) == 4.0


def test_the_server_says_when_to_come_back(server: ModelServer) -> None:
    server.faults = [(429, "", {"retry-after": "0.15"}),
                     (503, "", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})]
    remote = sampler(server, max_backoff=0.2)
    start = time.perf_counter()
    run(remote.chat(ASK, PARAMS))
    assert time.perf_counter() - start >= 0.15
    assert remote.usage.retries == 2


@pytest.mark.parametrize(("answer", "line"), [
    ({"choices": []}, "asked for 1 replies, got 0"),
    ({"error": "x"}, "unexpected answer, choices: Field required"),
    ([1, 2], "unexpected answer, the whole"),
    ({"choices": [{"message": {"content": None}, "finish_reason": "length"}]},
     r"a reply without text \(finish_reason length\)"),
])
def test_answers_of_a_wrong_shape(server: ModelServer, answer: Any, line: str) -> None:
    server.faults = [answer]
    with pytest.raises(SamplingError, match=line):
        run(sampler(server).chat(ASK, PARAMS))


def completion_answer(**fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "token_ids": [5, 6],
              "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0]}} | fields
    return {"choices": [choice]}


@pytest.mark.parametrize(("fields", "line"), [
    ({"token_ids": None}, "no token ids"),
    ({"logprobs": None}, "no token ids or log-probabilities"),
    ({"token_ids": [5]}, "1 tokens, 2 log-probabilities"),
    ({"logprobs": {"token_logprobs": [-1.0, None]}}, "1 of 2 log-probabilities are missing"),
    ({"finish_reason": "abort"}, "ended with 'abort'"),
])
def test_completions_that_cannot_be_trained_on(
    server: ModelServer, fields: dict[str, Any], line: str,
) -> None:
    remote = sampler(server, dialect="vllm")
    server.faults = [completion_answer(), completion_answer(**fields)]
    (good,) = run(remote.sample((1,), PARAMS))
    assert good.token_ids == (5, 6)
    with pytest.raises(SamplingError, match=line):
        run(remote.sample((1,), PARAMS))


def test_logprobs_that_are_nan_are_refused(server: ModelServer) -> None:
    server.faults = [(200, '{"choices": [{"finish_reason": "stop", "token_ids": [5], "logprobs": '
                           '{"token_logprobs": [NaN]}}]}', {"content-type": "application/json"})]
    with pytest.raises(SamplingError, match="not finite"):
        run(sampler(server, dialect="vllm").sample((1,), PARAMS))
    server.faults = [{"choices": [{"prompt_logprobs": [None, {"9": {"logprob": -1.0}}]}]}]
    with pytest.raises(SamplingError, match="1 of 1 log-probabilities are missing"):
        run(sampler(server, dialect="vllm").logprobs((1, 2)))


def test_reasoning_taken_out_by_the_server_is_put_back(server: ModelServer) -> None:
    def message(**fields: Any) -> dict[str, Any]:
        return {"choices": [{"message": fields, "finish_reason": "stop"}]}

    server.faults = [
        message(content="4", reasoning_content="two and two"),
        message(content="4", reasoning="two and two"),
        message(content=None, reasoning="two and"),
        message(content=None, refusal="I will not"),
        message(content=""),
    ]
    texts = [run(sampler(server).chat(ASK, PARAMS))[0].text for _ in range(5)]
    whole = "<think>\ntwo and two\n</think>\n\n4"
    assert texts == [whole, whole, "<think>\ntwo and", "I will not", ""]


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ConfigError, match="variable A_KEY is not set"):
        sampler(server, api_key_env="A_KEY")
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    remote = sampler(server, api_key_env="A_KEY", max_retries=0)
    server.faults = [(401, "bad key sk-very-secret given", {})]
    with caplog.at_level(logging.DEBUG), pytest.raises(SamplingError) as caught:
        run(remote.chat(ASK, PARAMS))
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert str(caught.value).endswith("401 Unauthorized: bad key *** given")
    assert "sk-very-secret" not in caplog.text + repr(caught.value) + repr(remote.usage)


def test_images_travel_as_data_urls_in_order(server: ModelServer, tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    file = tmp_path / "a.bin"
    file.write_bytes(b"\xff\xd8\xff jpeg bytes")
    content = ({"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"})
    ask = [Message("user", content)]
    media = [Media(pixels=pixels), Media(path=str(file))]
    run(sampler(server, takes_images=True).chat(ask, PARAMS, media=media))
    first, text, second = server.requests[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "and"}
    assert second["image_url"]["url"] == (
        "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff jpeg bytes").decode())
    assert (decode_png(first["image_url"]["url"]) == pixels).all()
    assert ask[0].content == content
    for wrong in ([], media[:1], [*media, media[0]]):
        with pytest.raises(DataError, match=f"2 image parts in the messages, but {len(wrong)}"):
            run(sampler(server, takes_images=True).chat(ask, PARAMS, media=wrong))
    with pytest.raises(ConfigError, match="set takes_images"):
        run(sampler(server).chat(ask, PARAMS, media=media))
    file.write_bytes(b"text")
    with pytest.raises(DataError, match="neither PNG"):
        run(sampler(server, takes_images=True).chat(ask, PARAMS, media=media))


def decode_png(url: str) -> Any:
    """Read it back with pillow where that is installed, else by the layout of the format."""
    content = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    width, height = struct.unpack(">II", content[16:24])
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4:start])
    rows = np.frombuffer(zlib.decompress(content[start + 4:start + 4 + length]), np.uint8)
    assert content[start + 4 + length:start + 8 + length] == struct.pack(
        ">I", zlib.crc32(content[start:start + 4 + length]))
    return rows.reshape(height, 1 + 3 * width)[:, 1:].reshape(height, width, 3)


def test_png_is_what_an_image_library_reads() -> None:
    image = pytest.importorskip("PIL.Image")
    import io

    from safeladder.engine.remote.wire import data_url
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    content = base64.b64decode(data_url(Media(pixels=pixels)).partition(",")[2])
    assert (np.asarray(image.open(io.BytesIO(content))) == pixels).all()


def test_no_more_requests_under_way_than_allowed(server: ModelServer) -> None:
    remote = sampler(server, max_concurrency=3)

    async def many() -> None:
        await asyncio.gather(*(remote.chat([Message("user", "hi")], PARAMS) for _ in range(12)))

    run(many())
    assert server.most_under_way == 3
    assert remote.usage.calls == 12


def test_waiting_for_a_free_place_does_not_use_up_the_time_limit(server: ModelServer) -> None:
    remote = sampler(server, max_concurrency=1, total_timeout=0.7)
    server.faults = ["slow"] * 3

    async def many() -> list[Any]:
        return await asyncio.gather(*(remote.chat([Message("user", "hi")], PARAMS)
                                      for _ in range(3)))

    assert len(run(many())) == 3


def test_one_sampler_serves_several_event_loops_and_closes(server: ModelServer) -> None:
    remote = sampler(server)
    for _ in range(2):
        assert run(remote.chat([Message("user", "hi")], PARAMS))[0].text == "what?"

    async def scoped() -> str:
        async with sampler(server) as inner:
            return str((await inner.chat([Message("user", "hi")], PARAMS))[0].text)

    assert run(scoped()) == "what?"


def test_streams_of_tokens_and_of_text(server: ModelServer) -> None:
    vllm = sampler(server, dialect="vllm")
    params = SamplingParams(30, stop_token_ids=(256,))
    ids = run(listed(vllm.stream(TOKENS("hi")["input_ids"], params)))
    assert TOKENS.decode(ids) == "what?<|end|>"
    assert vllm.usage.completion_tokens == 6
    text = run(listed(sampler(server).stream_chat([Message("user", "hi")], PARAMS)))
    assert text == ["w", "h", "a", "t", "?"]
    server.faults = [503]
    again = sampler(server, dialect="vllm")
    assert run(listed(again.stream(TOKENS("hi")["input_ids"], params))) == ids
    assert again.usage.retries == 1


def test_streamed_reasoning_is_put_into_tags(server: ModelServer) -> None:
    server.faults = [{"choices": [{"delta": {"reasoning": "so"}}]}]
    pieces = run(listed(sampler(server).stream_chat([Message("user", "hi")], PARAMS)))
    assert "".join(pieces) == "wh<think>\nso\n</think>\n\nat?"


@pytest.mark.parametrize(("fault", "line"), [
    ("drop", "the stream broke off"),
    ("short", r"ended without \[DONE\]"),
    ("not json", "an event of the stream is not JSON"),
    ({"error": {"message": "out of memory"}}, "the server broke off.*out of memory"),
])
def test_broken_streams_are_errors_after_what_came(
    server: ModelServer, fault: Any, line: str,
) -> None:
    server.faults = [fault]
    remote, got = sampler(server), []

    async def read() -> None:
        async for piece in remote.stream_chat([Message("user", "hi")], PARAMS):
            got.append(piece)

    with pytest.raises(SamplingError, match=line):
        run(read())
    assert got == ["w", "h"]
    assert remote.usage.failures == 1


def test_a_stream_left_early_leaves_nothing_open(server: ModelServer) -> None:
    remote = sampler(server, max_concurrency=1)

    async def first() -> str:
        async for piece in remote.stream_chat([Message("user", "hi")], PARAMS):
            return piece
        return ""

    async def twice() -> list[str]:
        return [await first(), await first()]

    assert run(twice()) == ["w", "w"]


def test_a_rollout_over_http_records_what_failed(server: ModelServer) -> None:
    prompts = [Prompt(id=str(i), messages=(Message("user", text),))
               for i, text in enumerate(["2+2", "hi"])]
    remote = sampler(server, dialect="vllm", max_concurrency=1)
    server.faults = [400]
    groups = run(rollout(remote, Renderer(TOKENS), SingleTurn(), prompts, 4, PARAMS))
    assert failures(groups) == {Status.ERROR_SAMPLER: 4}
    assert {t.response for t in groups[1].trajectories} == {"what?"}
    assert "POST /v1/completions: 400" in (groups[0].trajectories[0].error or "")


def test_an_endpoint_is_checked_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match="base_url"):
        Endpoint(base_url="localhost:8000", model="m")
    with pytest.raises(ValidationError, match="max_concurrency"):
        Endpoint(base_url="http://h/v1", model="m", max_concurrency=0)
