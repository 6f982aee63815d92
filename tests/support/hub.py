"""A local server that serves a folder as the Hugging Face hub does, with faults on demand.

Requests for files in `resolve/COMMIT/` are redirected to a second port, as the hub redirects
clients to its CDN; the redirect has the ETag and the size of the content. Faults are listed by
path: the n-th request of a file gets the n-th fault of its list, and later requests succeed.
"""

import hashlib
import http.server
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["COMMIT", "Fault", "Hub", "serve_hub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REPOSITORY = "allenai/objaverse"
_RESOLVE = f"/datasets/{_REPOSITORY}/resolve/{COMMIT}/"
_API = f"/api/datasets/{_REPOSITORY}"


@dataclass
class Fault:
    """A fault of one request, in the answer of the hub itself or of the CDN."""

    status: int = 0
    """HTTP status that the hub answers instead of the redirect; 0 for none."""
    headers: dict[str, str] = field(default_factory=dict)
    """Additional headers of the answer."""
    cdn_status: int = 0
    """HTTP status that the CDN answers instead of the file; 0 for none."""
    cut_after: int | None = None
    """The connection is closed after this many bytes of the body."""
    data: bytes | None = None
    """Content that is sent instead of the file's, with the ETag and size of the file."""
    seconds_per_byte: float = 0.0
    """Seconds between two bytes of the body."""
    seconds_per_header_byte: float = 0.0
    """Seconds between two bytes of the hub's redirect."""
    pause_seconds: float = 0.0
    """Seconds without a byte, at byte `pause_at` of the body."""
    pause_at: int = 0
    replace: bytes | None = None
    """New content of the file, from this request on."""


@dataclass
class Hub:
    """The running server: its switches, and a record of the requests."""

    address: str
    requests: list[str]
    """`METHOD path` of the requests to the hub."""
    request_times: list[float]
    """Arrival times of these requests, in seconds of the monotonic clock."""
    ranges: list[str]
    """The Range header of every request to the CDN; empty if it has none."""
    faults: dict[str, list[Fault]]
    """Faults by path in the repository, in the order of the requests."""
    tokens: list[str]
    """Authorization headers that the CDN received. A correct client sends none."""
    redirect: bool = True
    """Whether the hub redirects to the second port instead of sending files itself."""
    ignores_ranges: bool = False
    """Whether the CDN ignores Range headers and sends whole files."""
    lists_trees: bool = True
    """Whether the API lists folders of the commit."""
    odd_entries: list[Any] = field(default_factory=list)
    """Entries that every list of a folder begins with."""
    tree: bytes = b""
    """Sent instead of every list of a folder."""

    def url(self, path: str) -> str:
        """Return the address of a file."""
        return f"{self.address}{_RESOLVE}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    hub: Hub
    cdn: str
    current: dict[str, Fault]

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/cdn/"):
            self._send_file(path.removeprefix("/cdn/"), self.current.get(path, Fault()))
            return
        self.hub.requests.append(f"GET {path}")
        self.hub.request_times.append(time.monotonic())
        if path.startswith(f"{_API}/tree/"):
            self._send_tree(path)
        elif path.startswith(_API):
            data = json.dumps({"id": _REPOSITORY, "sha": COMMIT, "siblings": []}).encode()
            self._send(200, data, {"Content-Type": "application/json"})
        elif path.startswith(_RESOLVE):
            self._resolve(path.removeprefix(_RESOLVE))
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, path: str) -> None:
        faults = self.hub.faults.get(path, [])
        fault = faults.pop(0) if faults else Fault()
        file = self.folder / path
        if fault.replace is not None:
            file.write_bytes(fault.replace)
        if fault.status:
            self._send(fault.status, b"", fault.headers)
        elif not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif not self.hub.redirect:
            self._send_file(path, fault)
        else:
            self.current[f"/cdn/{path}"] = fault
            data = file.read_bytes()
            headers = {
                "Location": f"{self.cdn}/cdn/{path}?signed=1",
                "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
            }
            self._send(302, b"", headers | fault.headers, fault.seconds_per_header_byte)

    def _send_file(self, path: str, fault: Fault) -> None:
        data = (self.folder / path).read_bytes() if fault.data is None else fault.data
        range_header = self.headers.get("Range", "")
        self.hub.ranges.append(range_header)
        self.hub.tokens += filter(None, [self.headers.get("Authorization")])
        # The ETag of a CDN differs from the hub's; without a CDN it is the hub's own.
        content = (self.folder / path).read_bytes()
        digest = hashlib.md5 if self.hub.redirect else hashlib.sha256
        headers = {"ETag": f'"{digest(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if fault.cdn_status:
            self._send(fault.cdn_status, b"", {})
            return
        status, start = 200, 0
        stale = self.headers.get("If-Range") not in (None, headers["ETag"])
        if range_header and not stale and not self.hub.ignores_ranges:
            start = int(range_header.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._begin(status, headers | fault.headers, len(data) - start)
        body = data[start:] if fault.cut_after is None else data[start:][: fault.cut_after]
        self.wfile.write(body[: fault.pause_at])
        time.sleep(fault.pause_seconds)
        body = body[fault.pause_at :]
        if fault.seconds_per_byte:
            for position in range(len(body)):
                self.wfile.write(body[position : position + 1])
                time.sleep(fault.seconds_per_byte)
        else:
            self.wfile.write(body)
        self.close_connection = fault.cut_after is not None

    def _send_tree(self, path: str) -> None:
        if not self.hub.lists_trees:
            self._send(404, b"", {})
            return
        folder = path.partition(f"/tree/{COMMIT}/")[2]
        listing = []
        for entry in sorted((self.folder / folder).iterdir()):
            files = sorted(entry.rglob("*")) if entry.is_dir() else [entry]
            digest = hashlib.sha1()
            for file in files:
                digest.update(file.name.encode() + file.read_bytes())
            kind = "directory" if entry.is_dir() else "file"
            path = f"{folder}/{entry.name}"
            listing.append({"type": kind, "oid": digest.hexdigest(), "size": 0, "path": path})
        data = self.hub.tree or json.dumps([*self.hub.odd_entries, *listing]).encode()
        self._send(200, data, {"Content-Type": "application/json"})

    def _send(self, code: int, data: bytes, headers: dict[str, str], drip: float = 0.0) -> None:
        if drip:
            for byte in b"HTTP/1.1 302 Found\r\nX-Slow: " + b"x" * 10_000:
                self.wfile.write(bytes([byte]))
                time.sleep(drip)
        self._begin(code, headers, len(data))
        self.wfile.write(data)

    def _begin(self, code: int, headers: dict[str, str], length: int) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def handle(self):
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *args):
        pass


@contextmanager
def serve_hub(folder: Path) -> Iterator[Hub]:
    """Serve the folder as the dataset repository until the block ends."""
    hub = Hub("", [], [], [], defaultdict(list), [])
    handler = type("Handler", (_Handler,), {"folder": folder, "hub": hub, "current": {}})
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.address = f"http://127.0.0.1:{servers[0].server_port}"
    handler.cdn = f"http://127.0.0.1:{servers[1].server_port}"
    threads = []
    for server in servers:
        # The handler of a client that gave up may still be sending bytes slowly.
        server.daemon_threads = True
        server.block_on_close = False
        threads.append(threading.Thread(target=server.serve_forever, args=(0.05,)))
        threads[-1].start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
