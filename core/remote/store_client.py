"""Limits of the clients of object stores: on time, and on answers that must fit into memory."""

import functools
from typing import Any

import fsspec

__all__ = ["client_options"]

_CONNECT_SECONDS = 10
"""Time limit for opening a connection; the read limit of a silent one is botocore's, 60 s."""
_REQUEST_SECONDS = 3600
"""Time limit of one request with its bytes, of which there are 100 MB at most in an upload. They
may be sent slowly, but without a gap of botocore's limit of 60 s."""
_MAX_CONTENT = 256 << 20
"""Bytes of an object whose length the store does not state; every known store states it."""
_MAX_WHOLE = 2 << 30
"""Bytes that are read into memory at once. A snapshot of a million objects has about 0.1 GB."""
_MAX_ANSWER = 32 << 20
"""Bytes of any other answer. A page of 1,000 names of the longest kind has 4 MB."""
_PAGE = (b"<html", b"<!doctype html")
_S3 = frozenset({"s3", "s3a"})


def client_options(location: str) -> dict[str, Any]:
    """Return options for the file system of a URI, also at the end of a chain such as `a::s3://`.

    What the user has configured for fsspec comes first.
    """
    chain = location.partition("://")[0].split("::")
    if chain[-1] not in _S3:
        return {}
    configured = fsspec.config.conf.get(chain[-1], {}).get("config_kwargs", {})
    config = {"connect_timeout": _CONNECT_SECONDS, "http_session_cls": _session_class()}
    options = {"config_kwargs": config | configured}
    return options if len(chain) == 1 else {chain[-1]: options}


@functools.cache
def _session_class() -> type:
    """Return the HTTP client of S3 with these limits. The module is imported only if it is used."""
    import aiohttp
    from aiobotocore.httpsession import AIOHTTPSession

    class LimitedResponse(aiohttp.ClientResponse):
        content: Any

        async def start(self, connection: Any) -> Any:
            response = await super().start(connection)
            length = self.content_length
            self.content = _LimitedBody(self.content, _MAX_CONTENT if length is None else length)
            return response

        async def read(self) -> bytes:
            """Return the whole answer, as for everything but an object's content."""
            self.content = _LimitedBody(self.content, _MAX_ANSWER)
            data = await super().read()
            if self.status < 300 and data[:100].lstrip().lower().startswith(_PAGE):
                # Parsed as a listing, a page would be an empty folder.
                raise OSError("the answer is a web page: is AWS_ENDPOINT_URL an object store?")
            return data

    class LimitedSession(AIOHTTPSession):
        _timeout: aiohttp.ClientTimeout

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            connect, read = self._timeout.sock_connect, self._timeout.sock_read
            self._timeout = aiohttp.ClientTimeout(
                total=_REQUEST_SECONDS, sock_connect=connect, sock_read=read
            )

        async def _get_session(self, proxy_url: str | None) -> Any:
            session = await super()._get_session(proxy_url)
            session._response_class = LimitedResponse
            return session

    return LimitedSession


class _LimitedBody:
    """The stream of an answer's bytes, which ends with an error after too many."""

    def __init__(self, stream: Any, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._received = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, amount: int = -1) -> bytes:
        """Return `amount` bytes at most, or with -1 all bytes. Raises OSError if too many came."""
        if amount >= 0:
            return self._counted(await self._stream.read(amount))
        if self._max_bytes > _MAX_WHOLE:
            raise _too_large(_MAX_WHOLE)
        blocks = []
        while block := await self._stream.readany():
            blocks.append(self._counted(block))
        return b"".join(blocks)

    def _counted(self, block: bytes) -> bytes:
        self._received += len(block)
        if self._received > self._max_bytes:
            raise _too_large(self._max_bytes)
        return block


def _too_large(max_bytes: int) -> OSError:
    return OSError(f"the answer has more than {max_bytes >> 20} MiB")
