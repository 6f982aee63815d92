"""One request for the missing bytes of a file: redirects, range and validators, status codes.

A partial file (`parts.Part`) is continued by a range request. Its ETag decides whether the bytes
that are here and the bytes that come belong to the same content:

- The first server (the hub) announces the content's ETag, SHA-256 and size, often with the redirect
  to a content server: X-Linked-ETag and X-Linked-Size. These count before everything else.
- If the first server announces no ETag, the one of the response with the bytes counts, and If-Range
  lets that server decide whether the range still applies.

Waiting and retrying are in `download`.
"""

import asyncio
import contextlib
import functools
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import httpx2

from core.failures import FailureKind
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.headers import (
    RateLimits,
    content_length,
    content_range,
    entity_tag,
    rate_limits,
    retry_after,
    whole_number,
)
from pipelines.transfers.outcome import FetchFailed
from pipelines.transfers.parts import Part

__all__ = ["Announced", "ContentChanged", "Exchange", "RetryableError"]

_MAX_REDIRECTS = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OK, _PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 200, 206, 416
_RATE_LIMITED = frozenset({429, 503})
_TRANSIENT = frozenset({408, 425})
"""Client errors that another request may not meet; all of 5xx are transient as well."""
_NOT_ABOUT_THE_FILE = frozenset({"RepoNotFound", "RevisionNotFound", "GatedRepo"})
"""The hub's X-Error-Code values with which a 404 does not mean that the file is missing."""


class RetryableError(Exception):
    """A request failed, and another one may succeed."""

    def __init__(
        self,
        text: str,
        *,
        wait_seconds: float | None = None,
        for_all_clients: bool = False,
        wrong_bytes: bool = False,
    ) -> None:
        super().__init__(text)
        self.wait_seconds = wait_seconds
        """Seconds that the server asks to wait."""
        self.for_all_clients = for_all_clients
        """Whether that wait holds for every client of this server."""
        self.wrong_bytes = wrong_bytes
        """Whether the received bytes are no part of the announced content."""


class ContentChanged(Exception):
    """The server has another content now than when the transfer began."""


@dataclass(frozen=True)
class Announced:
    """What the servers announce about a file's content before its bytes."""

    etag: str | None = None
    sha256: str | None = None
    size: int | None = None
    is_local: bool = False
    """Whether a local file has this content, so that no bytes were requested."""

    def with_headers(self, headers: Mapping[str, str], *, from_origin: bool) -> "Announced":
        """Return this with what one more response says; what was announced first stays.

        A plain ETag counts only from the first server and only as a SHA-256: other servers use
        ETags of their own storage.
        """
        own = entity_tag(headers)
        own = own if from_origin and own and _SHA256.fullmatch(own) else None
        etag = entity_tag(headers, "x-linked-etag") or own
        sha256 = etag if etag and _SHA256.fullmatch(etag) else None
        size = whole_number(headers.get("x-linked-size", "")) if self.size is None else self.size
        return replace(self, etag=self.etag or etag, sha256=self.sha256 or sha256, size=size)


class Exchange:
    """The requests for one URL, one after the other, over one set of connections."""

    def __init__(self, url: str, config: FetchConfig, token: str | None) -> None:
        """`token` is sent to the host of `url` and to no other."""
        self._url = httpx2.URL(url)
        self._total_seconds = config.total_seconds
        self._token = token
        timeout = httpx2.Timeout(config.stall_seconds, connect=config.connect_seconds)
        self._client = httpx2.AsyncClient(timeout=timeout, verify=_tls())
        self._received: set[str | None] = set()
        """ETags of the contents of which this exchange received bytes."""
        self.rate_limits = RateLimits()
        """What the first server's last response says about its rate limits."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def run(
        self, part: Part, seconds: float, is_local: Callable[[Announced], bool]
    ) -> Announced:
        """Receive the missing bytes of the part; return what the whole file should be.

        `is_local` says whether a local file has the announced content. Raises RetryableError,
        ContentChanged, or FetchFailed if no other request can help.
        """
        self.rate_limits = RateLimits()
        try:
            async with asyncio.timeout(seconds), contextlib.AsyncExitStack() as stack:
                return await self._follow_redirects(stack, part, is_local)
        except TimeoutError:
            text = f"more than {self._total_seconds:g} s in all"
            message = f"{self._url}: {text}; {part.size} bytes are kept for the next try"
            raise FetchFailed(FailureKind.DOWNLOAD, message) from None
        except httpx2.InvalidURL as error:
            raise FetchFailed(FailureKind.DOWNLOAD, f"{self._url}: {error}") from None
        except httpx2.TransportError as error:
            raise RetryableError(f"{type(error).__name__} {error}".strip()) from None

    async def _follow_redirects(
        self, stack: contextlib.AsyncExitStack, part: Part, is_local: Callable[[Announced], bool]
    ) -> Announced:
        """Follow redirects to the server that has the bytes, and receive them."""
        url, announced = self._url, Announced()
        for _ in range(_MAX_REDIRECTS):
            headers = self._request_headers(url, part, announced)
            stream = self._client.stream("GET", url, headers=headers)
            response = await stack.enter_async_context(stream)
            from_origin = self._is_origin(url)
            if from_origin:
                self.rate_limits = rate_limits(response.headers)
            if response.status_code < 400:
                announced = announced.with_headers(response.headers, from_origin=from_origin)
                self._check_content(part, announced.etag)
                if is_local(announced):
                    return replace(announced, is_local=True)
                if announced.etag and part.size and part.size == announced.size:
                    return announced
            if not response.has_redirect_location:
                return await self._receive(response, part, announced, from_origin)
            url = url.join(response.headers["location"])
        text = f"{self._url}: more than {_MAX_REDIRECTS} redirects"
        raise FetchFailed(FailureKind.DOWNLOAD, text)

    def _request_headers(self, url: httpx2.URL, part: Part, announced: Announced) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "lrm-objaverse"}
        if self._token and self._is_origin(url):
            headers["Authorization"] = f"Bearer {self._token}"
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            # An announced ETag was compared already, and means nothing to a content server.
            if announced.etag is None:
                headers["If-Range"] = f'"{part.etag}"'
        return headers

    def _check_content(self, part: Part, etag: str | None) -> None:
        """Empty a part of another content than the one with this ETag.

        Raises ContentChanged if this exchange itself received bytes of the other content.
        """
        if not part.size or etag is None or etag == part.etag:
            return
        if part.etag in self._received:
            raise ContentChanged(f"changed while it came: ETag {part.etag}, then {etag}")
        part.restart(None)

    async def _receive(
        self, response: httpx2.Response, part: Part, announced: Announced, from_origin: bool
    ) -> Announced:
        """Append the bytes of the last response to the part; return what the file should be.

        Raises RetryableError, ContentChanged, FetchFailed.
        """
        status = response.status_code
        if status not in (_OK, _PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
            raise self._error(response, part, from_origin)
        etag = announced.etag or entity_tag(response.headers)
        self._check_content(part, etag)
        if status == _OK:
            # The server ignores ranges, or If-Range did not match: this is the whole file.
            part.restart(etag)
            total = content_length(response.headers)
        else:
            total = _check_range(response, part)
        size = total if announced.size is None else announced.size
        if status != _RANGE_NOT_SATISFIABLE:
            self._received.add(part.etag)
            await _append(response, part, size)
        return replace(announced, size=size)

    def _error(self, response: httpx2.Response, part: Part, from_origin: bool) -> Exception:
        """Return the exception that a status without bytes stands for."""
        status, headers = response.status_code, response.headers
        text, wait = f"HTTP {status}", retry_after(headers)
        if status in _RATE_LIMITED:
            wait = self.rate_limits.reset_seconds if wait is None else wait
            for_all = from_origin and (status == 429 or wait is not None)
            return RetryableError(text, wait_seconds=wait, for_all_clients=for_all)
        # A content server answers 403 or 404 when its signed address expires.
        if status >= 500 or status in _TRANSIENT or not from_origin:
            return RetryableError(text, wait_seconds=wait)
        reason = headers.get("x-error-code", "")
        if status in (404, 410) and reason not in _NOT_ABOUT_THE_FILE:
            part.restart(None)
            message = f"{self._url}: the server has no such file ({text})"
            return FetchFailed(FailureKind.MISSING, message)
        hint = "; see HF_TOKEN" if status in (401, 403) else ""
        message = f"{self._url}: {text} {reason}".rstrip() + hint
        return FetchFailed(FailureKind.DOWNLOAD, message)

    def _is_origin(self, url: httpx2.URL) -> bool:
        """Return whether a URL is of the first server: same scheme, host and port."""
        return (url.scheme, url.host, url.port) == (
            self._url.scheme,
            self._url.host,
            self._url.port,
        )


def _check_range(response: httpx2.Response, part: Part) -> int | None:
    """Return the file's size from the response to a range request, if it states one.

    Raises RetryableError unless the range begins where the part ends; a range that is not
    satisfiable (416) is fine if the part is the whole file.
    """
    found = content_range(response.headers)
    is_whole = response.status_code == _RANGE_NOT_SATISFIABLE and found.total == part.size
    continues = response.status_code == _PARTIAL_CONTENT and found.start == part.size
    if is_whole or continues:
        return found.total
    part.restart(None)
    text = f"HTTP {response.status_code} with range {response.headers.get('content-range')}"
    raise RetryableError(text, wrong_bytes=True)


async def _append(response: httpx2.Response, part: Part, size: int | None) -> None:
    """Append a response's bytes to the part, which shall have this size then, if it is known.

    Raises RetryableError if there are more bytes, or if the connection ended early; if there is a
    Content-Length, the HTTP client itself notices the latter.
    """
    received = part.size
    with open(part.path, "ab") as file:
        async for data in response.aiter_raw():
            received += len(data)
            file.write(data)
            if size is not None and received > size:
                break
    if size is None:
        return
    if received > size:
        part.restart(None)
        raise RetryableError(f"more than the {size} bytes that were promised", wrong_bytes=True)
    if received < size and content_length(response.headers) is None:
        raise RetryableError(f"the connection ended at byte {received} of {size}")


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
