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
from collections.abc import Callable
from dataclasses import replace

import httpx2

from core.failures import FailureKind
from core.remote.waiting import Wait, server_of, waiting_for
from pipelines.transfers.announced_content import AnnouncedContent
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.headers import (
    RateLimits,
    content_length,
    content_range,
    entity_tag,
    rate_limits,
    retry_after,
)
from pipelines.transfers.http_client import (
    MAX_REDIRECTS,
    is_same_server,
    open_client,
    redirect_target,
    request_headers,
    transport_problem,
)
from pipelines.transfers.outcome import FetchFailed
from pipelines.transfers.partial_file import PartialFile
from pipelines.transfers.size_limit import SizeLimit

__all__ = [
    "ContentChanged",
    "Exchange",
    "RetryableError",
    "time_limit_message",
]

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


class Exchange:
    """The requests for one URL, one at a time, over shared connections."""

    def __init__(self, url: str, config: FetchConfig, token: str | None, limit: SizeLimit) -> None:
        """Create the HTTP client; `token` is sent only to the host of `url`."""
        self._url = httpx2.URL(url)
        self._total_seconds = config.total_seconds
        self._token = token
        self._limit = limit
        self._client = open_client(config)
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
                wait = stack.enter_context(waiting_for(server_of(str(self._url)), self._url.path))
                return await self._follow_redirects(stack, partial, is_local, wait)
        except TimeoutError:
            message = time_limit_message(str(self._url), self._total_seconds, partial.size)
            raise FetchFailed(FailureKind.DOWNLOAD, message) from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise FetchFailed(FailureKind.DOWNLOAD, f"{self._url}: {error}") from None
        except httpx2.TransportError as error:
            raise RetryableError(transport_problem(error, str(self._url))) from None

    async def _follow_redirects(
        self,
        stack: contextlib.AsyncExitStack,
        partial: PartialFile,
        is_local: Callable[[AnnouncedContent], bool],
        wait: Wait,
    ) -> AnnouncedContent:
        """Follow redirects to the server that has the bytes, and receive them."""
        url, announced = self._url, AnnouncedContent()
        for _ in range(MAX_REDIRECTS):
            headers = self._request_headers(url, partial, announced)
            stream = self._client.stream("GET", url, headers=headers)
            response = await stack.enter_async_context(stream)
            wait.progress()
            from_origin = self._is_origin(url)
            if from_origin:
                self.rate_limits = rate_limits(response.headers)
            if response.status_code < 400:
                announced = announced.with_headers(response.headers, from_origin=from_origin)
                self._limit.check(announced.size)
                self._check_content(partial, announced.etag)
                if is_local(announced):
                    return replace(announced, is_local=True)
                if announced.etag and partial.size and partial.size == announced.size:
                    return announced
            if not response.has_redirect_location:
                return await self._receive(response, partial, announced, from_origin, wait)
            url = redirect_target(url, response)
        text = f"{self._url}: more than {MAX_REDIRECTS} redirects"
        raise FetchFailed(FailureKind.DOWNLOAD, text)

    def _request_headers(
        self, url: httpx2.URL, partial: PartialFile, announced: AnnouncedContent
    ) -> dict[str, str]:
        headers = request_headers(self._token if self._is_origin(url) else None)
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
        wait: Wait,
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
        self._limit.check(total)
        size = total if announced.size is None else announced.size
        if status != _RANGE_NOT_SATISFIABLE:
            self._received.add(partial.etag)
            await _append(response, partial, size, self._limit, wait)
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
        """Return whether a URL belongs to the first server."""
        return is_same_server(url, self._url)


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


async def _append(
    response: httpx2.Response, partial: PartialFile, size: int | None, limit: SizeLimit, wait: Wait
) -> None:
    """Append a response's bytes to a partial file, up to `size` if that is known.

    Raises RetryableError if there are more bytes, or if the connection ended early. With a
    Content-Length, the HTTP client itself detects an early end. Raises FetchFailed and removes the
    bytes if there are more than the limit allows.
    """
    received = partial.size
    with open(partial.path, "ab") as file:
        async for data in response.aiter_raw():
            wait.progress()
            received += len(data)
            if received > limit.max_bytes:
                break
            file.write(data)
            if size is not None and received > size:
                break
    if received > limit.max_bytes:
        partial.restart(None)
        raise limit.exceeded()
    if size is None:
        return
    if received > size:
        partial.restart(None)
        raise RetryableError(f"more than the announced {size} bytes", wrong_bytes=True)
    if received < size and content_length(response.headers) is None:
        raise RetryableError(f"the connection ended at byte {received} of {size}")
