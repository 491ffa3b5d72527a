"""A real HTTP server that answers as vLLM and as a plain OpenAI endpoint do, faults included."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from safeladder.engine.base import SamplingParams
from safeladder.engine.fake import ByteTokenizer, FakeSampler

TOKENS = ByteTokenizer()


@dataclass
class ModelServer:
    """What the server holds; tests set ``engine`` and ``faults`` and read ``requests``.

    A fault answers one request: a status, (status, text, headers), ``"slow"``, ``"drip"``,
    ``"html"``, ``"drop"`` (the connection is cut within the answer), or any other JSON value as
    the whole answer.
    """

    engine: FakeSampler
    processed_logprobs: bool = False
    faults: list[Any] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    returns_ids: bool = True
    url: str = ""
    under_way: int = 0
    most_under_way: int = 0

    async def chat(self, body: dict[str, Any]) -> Response:
        text = "".join(m["content"] if isinstance(m["content"], str) else "[parts]"
                       for m in body["messages"])
        params = SamplingParams(max_tokens=body.get("max_tokens") or body["max_completion_tokens"],
                                temperature=body["temperature"], top_p=body["top_p"],
                                seed=body["seed"], stop_token_ids=(TOKENS.eos_token_id,))
        prompt_ids = TOKENS(text)["input_ids"]
        completions = await self.engine.sample(prompt_ids, params, body.get("n", 1))
        texts = [TOKENS.decode(c.token_ids, skip_special_tokens=True) for c in completions]
        if body.get("stream"):
            return _events(self, [{"choices": [{"index": 0, "delta": {"content": piece}}]}
                                  for piece in texts[0]])
        choices = [{"index": i, "message": {"role": "assistant", "content": text},
                    "finish_reason": c.finish_reason}
                   for i, (text, c) in enumerate(zip(texts, completions, strict=True))]
        return JSONResponse({"choices": choices[::-1], "usage": _usage(prompt_ids, completions)})

    async def complete(self, body: dict[str, Any]) -> Response:
        if body["temperature"] == 0 and body.get("n", 1) > 1:
            return JSONResponse({"error": {"message": "n must be 1 when using greedy sampling"}},
                                400)
        prompt_ids = body["prompt"]
        params = SamplingParams(
            max_tokens=body["max_tokens"], temperature=body["temperature"], top_p=body["top_p"],
            top_k=max(body["top_k"], 0), seed=body["seed"], min_tokens=body["min_tokens"],
            stop_token_ids=tuple(body["stop_token_ids"]))
        if not body.get("ignore_eos"):
            params = SamplingParams(**{**params.__dict__, "stop_token_ids": (0,)})
        completions = await self.engine.sample(prompt_ids, params, body.get("n", 1))
        if body.get("stream"):
            ids = completions[0].token_ids
            return _events(self, [{"choices": [{"index": 0, "text": "", "token_ids": [i]}]}
                                  for i in ids])
        choices = [await self._choice(i, c, body) for i, c in enumerate(completions)]
        return JSONResponse({"choices": choices[::-1], "usage": _usage(prompt_ids, completions)})

    async def _choice(self, index: int, completion: Any, body: dict[str, Any]) -> dict[str, Any]:
        ids, prompt_ids = list(completion.token_ids), body["prompt"]
        logprobs = completion.sampler_logprobs
        if not self.processed_logprobs:
            logprobs = (await self.engine.logprobs([*prompt_ids, *ids]))[len(prompt_ids):]
        choice: dict[str, Any] = {
            "index": index, "text": "?", "finish_reason": completion.finish_reason,
            "logprobs": {"tokens": [f"token_id:{i}" for i in ids],
                         "token_logprobs": [float(x) for x in logprobs]}}
        if self.returns_ids:
            choice["token_ids"] = ids
        if body.get("prompt_logprobs") is not None:
            scored = await self.engine.logprobs(prompt_ids)
            choice["prompt_logprobs"] = [None] + [
                {str(i): {"logprob": float(x), "rank": 1, "decoded_token": "?"}}
                for i, x in zip(prompt_ids[1:], scored[1:], strict=True)]
        return choice


def _usage(prompt_ids: list[int], completions: list[Any]) -> dict[str, int]:
    return {"prompt_tokens": len(prompt_ids),
            "completion_tokens": sum(len(c.token_ids) for c in completions)}


def _events(server: ModelServer, events: list[dict[str, Any]]) -> Response:
    fault = server.faults.pop(0) if server.faults else None

    async def lines() -> AsyncIterator[str]:
        for i, event in enumerate(events):
            if fault is not None and i == 2:
                if fault == "drop":
                    raise RuntimeError("cut off")
                if fault == "short":
                    return
                yield f"data: {fault if isinstance(fault, str) else json.dumps(fault)}\n\n"
            yield f"data: {json.dumps(event)}\n\n"
        if server.requests[-1].get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 3, "completion_tokens": len(events)}
            yield f": a comment\n\ndata: {json.dumps({'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def _answer_fault(fault: Any) -> Response | None:
    if fault == "slow":
        await asyncio.sleep(0.3)
        return None
    if fault == "drip":
        async def bits() -> AsyncIterator[bytes]:
            for _ in range(40):
                await asyncio.sleep(0.05)
                yield b" "
            yield b"{}"
        return StreamingResponse(bits())
    if fault == "html":
        return Response("<html>gateway</html>", 200)
    if fault == "drop":
        async def cut() -> AsyncIterator[bytes]:
            yield b'{"choices": ['
            raise RuntimeError("cut off")
        return StreamingResponse(cut(), headers={"content-length": "500"})
    if isinstance(fault, int):
        return JSONResponse({"error": {"message": f"fault {fault}"}}, fault)
    if isinstance(fault, tuple):
        status, text, headers = fault
        return Response(text, status, headers)
    return JSONResponse(fault)


def _app(server: ModelServer) -> FastAPI:
    app = FastAPI()

    async def handle(request: Request, answer: Any) -> Response:
        body = await request.json()
        server.requests.append(body)
        server.headers.append(dict(request.headers))
        server.under_way += 1
        server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            if server.faults and not (body.get("stream") and server.faults[0] != 503):
                faulty = await _answer_fault(server.faults.pop(0))
                if faulty is not None:
                    return faulty
            await asyncio.sleep(0.002)
            return await answer(body)
        finally:
            server.under_way -= 1

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await handle(request, server.chat)

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        return await handle(request, server.complete)

    return app


@contextmanager
def serve(server: ModelServer) -> Iterator[ModelServer]:
    """Run it on a free port, in a thread."""
    runner = uvicorn.Server(uvicorn.Config(
        _app(server), host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        thread.join(0.01)
    port = runner.servers[0].sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield server
    finally:
        runner.should_exit = True
        thread.join(5)
