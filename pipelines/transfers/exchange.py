"""One request for the missing bytes of a file: redirects, ranges, validators, status codes.

A range request continues a partial file (`partial_file.PartialFile`). ETags decide whether the
bytes on disk and the bytes of the response belong to the same content:

- The first server (the hub) announces the content's ETag, SHA-256 and size, often together with the
  redirect to a content server: X-Linked-ETag and X-Linked-Size. After the first ETag is accepted,
  ETags of redirect targets are ignored.
- If the first server announces no ETag, the ETag of the response with the bytes is used, and
  If-Range lets that server decide whether the range still applies.

`download` waits and retries.
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
from pipelines.transfers.partial_file import PartialFile

__all__ = [
    "AnnouncedContent",
    "ContentChanged",
    "Exchange",
    "RetryableError",
    "time_limit_message",
]

_MAX_REDIRECTS = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OK, _PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 200, 206, 416
_RATE_LIMITED = frozenset({429, 503})
_TRANSIENT = frozenset({408, 425})
"""Client errors after which a retry may succeed; all 5xx statuses are transient, too."""
_NOT_ABOUT_THE_FILE = frozenset({"RepoNotFound", "RevisionNotFound", "GatedRepo"})
"""Values of the hub's X-Error-Code for which a 404 does not mean that the file is missing."""


class RetryableError(Exception):
    """Raised if a request failed and a retry may succeed."""

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
        """Wait that the server asked for, in seconds."""
        self.for_all_clients = for_all_clients
        """Whether every client of this server must wait."""
        self.wrong_bytes = wrong_bytes
        """Whether the received bytes do not belong to the announced content."""


class ContentChanged(Exception):
    """Raised if the content on the server changed during the download."""


@dataclass(frozen=True)
class AnnouncedContent:
    """A file's ETag, SHA-256 and size, as the servers announce them before the bytes."""

    etag: str | None = None
    sha256: str | None = None
    size: int | None = None
    is_local: bool = False
    """Whether a local file has this content, so that no bytes are requested."""

    def with_headers(self, headers: Mapping[str, str], *, from_origin: bool) -> "AnnouncedContent":
        """Return a copy with the values of one more response; values that are set stay.

        A plain ETag is used only if it comes from the first server and is a SHA-256: other servers
        send ETags of their own storage.
        """
        plain = entity_tag(headers)
        plain = plain if from_origin and plain and _SHA256.fullmatch(plain) else None
        etag = entity_tag(headers, "x-linked-etag") or plain
        sha256 = etag if etag and _SHA256.fullmatch(etag) else None
        size = whole_number(headers.get("x-linked-size", "")) if self.size is None else self.size
        return replace(self, etag=self.etag or etag, sha256=self.sha256 or sha256, size=size)


class Exchange:
    """The requests for one URL, one at a time, over shared connections."""

    def __init__(self, url: str, config: FetchConfig, token: str | None) -> None:
        """Create the HTTP client; `token` is sent only to the host of `url`."""
        self._url = httpx2.URL(url)
        self._total_seconds = config.total_seconds
        self._token = token
        timeout = httpx2.Timeout(config.stall_seconds, connect=config.connect_seconds)
        self._client = httpx2.AsyncClient(timeout=timeout, verify=_tls())
        self._received: set[str | None] = set()
        """ETags of the contents from which this exchange received bytes."""
        self.rate_limits = RateLimits()
        """Rate limits in the last response of the first server."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def run(
        self, partial: PartialFile, seconds: float, is_local: Callable[[AnnouncedContent], bool]
    ) -> AnnouncedContent:
        """Receive the missing bytes of a partial file; return what the complete file should be.

        `is_local` returns whether a local file has the announced content. Raises RetryableError,
        ContentChanged, or FetchFailed if a retry cannot help.
        """
        self.rate_limits = RateLimits()
        try:
            async with asyncio.timeout(seconds), contextlib.AsyncExitStack() as stack:
                return await self._follow_redirects(stack, partial, is_local)
        except TimeoutError:
            message = time_limit_message(str(self._url), self._total_seconds, partial.size)
            raise FetchFailed(FailureKind.DOWNLOAD, message) from None
        except httpx2.InvalidURL as error:
            raise FetchFailed(FailureKind.DOWNLOAD, f"{self._url}: {error}") from None
        except httpx2.TransportError as error:
            raise RetryableError(f"{type(error).__name__} {error}".strip()) from None

    async def _follow_redirects(
        self,
        stack: contextlib.AsyncExitStack,
        partial: PartialFile,
        is_local: Callable[[AnnouncedContent], bool],
    ) -> AnnouncedContent:
        """Follow redirects to the server that has the bytes, and receive them."""
        url, announced = self._url, AnnouncedContent()
        for _ in range(_MAX_REDIRECTS):
            headers = self._request_headers(url, partial, announced)
            stream = self._client.stream("GET", url, headers=headers)
            response = await stack.enter_async_context(stream)
            from_origin = self._is_origin(url)
            if from_origin:
                self.rate_limits = rate_limits(response.headers)
            if response.status_code < 400:
                announced = announced.with_headers(response.headers, from_origin=from_origin)
                self._check_content(partial, announced.etag)
                if is_local(announced):
                    return replace(announced, is_local=True)
                if announced.etag and partial.size and partial.size == announced.size:
                    return announced
            if not response.has_redirect_location:
                return await self._receive(response, partial, announced, from_origin)
            url = url.join(response.headers["location"])
        text = f"{self._url}: more than {_MAX_REDIRECTS} redirects"
        raise FetchFailed(FailureKind.DOWNLOAD, text)

    def _request_headers(
        self, url: httpx2.URL, partial: PartialFile, announced: AnnouncedContent
    ) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "lrm-objaverse"}
        if self._token and self._is_origin(url):
            headers["Authorization"] = f"Bearer {self._token}"
        if partial.size:
            headers["Range"] = f"bytes={partial.size}-"
            # An announced ETag was compared above; content servers use ETags of their own.
            if announced.etag is None:
                headers["If-Range"] = f'"{partial.etag}"'
        return headers

    def _check_content(self, partial: PartialFile, etag: str | None) -> None:
        """Empty the partial file if its bytes belong to content with a different ETag.

        Raises ContentChanged if this exchange received those bytes.
        """
        if not partial.size or etag is None or etag == partial.etag:
            return
        if partial.etag in self._received:
            raise ContentChanged(
                f"the file changed during the download: ETag {partial.etag}, then {etag}"
            )
        partial.restart(None)

    async def _receive(
        self,
        response: httpx2.Response,
        partial: PartialFile,
        announced: AnnouncedContent,
        from_origin: bool,
    ) -> AnnouncedContent:
        """Append the response's bytes to the partial file; return what the file should be.

        Raises RetryableError, ContentChanged, FetchFailed.
        """
        status = response.status_code
        if status not in (_OK, _PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
            raise self._error(response, partial, from_origin)
        etag = announced.etag or entity_tag(response.headers)
        self._check_content(partial, etag)
        if status == _OK:
            # The server ignores ranges, or If-Range did not match: this is the complete file.
            partial.restart(etag)
            total = content_length(response.headers)
        else:
            total = _check_range(response, partial)
        size = total if announced.size is None else announced.size
        if status != _RANGE_NOT_SATISFIABLE:
            self._received.add(partial.etag)
            await _append(response, partial, size)
        return replace(announced, size=size)

    def _error(
        self, response: httpx2.Response, partial: PartialFile, from_origin: bool
    ) -> Exception:
        """Return the exception for a response without bytes, by its status."""
        status, headers = response.status_code, response.headers
        text, wait = f"HTTP {status}", retry_after(headers)
        if status in _RATE_LIMITED:
            wait = self.rate_limits.reset_seconds if wait is None else wait
            for_all = from_origin and (status == 429 or wait is not None)
            return RetryableError(text, wait_seconds=wait, for_all_clients=for_all)
        # A content server answers 403 or 404 when a signed URL has expired.
        if status >= 500 or status in _TRANSIENT or not from_origin:
            return RetryableError(text, wait_seconds=wait)
        reason = headers.get("x-error-code", "")
        if status in (404, 410) and reason not in _NOT_ABOUT_THE_FILE:
            partial.restart(None)
            message = f"{self._url}: the server has no such file ({text})"
            return FetchFailed(FailureKind.MISSING, message)
        hint = "; is HF_TOKEN set to a valid token?" if status in (401, 403) else ""
        message = f"{self._url}: {text} {reason}".rstrip() + hint
        return FetchFailed(FailureKind.DOWNLOAD, message)

    def _is_origin(self, url: httpx2.URL) -> bool:
        """Return whether a URL belongs to the first server: same scheme, host and port."""
        return (url.scheme, url.host, url.port) == (
            self._url.scheme,
            self._url.host,
            self._url.port,
        )


def time_limit_message(url: str, total_seconds: float, num_bytes: int) -> str:
    """Return the message of a download that reached its time limit."""
    return (
        f"{url}: not complete after {total_seconds:g} s (--fetch.total-seconds); {num_bytes} bytes "
        "are kept for the next build"
    )


def _check_range(response: httpx2.Response, partial: PartialFile) -> int | None:
    """Return the file's size from the response to a range request, if it states one.

    Raises RetryableError unless the range begins where the partial file ends. Status 416 (range not
    satisfiable) is accepted if the partial file is complete.
    """
    bounds = content_range(response.headers)
    is_whole = response.status_code == _RANGE_NOT_SATISFIABLE and bounds.total == partial.size
    continues = response.status_code == _PARTIAL_CONTENT and bounds.start == partial.size
    if is_whole or continues:
        return bounds.total
    partial.restart(None)
    text = f"HTTP {response.status_code} with range {response.headers.get('content-range')}"
    raise RetryableError(text, wrong_bytes=True)


async def _append(response: httpx2.Response, partial: PartialFile, size: int | None) -> None:
    """Append a response's bytes to a partial file, up to `size` if that is known.

    Raises RetryableError if there are more bytes, or if the connection ended early. With a
    Content-Length, the HTTP client itself detects an early end.
    """
    received = partial.size
    with open(partial.path, "ab") as file:
        async for data in response.aiter_raw():
            received += len(data)
            file.write(data)
            if size is not None and received > size:
                break
    if size is None:
        return
    if received > size:
        partial.restart(None)
        raise RetryableError(f"more than the announced {size} bytes", wrong_bytes=True)
    if received < size and content_length(response.headers) is None:
        raise RetryableError(f"the connection ended at byte {received} of {size}")


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
