"""HTTP with patience: retries, backoff, limits, and one clear line when it was in vain."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from safeladder.engine.remote.endpoint import Endpoint, Usage
from safeladder.errors import MissingExtra, SamplingError

if TYPE_CHECKING:
    import httpx

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
DETAIL_CHARACTERS = 200
Result = TypeVar("Result")


class _Retry(Exception):
    """This attempt failed in a way that may pass."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Transport:
    """POSTs JSON to one endpoint. Usable from several event loops, one after the other."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._headers = endpoint.headers()
        self._random = random.Random(endpoint.seed)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(endpoint.max_concurrency)
        self.usage = Usage()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON answer.

        Raises:
            SamplingError: no usable answer; names path, status and the server's reason.
        """
        async def attempt() -> Any:
            async with asyncio.timeout(self._endpoint.request_timeout):
                response = await self._open().post(self._url(path), json=body)
            self._check(response)
            try:
                return response.json()
            except ValueError:
                raise _Retry("the answer is not JSON") from None

        async with self._call(path):
            return await self._patiently(path, attempt)

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield the JSON events of a server-sent stream; only its opening is retried.

        Raises:
            SamplingError: as :meth:`post`, and when the stream breaks off.
        """
        import httpx

        async with self._call(path):
            response = await self._patiently(path, lambda: self._open_stream(path, body))
            try:
                async for line in response.aiter_lines():
                    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                    if data == "[DONE]":
                        return
                    if data:
                        yield _event(data, self._where(path))
            except httpx.HTTPError as error:
                raise SamplingError(f"{self._where(path)}: the stream broke off "
                                    f"({_name(error)})") from error
            finally:
                await response.aclose()
            raise SamplingError(f"{self._where(path)}: the stream ended without [DONE]")

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    def _open(self) -> httpx.AsyncClient:
        """The client of the running loop: connections and locks cannot move to another one."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            try:
                import httpx
            except ImportError as error:
                raise MissingExtra("httpx", "remote", "a remote endpoint") from error
            endpoint = self._endpoint
            self._client = httpx.AsyncClient(
                headers=self._headers,
                timeout=httpx.Timeout(endpoint.request_timeout, pool=None),
                limits=httpx.Limits(max_connections=endpoint.max_concurrency))
            self._slots = asyncio.Semaphore(endpoint.max_concurrency)
            self._loop = loop
        return self._client

    @asynccontextmanager
    async def _call(self, path: str) -> AsyncIterator[None]:
        """Count a call, and wait for a free place; the wait is not part of its time limit."""
        self._open()
        self.usage.calls += 1
        start = time.perf_counter()
        try:
            async with self._slots:
                yield
        except SamplingError:
            self.usage.failures += 1
            raise
        finally:
            self.usage.seconds += time.perf_counter() - start

    async def _patiently(self, path: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Run ``attempt`` until it works, all retries are used up, or time is."""
        import httpx

        endpoint, reason, tries = self._endpoint, "no answer yet", 0
        try:
            async with asyncio.timeout(endpoint.total_timeout):
                while True:
                    tries += 1
                    try:
                        return await attempt()
                    except _Retry as error:
                        reason, wait = str(error), error.after
                    except (TimeoutError, httpx.TimeoutException):
                        reason, wait = f"no answer within {endpoint.request_timeout:g} s", 0.0
                    except httpx.HTTPError as error:
                        reason, wait = f"connection failed ({_name(error)})", 0.0
                    if tries > endpoint.max_retries:
                        break
                    self.usage.retries += 1
                    await asyncio.sleep(backoff(endpoint, tries, self._random, wait))
        except TimeoutError:
            raise SamplingError(f"{self._where(path)}: gave up after {endpoint.total_timeout:g} s "
                                f"and {tries} attempts; the last: {reason}") from None
        raise SamplingError(f"{self._where(path)}: {reason}, {tries} attempts")

    async def _open_stream(self, path: str, body: dict[str, Any]) -> httpx.Response:
        client = self._open()
        request = client.build_request("POST", self._url(path), json=body)
        response = await client.send(request, stream=True)
        if response.status_code != 200:
            await response.aread()
            await response.aclose()
        self._check(response)
        return response

    def _check(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        reason = f"{response.status_code} {response.reason_phrase}: {self._detail(response)}"
        if response.status_code in RETRIED:
            raise _Retry(reason, _seconds(response.headers.get("retry-after", "")))
        raise SamplingError(f"{self._where(response.request.url.path, full=True)}: {reason}")

    def _detail(self, response: httpx.Response) -> str:
        """The server's reason in one line; a key that it echoes is blotted out."""
        try:
            told = json.loads(response.text)
            error = told.get("error", told.get("detail", told))
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            text = response.text
        for value in self._headers.values():
            text = text.replace(value.removeprefix("Bearer "), "***")
        return " ".join(text.split())[:DETAIL_CHARACTERS]

    def _url(self, path: str) -> str:
        return self._endpoint.base_url.rstrip("/") + path

    def _where(self, path: str, full: bool = False) -> str:
        # the host stays out: an address may hold a user's name and password
        start = "" if full else urlsplit(self._endpoint.base_url).path.rstrip("/")
        return f"POST {start}{path}"


def backoff(endpoint: Endpoint, tries: int, jitter: random.Random, after: float = 0.0) -> float:
    """Seconds to wait after the ``tries``-th attempt: doubling, capped, at least ``after``.

    Between half and the whole of it, at random, so that many clients do not come back at once.
    ``after`` is the server's own wish (Retry-After); it is capped too.
    """
    wait = min(endpoint.max_backoff, endpoint.backoff * 2.0 ** (tries - 1))
    return max(wait * jitter.uniform(0.5, 1.0), min(after, endpoint.max_backoff))


def _event(data: str, where: str) -> Any:
    try:
        event = json.loads(data)
    except ValueError:
        raise SamplingError(f"{where}: an event of the stream is not JSON") from None
    if isinstance(event, dict) and "error" in event:
        text = " ".join(str(event["error"]).split())[:DETAIL_CHARACTERS]
        raise SamplingError(f"{where}: the server broke off: {text}")
    return event


def _seconds(header: str) -> float:
    try:
        return max(0.0, float(header))
    except ValueError:
        return 0.0  # a date: the usual backoff applies


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
