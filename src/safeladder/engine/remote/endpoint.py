"""Where an endpoint is, what it can do, and how patiently it is asked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from safeladder.config import StrictModel
from safeladder.engine.base import SamplingParams
from safeladder.errors import ConfigError


class Endpoint(StrictModel):
    """One model behind an OpenAI-compatible API."""

    base_url: str = Field(
        pattern=r"^https?://", description="up to and with the version: http://host:8000/v1")
    model: str = Field(description="the name the server knows it by")
    api_key_env: str | None = Field(
        None, description="name of the environment variable that holds the key; never the key")
    dialect: Literal["openai", "vllm"] = Field(
        "openai", description="vllm: tokens in, tokens and log-probabilities out (>= 0.10.2)")
    takes_images: bool = False
    logprobs_mode: Literal["raw", "processed"] = Field(
        "raw", description="vllm's --logprobs-mode: before or after temperature, top-p and top-k")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="OpenAI's reasoning models want the second")
    extra_body: dict[str, Any] = Field(
        {}, description="further fields of every request; null removes one")
    request_timeout: float = Field(120.0, gt=0, description="seconds per attempt")
    total_timeout: float = Field(600.0, gt=0, description="seconds over all attempts of a call")
    max_retries: int = Field(5, ge=0, description="on 408, 425, 429, 5xx, timeouts, lost replies")
    backoff: float = Field(0.5, ge=0, description="seconds before the first retry; then doubled")
    max_backoff: float = Field(30.0, ge=0, description="seconds")
    max_concurrency: int = Field(32, ge=1, description="requests under way at once")
    seed: int = Field(0, description="of the jitter in the waits")

    def headers(self) -> dict[str, str]:
        """The authorisation header, from the environment.

        Raises:
            ConfigError: the variable is not set.
        """
        if self.api_key_env is None:
            return {}
        key = os.environ.get(self.api_key_env)
        if not key:
            raise ConfigError(f"the environment variable {self.api_key_env} is not set: it must "
                              f"hold the key for {self.model}")
        return {"Authorization": f"Bearer {key}"}

    def finish(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request body with ``extra_body`` applied."""
        merged = {"model": self.model, **body, **self.extra_body}
        return {name: value for name, value in merged.items() if value is not None}

    def check_logprobs(self, params: SamplingParams) -> None:
        """Refuse settings under which the server's figures are not ``sampler_logprobs``.

        Those are log-probabilities after temperature and before top-p and top-k.

        Raises:
            ConfigError: says which of the two to change.
        """
        if self.logprobs_mode == "raw" and params.temperature not in (0.0, 1.0):
            raise ConfigError(
                f"temperature {params.temperature}: the server's raw log-probabilities are those "
                "of temperature 1; start it with --logprobs-mode processed_logprobs and set "
                "logprobs_mode: processed, or sample at temperature 1")
        if self.logprobs_mode == "processed" and (params.top_p < 1 or params.top_k):
            raise ConfigError(
                "top_p/top_k: the server's processed log-probabilities are truncated by them; "
                "leave both off, or set logprobs_mode: raw on both sides")


@dataclass
class Usage:
    """What was spent so far."""

    calls: int = 0
    retries: int = 0
    failures: int = 0
    """Calls that ended in an error after all retries."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = field(default=0.0)
    """Summed over calls, waits included; calls run side by side."""
