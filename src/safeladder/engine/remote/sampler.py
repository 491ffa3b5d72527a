"""Sampling from an OpenAI-compatible endpoint: judges, teachers, baselines, model servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from safeladder.engine.base import Capability, ChatReply, SamplingParams
from safeladder.engine.remote.endpoint import Endpoint, Usage
from safeladder.engine.remote.transport import Transport
from safeladder.engine.remote.wire import (
    ChatAnswer,
    TextAnswer,
    TextChoice,
    chat_messages,
    finite,
    parse,
)
from safeladder.errors import ConfigError, SamplingError
from safeladder.render.think import CLOSE, OPEN
from safeladder.types import Completion, FloatArray, Media, Message

CHAT, TEXT = "/chat/completions", "/completions"


class RemoteSampler:
    """Implements ``ChatSampler``; with ``dialect: vllm`` also ``Sampler`` and ``StreamingSampler``.

    Every sampling parameter is sent, so that no default of the server (its generation config)
    takes part. Seeds are sent; whether equal seeds give equal tokens depends on the server's
    batching, so ``SEEDED`` is not declared. The weights are the server's: ``policy_version`` is
    what the caller says it is, and nothing here ever goes stale.
    """

    def __init__(self, endpoint: Endpoint, policy_version: int = 0) -> None:
        self._endpoint = endpoint
        self._policy_version = policy_version
        self._transport = Transport(endpoint)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Log-probabilities from vLLM; images where the endpoint is declared to take them."""
        declared = set()
        if self._endpoint.dialect == "vllm":
            declared.add(Capability.LOGPROBS)
        if self._endpoint.takes_images:
            declared.add(Capability.MEDIA)
        return frozenset(declared)

    @property
    def policy_version(self) -> int:
        """As given."""
        return self._policy_version

    @property
    def usage(self) -> Usage:
        """What was spent so far."""
        return self._transport.usage

    async def __aenter__(self) -> RemoteSampler:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; the next call opens new ones."""
        await self._transport.aclose()

    async def chat(
        self, messages: Sequence[Message], params: SamplingParams, n: int = 1,
        media: Sequence[Media] = (),
    ) -> list[ChatReply]:
        """Return n replies. Reasoning that the server took out is put back in think tags.

        Raises:
            SamplingError: no usable answer.
            ConfigError: the endpoint cannot sample as ``params`` say, or takes no images.
            DataError: image parts and images differ in number.
        """
        body = self._chat_body(messages, params, media, n=n)
        answer = parse(ChatAnswer, await self._transport.post(CHAT, body), CHAT)
        if len(answer.choices) != n:
            raise SamplingError(f"{CHAT}: asked for {n} replies, got {len(answer.choices)}: this "
                                "endpoint ignores n, so ask for one at a time")
        prompt, completion = self._count(answer)
        replies = []
        for choice in sorted(answer.choices, key=lambda choice: choice.index):
            text = choice.message.text()
            if text is None:
                raise SamplingError(f"{CHAT}: a reply without text "
                                    f"(finish_reason {choice.finish_reason})")
            replies.append(ChatReply(text, choice.finish_reason or "unknown", prompt,
                                     completion if n == 1 else None))
        return replies

    async def stream_chat(
        self, messages: Sequence[Message], params: SamplingParams, media: Sequence[Media] = (),
    ) -> AsyncIterator[str]:
        """Yield the text of one reply as it is written (think tags as in :meth:`chat`).

        Raises:
            SamplingError, ConfigError, DataError: as :meth:`chat`.
        """
        body = self._chat_body(messages, params, media, **_STREAMED)
        thinking = False
        async for event in self._transport.stream(CHAT, body):
            answer = parse(ChatAnswer, event, CHAT)
            self._count(answer)
            for choice in answer.choices:
                delta = choice.delta
                if delta.thought:
                    yield delta.thought if thinking else f"{OPEN}\n{delta.thought}"
                    thinking = True
                if delta.said:
                    yield f"\n{CLOSE}\n\n{delta.said}" if thinking else delta.said
                    thinking = False

    async def sample(
        self, prompt_ids: Sequence[int], params: SamplingParams, n: int = 1,
        media: Sequence[Media] = (),
    ) -> list[Completion]:
        """Return n completions of one prompt; the server shares its encoding among them.

        Raises:
            SamplingError: no usable answer, or one without token ids or log-probabilities.
            ConfigError: the dialect has no token ids, there are images, or the log-probabilities
                would not be those of :class:`~safeladder.types.Completion`.
        """
        # greedy rows are all the same, and vLLM refuses n > 1 for them
        rows = 1 if params.temperature == 0 else n
        body = self._text_body(prompt_ids, params, media, n=rows)
        answer = parse(TextAnswer, await self._transport.post(TEXT, body), TEXT)
        self._count(answer)
        if len(answer.choices) != rows:
            raise SamplingError(f"{TEXT}: asked for {rows} choices, got {len(answer.choices)}")
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        return [self._completion(choice) for choice in choices] * (n // rows)

    async def logprobs(
        self, token_ids: Sequence[int], media: Sequence[Media] = (), temperature: float = 1.0,
    ) -> FloatArray:
        """Return (T,) log p(token_t | tokens before t); position 0 is 0.

        Raises:
            SamplingError: no usable answer.
            ConfigError: as :meth:`sample`, or ``temperature`` is not 1 (a server scores prompts
                by their plain logits).
        """
        if temperature != 1.0:
            raise ConfigError(f"temperature {temperature}: a server scores given tokens at "
                              "temperature 1 only")
        params = SamplingParams(max_tokens=1)
        body = self._text_body(token_ids, params, media, prompt_logprobs=0)
        answer = parse(TextAnswer, await self._transport.post(TEXT, body), TEXT)
        self._count(answer)
        scored = answer.choices[0].prompt_logprobs if answer.choices else None
        if scored is None or len(scored) != len(token_ids):
            raise SamplingError(f"{TEXT}: no prompt_logprobs for {len(token_ids)} tokens")
        found = [(places or {}).get(token_id)
                 for token_id, places in zip(token_ids[1:], scored[1:], strict=True)]
        values = finite([entry.logprob if entry else None for entry in found], TEXT)
        return np.concatenate([np.zeros(1, np.float32), values])

    async def stream(
        self, prompt_ids: Sequence[int], params: SamplingParams, media: Sequence[Media] = (),
    ) -> AsyncIterator[int]:
        """Yield token ids as they are sampled, the stop token last.

        Raises:
            SamplingError, ConfigError: as :meth:`sample`.
        """
        body = self._text_body(prompt_ids, params, media, **_STREAMED)
        async for event in self._transport.stream(TEXT, body):
            answer = parse(TextAnswer, event, TEXT)
            self._count(answer)
            for choice in answer.choices:
                ids = choice.ids()
                if ids is None and choice.finish_reason is None:
                    raise SamplingError(_NO_IDS)
                for token_id in ids or ():
                    yield token_id

    def _chat_body(
        self, messages: Sequence[Message], params: SamplingParams, media: Sequence[Media],
        **more: Any,
    ) -> dict[str, Any]:
        if media and not self._endpoint.takes_images:
            raise ConfigError(f"{self._endpoint.model} is not declared to take images: set "
                              "takes_images if it does")
        body = self._common(params) | {
            "messages": chat_messages(messages, media),
            self._endpoint.max_tokens_field: params.max_tokens}
        return self._endpoint.finish(body | more)

    def _text_body(
        self, prompt_ids: Sequence[int], params: SamplingParams, media: Sequence[Media],
        **more: Any,
    ) -> dict[str, Any]:
        if self._endpoint.dialect != "vllm":
            raise ConfigError(f"{self._endpoint.model}: only 'dialect: vllm' takes and returns "
                              "token ids; use chat")
        if media:
            raise ConfigError("a completions endpoint takes no images: use chat")
        self._endpoint.check_logprobs(params)
        body = self._common(params) | {
            "prompt": list(prompt_ids), "max_tokens": params.max_tokens,
            # stops are those of params and no others: not the server's own end token either
            "stop_token_ids": list(params.stop_token_ids), "ignore_eos": True,
            "logprobs": 1, "return_token_ids": True, "return_tokens_as_token_ids": True,
            "skip_special_tokens": False}
        return self._endpoint.finish(body | more)

    def _common(self, params: SamplingParams) -> dict[str, Any]:
        body: dict[str, Any] = {"temperature": params.temperature, "top_p": params.top_p,
                                "seed": params.seed}
        if self._endpoint.dialect == "vllm":
            return body | {"top_k": params.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0,
                           "min_tokens": params.min_tokens}
        if params.top_k or params.min_tokens:
            raise ConfigError("top_k and min_tokens need 'dialect: vllm'")
        return body

    def _completion(self, choice: TextChoice) -> Completion:
        ids = choice.ids()
        if ids is None or choice.logprobs is None:
            raise SamplingError(_NO_IDS)
        logprobs = finite(choice.logprobs.token_logprobs, TEXT)
        if len(logprobs) != len(ids):
            raise SamplingError(f"{TEXT}: {len(ids)} tokens, {len(logprobs)} log-probabilities")
        if choice.finish_reason not in ("stop", "length"):
            raise SamplingError(f"{TEXT}: the server ended with {choice.finish_reason!r}")
        reason: Any = choice.finish_reason
        return Completion(tuple(ids), logprobs, reason, self._policy_version)

    def _count(self, answer: ChatAnswer | TextAnswer) -> tuple[int | None, int | None]:
        if answer.usage is None:
            return None, None
        spent = answer.usage
        self.usage.prompt_tokens += spent.prompt_tokens
        self.usage.completion_tokens += spent.completion_tokens
        return spent.prompt_tokens, spent.completion_tokens


_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_NO_IDS = (f"{TEXT}: the server returns no token ids or log-probabilities: it must be vLLM 0.10.2 "
           "or newer")
