"""Servers on loopback that answer requests in every wrong way: silence, drips, floods, garbage."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "UNREACHABLE",
    "BadServer",
    "closed",
    "drip",
    "flood",
    "full_queue",
    "http",
    "raw",
    "serve_badly",
    "silent",
    "slow_headers",
    "unreachable",
]

Behaviour = Callable[[Any, str], None]
"""(connection, path of the request): sends an answer, then the connection is closed."""
_TLS = b"\x16\x03"
"""Start of a client's first message of TLS, which these servers do not use."""
_PATIENCE = 20.0
"""Seconds after which a server gives up a client that does not."""


class BadServer:
    """A server with the same behaviour for every request, or with one for each of the first."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)
        self.paths: list[str] = []
        """The path of every request so far."""
        self.sent = 0
        """Bytes that a flood has sent."""
        self.address = ""
        self.closing = threading.Event()

    def answer(self, connection: socket.socket) -> None:
        """Read a request and answer it."""
        request = b""
        while b"\r\n\r\n" not in request:
            data = connection.recv(65536)
            if not data:
                return
            request += data
            if request.startswith(_TLS):
                http("", "400 Bad Request")(connection, "")
                return
        method, path, _ = request.decode("latin-1").split(" ", 2)
        self.paths.append(path)
        behaviour = self.behaviours[min(len(self.paths), len(self.behaviours)) - 1]
        behaviour(_HeadersOnly(connection) if method == "HEAD" else connection, path)


class _HeadersOnly:
    """A connection that sends no body, for the answer to HEAD."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._is_complete = False

    def sendall(self, data: bytes) -> None:
        if not self._is_complete:
            headers, end, _ = data.partition(b"\r\n\r\n")
            self._is_complete = bool(end)
            self._connection.sendall(headers + end)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def http(
    body: bytes | str = b"", status: str = "200 OK", length: bool = True, **headers: str
) -> Behaviour:
    """Return a complete answer; `_` in the names of headers stands for a hyphen."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(data)}"] if length else []
    answer = "\r\n".join([*lines, "", ""]).encode("latin-1") + data
    return lambda connection, _: connection.sendall(answer)


def raw(data: bytes) -> Behaviour:
    """Return an answer of these bytes."""
    return lambda connection, _: connection.sendall(data)


def silent(connection: socket.socket, _: str) -> None:
    """Accept the request and never answer."""
    connection.settimeout(_PATIENCE)
    with contextlib.suppress(OSError):
        connection.recv(1)


def closed(connection: socket.socket, _: str) -> None:
    """Close the connection without an answer."""


def drip(connection: socket.socket, _: str) -> None:
    """Send a body without an end, one byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    _drip(connection)


def slow_headers(connection: socket.socket, _: str) -> None:
    """Send headers without an end, one byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _drip(connection)


def _drip(connection: socket.socket) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        connection.sendall(b" ")
        time.sleep(0.05)


def flood(server: BadServer, prefix: bytes = b"[", **headers: str) -> Behaviour:
    """Return a body that has no end, or not the announced one; `server.sent` counts its bytes."""

    def behaviour(connection: socket.socket, path: str) -> None:
        http(prefix, length=False, **headers)(connection, path)
        block = b" " * (1 << 20)
        while not server.closing.is_set():
            connection.sendall(block)
            server.sent += len(block)

    return behaviour


@contextlib.contextmanager
def full_queue() -> Iterator[str]:
    """Yield the address of a server that drops new connections, as a closed firewall does."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def serve_badly(*behaviours: Behaviour) -> Iterator[BadServer]:
    """Start a server for the block; its behaviours may also be set in the block."""
    bad = BadServer(*behaviours)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                bad.answer(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close, request_queue_size = True, False, 64

    server = Server(("127.0.0.1", 0), Handler)
    bad.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield bad
    finally:
        bad.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


UNREACHABLE = {
    "drops connections": "Timeout",
    "has no TLS": "SSL",
    "has no address": "Name or service not known",
    "refuses connections": "All connection attempts failed",
}
"""The ways in which a server cannot be reached, each with the error of an HTTP client."""


@contextlib.contextmanager
def unreachable(reason: str) -> Iterator[str]:
    """Yield the URL of a server that cannot be reached for this reason."""
    with full_queue() as closed_address, serve_badly(silent) as plain:
        yield {
            "drops connections": closed_address,
            "has no TLS": plain.address.replace("http:", "https:"),
            "has no address": "http://server.invalid",
            "refuses connections": "http://127.0.0.1:1",
        }[reason]
