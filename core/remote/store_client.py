"""Limits of the clients of object stores: on time, and on answers that must fit into memory."""

import functools
from typing import Any

import fsspec

__all__ = ["client_options"]

_CONNECT_SECONDS = 10
"""Time limit for opening a connection; the read limit of a silent one is botocore's, 60 s."""
_REQUEST_SECONDS = 1800
"""Time limit of one request with its answer's bytes, which may arrive slowly but without a gap."""
_MAX_CONTENT = 256 << 20
"""Bytes of an object whose length the store does not state; every known store states it."""
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
            if self.content_length is None:
                self.content = _LimitedBody(self.content, _MAX_CONTENT)
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
        blocks = []
        while block := await (self._stream.readany() if amount < 0 else self._stream.read(amount)):
            self._received += len(block)
            if self._received > self._max_bytes:
                raise OSError(f"the answer has more than {self._max_bytes >> 20} MiB")
            blocks.append(block)
            if amount >= 0:
                break
        return b"".join(blocks)
