"""Distil chains of thought from a teacher behind any OpenAI-compatible endpoint.

Every response is one line of the output file as soon as it is there, in the schema of
:mod:`safeladder.data.responses`; beside the prompt's columns a row has ``teacher`` (the model's
name), ``request_hash`` (of all that was asked, settings included), ``prompt_hash`` (of messages
and images alone), ``number`` (which of the n responses), ``seed`` and ``finish_reason``. What the
file holds is not asked for again, so the same command goes on where a killed one stopped. At the
end the rows are put in the order of the prompts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from pydantic import Field

from safeladder.config import StrictModel, read_yaml, validate
from safeladder.data.responses import LabelledResponse, json_line, response_cells
from safeladder.data.sources import build_source
from safeladder.engine.base import ChatReply, SamplingParams
from safeladder.engine.remote import Endpoint, RemoteSampler, Usage
from safeladder.errors import ConfigError, DataError, SamplingError
from safeladder.files import atomic_file, is_storage_failure, storage_error, write_text
from safeladder.types import Message, Prompt

PROVENANCE = frozenset({
    "teacher", "request_hash", "prompt_hash", "number", "seed", "finish_reason"})
"""Columns that a row has beside the prompt's own."""
IN_A_ROW = 16
"""So many failures without a success between them, and nothing more is asked: it is down."""


class DistillSettings(StrictModel):
    """How the teacher is asked."""

    n: int = Field(1, ge=1, description="responses per prompt; the k-th has the seed seed + k")
    temperature: float = Field(1.0, ge=0)
    max_tokens: int = Field(4096, ge=1, description="tokens of one response")
    seed: int = 0
    system_prompt: str | None = Field(
        None, description="for prompts that have none; sent, and not part of the rows written")

    def params(self, number: int) -> SamplingParams:
        """How the response of this number is sampled."""
        return SamplingParams(max_tokens=self.max_tokens, temperature=self.temperature,
                              seed=self.seed + number)


class Failure(NamedTuple):
    """A response that could not be had."""

    id: str
    number: int
    error: str


@dataclass
class Distilled:
    """What one call did."""

    failure_file: Path
    written: int = 0
    kept: int = 0
    """Asked-for responses that the file held already."""
    other: int = 0
    """Rows of the file that belong to other requests."""
    repeated: int = 0
    """Prompts that come more than once: an equal request is asked once."""
    not_asked: int = 0
    """Left out after :data:`IN_A_ROW` failures."""
    failures: list[Failure] = field(default_factory=list)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    """Of the asked-for responses, those there already included."""
    usage: Usage = field(default_factory=Usage)

    @property
    def reasons(self) -> dict[str, int]:
        """Why responses could not be had -> how many."""
        return dict(Counter(failure.error for failure in self.failures).most_common(8))


@dataclass(frozen=True)
class Request:
    """One response to be asked for."""

    prompt: Prompt
    number: int
    params: SamplingParams
    messages: tuple[Message, ...]
    """As sent: with the system prompt."""
    key: str
    """Of all that decides the response, but for the server's mood."""


def open_teacher(text: str, model: str | None) -> Endpoint:
    """The endpoint of a YAML file, or of a base URL and a model's name.

    Raises:
        ConfigError: it is neither, or a field is wrong.
    """
    if text.startswith(("http://", "https://")):
        if not model:
            raise ConfigError(f"--teacher {text}: name the model as well (--model)")
        return validate(Endpoint, {"base_url": text, "model": model}, "teacher")
    if model is not None:
        raise ConfigError(f"--model goes with a base URL; {text} says the model itself")
    return validate(Endpoint, read_yaml(Path(text)), text)


def load_questions(path: Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of a file, or of the source that a YAML file describes; answers are dropped.

    Raises:
        DataError: a row cannot be used, or went through a chat template already.
    """
    if path.suffix in (".yaml", ".yml"):
        prompts = build_source(read_yaml(path))
    else:
        kind = "parquet" if path.suffix == ".parquet" else "jsonl"
        prompts = build_source({"type": kind, "path": str(path), "reference": "optional",
                                "columns": {"drop": ["response", "label", "group"]}})
    questions = []
    for prompt in prompts[:limit]:
        if prompt.rendered is not None:
            raise DataError(f"prompt {prompt.id}: it went through a chat template already, and an "
                            "endpoint takes messages")
        taken = sorted(PROVENANCE & prompt.meta.keys())
        if taken:
            raise DataError(f"prompt {prompt.id}: the column {taken[0]!r} is one that this command "
                            "writes; rename it, or drop it (columns.drop)")
        answered = prompt.messages[-1].role == "assistant"
        questions.append(replace(prompt, messages=prompt.messages[:-1]) if answered else prompt)
    return questions


async def distill(
    prompts: Sequence[Prompt], endpoint: Endpoint, settings: DistillSettings, out: Path,
    show_progress: bool = False,
) -> Distilled:
    """Ask for every response that ``out`` does not hold, and append each as it comes.

    Failures are counted and listed in ``<out>.failures.jsonl``, which a later call writes anew.

    Raises:
        ConfigError: the endpoint takes no images, or n responses at temperature 0 are asked for.
        DataError: ``out`` holds lines that are no rows of this command.
        StorageError: it cannot be written.
    """
    if settings.n > 1 and settings.temperature == 0:
        raise ConfigError("n responses at temperature 0 would all be the same: set a temperature")
    if not endpoint.takes_images and any(prompt.media for prompt in prompts):
        raise ConfigError(f"{endpoint.model} is not declared to take images, and there are prompts "
                          "with images: set takes_images if it does")
    requests = _unique(_request(prompt, number, endpoint, settings)
                       for prompt in prompts for number in range(settings.n))
    result = Distilled(out.with_name(f"{out.name}.failures.jsonl"))
    done = _rows_there(out)
    missing = [request for request in requests if request.key not in done]
    asked = {request.key for request in requests}
    result.repeated = len(prompts) - len(requests) // settings.n
    result.kept = len(requests) - len(missing)
    result.other = len(done.keys() - asked)
    result.finish_reasons.update(reason for key, reason in done.items() if key in asked)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            async with RemoteSampler(endpoint) as teacher:
                asker = _Asker(teacher, endpoint, out, file, result, len(missing), show_progress)
                await asker.ask_all(missing)
                result.usage = teacher.usage
    except OSError as error:
        if is_storage_failure(error):
            raise storage_error(out, error) from error
        raise
    _put_in_order(out, requests)
    lines = [json.dumps(failure._asdict(), ensure_ascii=False) for failure in result.failures]
    write_text(result.failure_file, "".join(f"{line}\n" for line in lines))
    return result


def _request(
    prompt: Prompt, number: int, endpoint: Endpoint, settings: DistillSettings,
) -> Request:
    messages = prompt.messages
    if settings.system_prompt and all(message.role != "system" for message in messages):
        messages = (Message("system", settings.system_prompt), *messages)
    params = settings.params(number)
    asked = [prompt_hash(replace(prompt, messages=messages)), endpoint.model, endpoint.extra_body,
             params.temperature, params.max_tokens, params.seed]
    return Request(prompt, number, params, messages, _hash(asked))


def prompt_hash(prompt: Prompt) -> str:
    """Hash of messages and images."""
    return _hash([[message.to_dict() for message in prompt.messages],
                  [media.digest for media in prompt.media]])


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unique(requests: Iterable[Request]) -> list[Request]:
    """A prompt that comes twice is asked once, at its first place."""
    found: dict[str, Request] = {}
    for request in requests:
        found.setdefault(request.key, request)
    return list(found.values())


def _rows_there(out: Path) -> Mapping[str, str]:
    """Request -> finish reason of the rows in the file; what a killed writer left half is cut off.

    Raises:
        DataError: a line is no row of this command.
    """
    if not out.exists():
        return {}
    content = out.read_bytes()
    whole = content[:content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with atomic_file(out) as partial:
            partial.write_bytes(whole)
    done = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            done[str(row["request_hash"])] = str(row["finish_reason"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{out}:{number}: not written by `safeladder data distill`; choose "
                            "another --out") from None
    return done


def _put_in_order(out: Path, requests: Sequence[Request]) -> None:
    """Rows in the order of the prompts, not in that of the replies; those of others come first."""
    places = {request.key: i for i, request in enumerate(requests)}
    # split at the end of rows alone: a reply may hold other line separators as they are
    lines = [f"{line}\n" for line in out.read_text(encoding="utf-8").split("\n") if line]
    ordered = sorted(lines, key=lambda line: places.get(json.loads(line)["request_hash"], -1))
    if ordered != lines:
        write_text(out, "".join(ordered))


@dataclass
class _Asker:
    """Keeps as many requests under way as the endpoint allows, and writes what comes back."""

    teacher: RemoteSampler
    endpoint: Endpoint
    out: Path
    file: TextIO
    result: Distilled
    total: int
    show_progress: bool
    in_a_row: int = 0

    async def ask_all(self, requests: Sequence[Request]) -> None:
        """Until there are no more, or too many failed in a row."""
        queue = iter(requests)
        workers = [asyncio.create_task(self._work(queue))
                   for _ in range(min(self.endpoint.max_concurrency, len(requests)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if self.show_progress:
                print()
        self.result.not_asked = sum(1 for _ in queue)

    async def _work(self, queue: Iterable[Request]) -> None:
        for request in queue:
            await self._one(request)
            if self.in_a_row >= IN_A_ROW:
                return

    async def _one(self, request: Request) -> None:
        prompt = request.prompt
        try:
            (reply,) = await self.teacher.chat(request.messages, request.params, media=prompt.media)
            reply.text.encode()
        except (SamplingError, UnicodeEncodeError) as error:
            self.in_a_row += 1
            self.result.failures.append(Failure(prompt.id, request.number, str(error)))
            return
        self.in_a_row = 0
        self._write(request, reply)
        if self.show_progress and self.result.written % 20 == 0:
            print(f"\r{self.result.written} of {self.total}", end="", flush=True)

    def _write(self, request: Request, reply: ChatReply) -> None:
        """One line, on the disk before the next is asked for."""
        prompt = request.prompt
        meta = {**prompt.meta, "teacher": self.endpoint.model, "request_hash": request.key,
                "prompt_hash": prompt_hash(prompt), "number": request.number,
                "seed": request.params.seed, "finish_reason": reply.finish_reason}
        group = str(prompt.meta.get("group") or meta["prompt_hash"])
        row = LabelledResponse(replace(prompt, id=f"{prompt.id}/{request.number}", meta=meta),
                               reply.text, None, group)
        cells = {**response_cells(row, self.out), "group": group}
        self.file.write(json_line(cells))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.result.written += 1
        self.result.finish_reasons[reply.finish_reason] += 1
