"""One request for a file, over redirects, from wherever its part ends."""

import asyncio
import contextlib
import functools
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import httpx2

from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.headers import limit_reset, rate_policy, retry_after
from pipelines.transfers.outcome import FetchFailed
from pipelines.transfers.parts import Part

__all__ = ["Again", "Changed", "Exchange", "Promise"]

_MAX_REDIRECTS = 8
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_RANGE = re.compile(r"^bytes (?:(\d+)-\d+|\*)/(\d+|\*)$")
_BUSY = frozenset({429, 503})
_NOT_THE_FILE = frozenset({"RepoNotFound", "RevisionNotFound", "GatedRepo"})
"""Reasons of the hub for 404 that say nothing of the file."""


class Again(Exception):
    """This request failed and another one may not."""

    def __init__(
        self,
        text: str,
        *,
        seconds: float | None = None,
        everyone: bool = False,
        wrong: bool = False,
    ) -> None:
        super().__init__(text)
        self.seconds = seconds
        """How long the server asks to wait."""
        self.everyone = everyone
        """Whether that holds for all who ask this server."""
        self.wrong = wrong
        """Whether what had come was of no use."""


class Changed(Exception):
    """The server has other contents now than when the transfer began."""


@dataclass(frozen=True)
class Promise:
    """What the server says a file is, before its bytes come."""

    tag: str | None = None
    """The ETag of the content, without quotes."""
    sha256: str | None = None
    size: int | None = None
    is_seed: bool = False
    """The local file that might be the very one is it."""

    def read(self, headers: Mapping[str, str], at_first: bool) -> "Promise":
        """With what one more answer says. Only the first server speaks of its own storage."""
        linked = _tag(headers.get("x-linked-etag"))
        own = _tag(headers.get("etag"))
        tag = linked or (own if at_first and own and _SHA256.match(own) else None)
        size = headers.get("x-linked-size", "")
        return replace(
            self,
            tag=self.tag or tag,
            sha256=self.sha256 or (tag if tag and _SHA256.match(tag) else None),
            size=self.size if self.size is not None or not size.isdigit() else int(size),
        )


class Exchange:
    """Requests of one URL, over one set of connections."""

    def __init__(self, url: str, config: FetchConfig, token: str | None) -> None:
        self._url = httpx2.URL(url)
        self._config = config
        self._token = token
        self._client: httpx2.AsyncClient | None = None
        self._begun: set[str | None] = set()
        """Tags of the contents that this exchange began to receive."""
        self.policy: tuple[int, float] | None = None
        """Requests per seconds that the server announced in the last answer."""
        self.used_up: float | None = None
        """Seconds until the server allows requests again, if the last answer said so."""

    async def close(self) -> None:
        """End the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def run(self, part: Part, seconds: float, is_seed: Callable[[Promise], bool]) -> Promise:
        """Bring what is missing of the part; what the whole file should be.

        Raises Again, Changed, or FetchFailed if no other request can help.
        """
        self.policy = self.used_up = None
        try:
            async with asyncio.timeout(seconds), contextlib.AsyncExitStack() as stack:
                return await self._walk(stack, part, is_seed)
        except TimeoutError:
            text = f"more than {self._config.total_seconds:g} s in all"
            message = f"{self._url}: {text}; {part.size} bytes are kept for the next try"
            raise FetchFailed("download", message) from None
        except httpx2.InvalidURL as error:
            raise FetchFailed("download", f"{self._url}: {error}") from None
        except httpx2.TransportError as error:
            raise Again(f"{type(error).__name__} {error}".strip()) from None

    async def _walk(
        self, stack: contextlib.AsyncExitStack, part: Part, is_seed: Callable[[Promise], bool]
    ) -> Promise:
        """Follow redirects to the server that has the bytes, and receive them."""
        url, promise = self._url, Promise()
        for _ in range(_MAX_REDIRECTS):
            response = await self._send(stack, url, part, promise)
            at_first = _origin(url) == _origin(self._url)
            if at_first:
                self.used_up = limit_reset(response.headers)
                self.policy = rate_policy(response.headers)
            if response.status_code < 400:
                promise = promise.read(response.headers, at_first)
                self._compare(part, promise.tag)
                if is_seed(promise):
                    return replace(promise, is_seed=True)
                if promise.tag and part.size and part.size == promise.size:
                    return promise
            if not response.has_redirect_location:
                return await self._receive(response, part, promise, at_first)
            url = url.join(response.headers["location"])
        raise FetchFailed("download", f"{self._url}: more than {_MAX_REDIRECTS} redirects")

    async def _send(
        self, stack: contextlib.AsyncExitStack, url: httpx2.URL, part: Part, promise: Promise
    ) -> httpx2.Response:
        headers = {"Accept-Encoding": "identity", "User-Agent": "lrm-objaverse"}
        if self._token and _origin(url) == _origin(self._url):
            headers["Authorization"] = f"Bearer {self._token}"
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            # Once the content is known by the first server's tag, the others' own say nothing.
            if promise.tag is None:
                headers["If-Range"] = f'"{part.tag}"'
        if self._client is None:
            limits = self._config
            timeout = httpx2.Timeout(limits.stall_seconds, connect=limits.connect_seconds)
            self._client = httpx2.AsyncClient(timeout=timeout, verify=_tls())
        return await stack.enter_async_context(self._client.stream("GET", url, headers=headers))

    def _compare(self, part: Part, tag: str | None) -> None:
        """Whether the part belongs to this content; a part of an earlier time may be out of date.

        Raises Changed if the content changed while it came.
        """
        if part.size and tag is not None and tag != part.tag:
            if part.tag in self._begun:
                raise Changed(f"changed while it came: ETag {part.tag}, then {tag}")
            part.restart(None)

    async def _receive(
        self, response: httpx2.Response, part: Part, promise: Promise, at_first: bool
    ) -> Promise:
        """Append the answer's bytes to the part. Raises Again, Changed, FetchFailed."""
        status, headers = response.status_code, response.headers
        own = promise.tag or _tag(headers.get("etag"))
        found = _RANGE.match(headers.get("content-range", ""))
        total = int(found[2]) if found and found[2].isdigit() else None
        if status in (200, 206, 416):
            self._compare(part, own)
        if status == 416 and part.size == total:
            return replace(promise, size=total if promise.size is None else promise.size)
        if status == 416 or (status == 206 and (not found or found[1] != str(part.size))):
            part.restart(None)
            raise Again(f"HTTP {status} with range {headers.get('content-range')}", wrong=True)
        if status not in (200, 206):
            raise self._refusal(response, part, at_first)
        length = headers.get("content-length", "")
        if status == 200:
            part.restart(own)
            total = int(length) if length.isdigit() else None
        self._begun.add(part.tag)
        size = total if promise.size is None else promise.size
        await _append(response, part, size)
        if size is not None and part.size < size and not length.isdigit():
            raise Again(f"the connection ended at byte {part.size} of {size}")
        return replace(promise, tag=own, size=size)

    def _refusal(self, response: httpx2.Response, part: Part, at_first: bool) -> Exception:
        """What an answer without the file means."""
        status, headers = response.status_code, response.headers
        wait = retry_after(headers)
        text = f"HTTP {status}"
        if status in _BUSY:
            wait = self.used_up if wait is None else wait
            everyone = at_first and (status == 429 or wait is not None)
            return Again(text, seconds=wait, everyone=everyone)
        if status >= 500 or status in (408, 425) or not at_first:
            # Of the others a 403 or 404 may mean an address that is no longer valid.
            return Again(text, seconds=wait)
        reason = headers.get("x-error-code", "")
        if status in (404, 410) and reason not in _NOT_THE_FILE:
            part.restart(None)
            return FetchFailed("missing", f"{self._url}: the server has no such file ({text})")
        hint = "; see HF_TOKEN" if status in (401, 403) else ""
        return FetchFailed("download", f"{self._url}: {text} {reason}".rstrip() + hint)


async def _append(response: httpx2.Response, part: Part, size: int | None) -> None:
    have = part.size
    with open(part.path, "ab") as file:
        async for data in response.aiter_raw():
            have += len(data)
            file.write(data)
            if size is not None and have > size:
                break
    if size is not None and have > size:
        part.restart(None)
        raise Again(f"more than the {size} bytes that were promised", wrong=True)


def _tag(value: str | None) -> str | None:
    return value.removeprefix("W/").strip('"') or None if value else None


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
