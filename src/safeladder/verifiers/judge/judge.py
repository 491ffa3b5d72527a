"""A judge: a language model, reached through a chat endpoint, as a verifier.

It is given a :class:`~safeladder.engine.base.ChatSampler` and never builds one; retries, backoff
and the limit of requests under way are the endpoint's (``engine.remote``). What could not be asked
or read is an abstention of that trajectory alone, never a score.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from safeladder.engine.base import ChatSampler, SamplingParams
from safeladder.errors import DataError, SamplingError, StorageError
from safeladder.render.think import split_think
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.base import abstention, describe
from safeladder.verifiers.cases import Case
from safeladder.verifiers.judge.cache import ReplyCache, StoredReply, content_key
from safeladder.verifiers.judge.cases import CASES
from safeladder.verifiers.judge.question import (
    Piece,
    Question,
    Wording,
    ask,
    request_pieces,
)
from safeladder.verifiers.judge.reply import Reply, UnreadableVerdict, read_reply
from safeladder.verifiers.judge.spec import JudgeSpec
from safeladder.verifiers.material import reference_text
from safeladder.verifiers.report import UNREADABLE

_WORD = re.compile(r"\w")


@dataclass
class Spent:
    """What a judge has cost since it was made. All are sums."""

    calls: int = 0
    """Replies that came from the endpoint."""
    cached: int = 0
    """Questions answered from the cache, or by an equal question of the same batch."""
    failed: int = 0
    """Questions that got no reply."""
    unreadable: int = 0
    """Replies, of either kind, that held no verdict."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Latency summed over calls, which run side by side."""


@dataclass(frozen=True)
class _Batch:
    """Equal questions of one batch share one call."""

    under_way: dict[str, asyncio.Task[StoredReply]] = field(default_factory=dict)


class ChatJudge:
    """Implements ``BatchVerifier``.

    Args:
        spec: what is asked and what the answers are worth.
        chat: the model.
        cache: keeps replies; None: in memory.
    """

    def __init__(self, spec: JudgeSpec, chat: ChatSampler, cache: ReplyCache | None = None) -> None:
        self.name = spec.name
        self._spec, self._chat = spec, chat
        self._cache = cache or ReplyCache()
        self._spent = Spent()

    @property
    def spent(self) -> dict[str, float]:
        """Calls, tokens and seconds so far (:class:`Spent`)."""
        return asdict(self._spent)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels it may give."""
        return tuple(self._spec.table)

    @property
    def cases(self) -> tuple[Case, ...]:
        """Gold cases of the shipped prompt and table; none for a prompt or table of one's own."""
        own = self._spec.prompt_file is not None or self._spec.scores is not None
        return () if own else CASES[self._spec.rubric]

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()

    async def verify_many(self, trajectories: Sequence[Trajectory]) -> list[Verdict]:
        """Judge all; as many requests are under way as the endpoint allows.

        Raises:
            ConfigError: the endpoint cannot do what is asked of it (images, sampling settings).
        """
        batch = _Batch()
        # All are waited for, so that no request outlives an error of the set-up.
        found = await asyncio.gather(*(self._judge(one, batch) for one in trajectories),
                                     return_exceptions=True)
        verdicts: list[Verdict] = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            verdicts.append(one)
        return verdicts

    async def _judge(self, trajectory: Trajectory, batch: _Batch) -> Verdict:
        spec, split = self._spec, split_think(trajectory.response)
        if _WORD.search(split.answer) is None:
            return Verdict(self.name, spec.table[spec.empty_class], spec.empty_class,
                           reason="no answer: no judge was asked")
        wording = spec.wording(trajectory, split.answer)
        origin = f"{spec.judge_id}:{wording.digest}"
        both = spec.reasoning == "judge_both" and _WORD.search(split.think or "") is not None
        try:
            answer = await self._ask(wording, "response", split.answer, trajectory, batch)
            if not both:
                return Verdict(self.name, spec.table[answer.label], answer.label,
                               reason=answer.reason, origin=origin)
            thought = await self._ask(wording, "reasoning", split.think or "", trajectory, batch)
        except UnreadableVerdict as error:
            return Verdict(self.name, None, UNREADABLE, error=f"unreadable verdict: {error}",
                           origin=origin)
        except StorageError:
            raise
        except (SamplingError, DataError, OSError) as error:
            return abstention(self.name, describe(error))
        scores = {"of_answer": spec.table[answer.label], "of_thinking": spec.table[thought.label]}
        return Verdict(self.name, scores["of_answer"] * scores["of_thinking"], answer.label,
                       reason=f"{answer.reason} | thinking, {thought.label}: {thought.reason}",
                       parts=scores, origin=origin)

    async def _ask(
        self, wording: Wording, piece: Piece, text: str, trajectory: Trajectory, batch: _Batch,
    ) -> Reply:
        """One label for one text; as many replies as ``attempts`` allows until one can be read."""
        question = self._question(wording, piece, text, trajectory)
        for attempt in range(self._spec.attempts):
            reply = await self._reply(question, self._spec.seed + attempt, batch)
            try:
                if reply.finish_reason == "length":
                    raise UnreadableVerdict("cut off by max_tokens")
                return read_reply(reply.text, wording.classes, question.verdict_id)
            except UnreadableVerdict:
                self._spent.unreadable += 1
                if attempt == self._spec.attempts - 1:
                    raise
        raise AssertionError("attempts is at least 1")

    def _question(
        self, wording: Wording, piece: Piece, text: str, trajectory: Trajectory,
    ) -> Question:
        """
        Raises:
            DataError: too long to be shown whole, or no reference.
        """
        shown = self._spec.rubric_for(trajectory.prompt.task)
        material = request_pieces(trajectory) if shown.shows_request else {}
        if shown.shows_reference:
            material["reference"] = reference_text(trajectory.prompt)
        media = trajectory.prompt.media if shown.shows_request else ()
        for name, value in {**material, piece: text}.items():
            if len(value) > self._spec.max_characters:
                raise DataError(f"the {name} has {len(value)} characters, more than max_characters "
                                f"({self._spec.max_characters})")
        return ask(wording, piece, text.strip(), material, media)

    async def _reply(self, question: Question, seed: int, batch: _Batch) -> StoredReply:
        """From the cache, from an equal question under way, or from the endpoint."""
        params = SamplingParams(max_tokens=self._spec.max_tokens,
                                temperature=self._spec.temperature, seed=seed)
        key = content_key(self._spec.judge_id, self._spec.endpoint.get("model"),
                          self._spec.endpoint.get("extra_body"), asdict(params),
                          question.content())
        kept = self._cache.get(key)
        if kept is not None:
            self._spent.cached += 1
            return kept
        task = batch.under_way.get(key)
        if task is None:
            task = batch.under_way[key] = asyncio.ensure_future(self._call(question, params, key))
        else:
            self._spent.cached += 1
        return await task

    async def _call(self, question: Question, params: SamplingParams, key: str) -> StoredReply:
        started = time.perf_counter()
        try:
            (reply,) = await self._chat.chat(question.messages, params, media=question.media)
        except SamplingError:
            self._spent.failed += 1
            raise
        stored = StoredReply(reply.text, reply.finish_reason, reply.prompt_tokens,
                             reply.completion_tokens, time.perf_counter() - started)
        self._spent.calls += 1
        self._spent.prompt_tokens += reply.prompt_tokens or 0
        self._spent.completion_tokens += reply.completion_tokens or 0
        self._spent.seconds += stored.seconds
        self._cache.put(key, self._spec.judge_id, stored)
        return stored
