"""Requests with small answers: the hub's API, with limits on time and size, and retries."""

import asyncio
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from core.failures import FailureKind
from core.remote.waiting import server_of, waiting_for
from core.retry import Backoff
from core.safe_text import printable
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.headers import content_length, rate_limits, retry_after
from pipelines.transfers.http_client import (
    MAX_REDIRECTS,
    is_same_server,
    open_client,
    redirect_target,
    request_headers,
    transport_problem,
)
from pipelines.transfers.outcome import FetchFailed

__all__ = ["Answer", "read_json", "request"]

_SECONDS = 60.0
"""Time limit of a request with its retries, in seconds, if `--fetch.total-seconds` is longer."""
_MAX_BYTES = 16 << 20
"""Maximum size of an answer of the API. A page of 1,000 files has 0.3 MB."""
_TRANSIENT = frozenset({408, 425, 429})
_SHOWN = 60
"""Characters of an unexpected answer that a message shows."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a request: its status, its headers and its bytes."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def next_url(self) -> str | None:
        """The URL of the next page, from the header Link (RFC 8288)."""
        match = re.search(r'<([^<>]*)>\s*;\s*rel="?next"?', self.headers.get("link", ""))
        return match[1] if match else None


class _Retryable(Exception):
    """Raised if a request failed and another one may succeed."""

    def __init__(self, text: str, wait_seconds: float | None = None) -> None:
        super().__init__(text)
        self.wait_seconds = wait_seconds


def request(
    url: str,
    purpose: str,
    config: FetchConfig,
    token: str | None = None,
    *,
    attempts: int | None = None,
    first_bytes: int | None = None,
) -> Answer:
    """Return the answer to a GET request whose status is below 500 and is not a rate limit.

    `purpose` is what a notice of a long wait says. `first_bytes` ends the reading early; otherwise
    a longer answer than the API's fails. Raises FetchFailed (download).
    """
    return asyncio.run(
        _Request(url, purpose, config, token, first_bytes).run(attempts or config.attempts)
    )


def read_json(answer: Answer) -> Any:
    """Return the JSON value in an answer with status 200. Raises FetchFailed (download)."""
    if answer.status != 200:
        raise FetchFailed(FailureKind.DOWNLOAD, f"{answer.url}: {_status_text(answer)}")
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        start = printable(answer.body[:_SHOWN].decode("ascii", "replace"))
        text = f"{answer.url}: the answer is not JSON; it begins with {start!r}"
        raise FetchFailed(FailureKind.DOWNLOAD, text) from None


def _status_text(answer: Answer) -> str:
    reason = answer.headers.get("x-error-code", "")
    hint = "; is HF_TOKEN set to a valid token?" if answer.status in (401, 403) else ""
    return f"HTTP {answer.status} {printable(reason[:_SHOWN])}".rstrip() + hint


class _Request:
    """One request with its retries, in one time limit."""

    def __init__(
        self,
        url: str,
        purpose: str,
        config: FetchConfig,
        token: str | None,
        first_bytes: int | None,
    ) -> None:
        self._url = url
        self._purpose = purpose
        self._config = config
        self._token = token
        self._first_bytes = first_bytes
        self._seconds = min(_SECONDS, config.total_seconds)
        self._backoff = Backoff(
            first_seconds=config.backoff_seconds, max_seconds=config.max_backoff_seconds, jitter=1.0
        )
        self._problem = ""
        """The failure of the last attempt."""

    async def run(self, attempts: int) -> Answer:
        """Return the answer. Raises FetchFailed."""
        deadline = time.monotonic() + self._seconds
        try:
            async with asyncio.timeout(self._seconds), open_client(self._config) as client:
                with waiting_for(server_of(self._url), self._purpose):
                    return await self._retry(client, attempts, deadline)
        except TimeoutError:
            problem = f"; before, {self._problem}" if self._problem else ""
            text = f"no complete answer within {self._seconds:g} s{problem}"
        except _Retryable as error:
            text = f"{error} (attempts: {attempts})" if attempts > 1 else str(error)
        raise FetchFailed(FailureKind.DOWNLOAD, f"{self._url}: {text}")

    async def _retry(self, client: httpx2.AsyncClient, attempts: int, deadline: float) -> Answer:
        for failures in range(1, attempts):
            try:
                return await self._follow_redirects(client)
            except _Retryable as error:
                self._problem = str(error)
                seconds = max(error.wait_seconds or 0, self._backoff.seconds(failures, _RANDOM))
                if time.monotonic() + seconds >= deadline:
                    asked = "; the server asks to wait" if error.wait_seconds else "; the wait is"
                    text = f"{self._url}: {error}{asked} {seconds:.0f} s: try again later"
                    raise FetchFailed(FailureKind.DOWNLOAD, text) from None
            await asyncio.sleep(seconds)
        return await self._follow_redirects(client)

    async def _follow_redirects(self, client: httpx2.AsyncClient) -> Answer:
        url = origin = httpx2.URL(self._url)
        try:
            for _ in range(MAX_REDIRECTS):
                headers = request_headers(self._token if is_same_server(url, origin) else None)
                async with client.stream("GET", url, headers=headers) as response:
                    if response.has_redirect_location:
                        url = redirect_target(url, response)
                        continue
                    return await self._answer(response)
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            text = f"{self._url}: {error}; check HF_ENDPOINT"
            raise FetchFailed(FailureKind.DOWNLOAD, text) from None
        except httpx2.TransportError as error:
            raise _Retryable(transport_problem(error, self._url)) from None
        text = f"{self._url}: more than {MAX_REDIRECTS} redirects"
        raise FetchFailed(FailureKind.DOWNLOAD, text)

    async def _answer(self, response: httpx2.Response) -> Answer:
        status, headers = response.status_code, response.headers
        if status >= 500 or status in _TRANSIENT:
            wait = retry_after(headers)
            raise _Retryable(
                f"HTTP {status}", rate_limits(headers).reset_seconds if wait is None else wait
            )
        limit = self._first_bytes or _MAX_BYTES
        body = bytearray()
        if self._first_bytes is None and (content_length(headers) or 0) > limit:
            raise self._too_large()
        async for data in response.aiter_raw():
            body += data
            if len(body) > limit and self._first_bytes is None:
                raise self._too_large()
            if len(body) >= limit:
                break
        return Answer(url=self._url, status=status, headers=headers, body=bytes(body[:limit]))

    def _too_large(self) -> FetchFailed:
        text = f"the answer has more than {_MAX_BYTES >> 20} MiB: is it another server?"
        return FetchFailed(FailureKind.DOWNLOAD, f"{self._url}: {text}")


_RANDOM = random.Random()  # noqa: S311
"""The times of retries are no part of any result."""
