"""A server on loopback that answers like the Hugging Face hub, from a folder, and misbehaves.

Files of `resolve/COMMIT/` are redirected to a second port, as the hub sends clients to its CDN; the
redirect carries the ETag and size of the content. Trouble is ordered per path: the n-th request of
a file meets the n-th trouble, and after the last one all goes well.
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

__all__ = ["COMMIT", "Hub", "Trouble", "serve_hub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REPOSITORY = "allenai/objaverse"
_RESOLVE = f"/datasets/{_REPOSITORY}/resolve/{COMMIT}/"
_API = f"/api/datasets/{_REPOSITORY}"


@dataclass
class Trouble:
    """What goes wrong with one request. At the hub itself: `status`; on the CDN: the rest."""

    status: int = 0
    """Answered instead of the file."""
    headers: dict[str, str] = field(default_factory=dict)
    cdn_status: int = 0
    cut: int | None = None
    """The connection ends after so many bytes of the body."""
    data: bytes | None = None
    """Another content, under the promise of the right one."""
    drip: float = 0.0
    """Seconds between two bytes."""
    drip_headers: float = 0.0
    """Seconds between two bytes of the hub's answer."""
    silence: float = 0.0
    """Seconds without a byte, at byte `pause_at` of the body."""
    pause_at: int = 0
    replace: bytes | None = None
    """The file has this content from now on."""


@dataclass
class Hub:
    """The running server."""

    address: str
    asked: list[str]
    """`METHOD path` of the requests to the hub."""
    times: list[float]
    """When they came."""
    ranges: list[str]
    """The Range headers that the CDN got, empty for none."""
    troubles: dict[str, list[Trouble]]
    """By path in the repository."""
    tokens: list[str]
    """Authorization headers that the CDN got: there must be none."""
    redirect: bool = True
    """Whether files come from the second port."""
    ignores_ranges: bool = False
    """Whether every request gets the whole file."""
    trees: bool = True
    """Whether the API shows the commit's trees."""

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"{self.address}{_RESOLVE}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    hub: Hub
    cdn: str
    current: dict[str, Trouble]

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/cdn/"):
            self._send_file(path.removeprefix("/cdn/"), self.current.get(path, Trouble()))
            return
        self.hub.asked.append(f"GET {path}")
        self.hub.times.append(time.monotonic())
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
        queue = self.hub.troubles.get(path, [])
        trouble = queue.pop(0) if queue else Trouble()
        file = self.folder / path
        if trouble.replace is not None:
            file.write_bytes(trouble.replace)
        if trouble.status:
            self._send(trouble.status, b"", trouble.headers)
        elif not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif not self.hub.redirect:
            self._send_file(path, trouble)
        else:
            self.current[f"/cdn/{path}"] = trouble
            data = file.read_bytes()
            headers = {
                "Location": f"{self.cdn}/cdn/{path}?signed=1",
                "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
            }
            self._send(302, b"", headers | trouble.headers, trouble.drip_headers)

    def _send_file(self, path: str, trouble: Trouble) -> None:
        data = (self.folder / path).read_bytes() if trouble.data is None else trouble.data
        wanted = self.headers.get("Range", "")
        self.hub.ranges.append(wanted)
        self.hub.tokens += filter(None, [self.headers.get("Authorization")])
        # A content delivery network has tags of its own; a server without one has the hub's.
        whole = (self.folder / path).read_bytes()
        digest = hashlib.md5 if self.hub.redirect else hashlib.sha256
        headers = {"ETag": f'"{digest(whole).hexdigest()}"', "Accept-Ranges": "bytes"}
        if trouble.cdn_status:
            self._send(trouble.cdn_status, b"", {})
            return
        status, start = 200, 0
        stale = self.headers.get("If-Range") not in (None, headers["ETag"])
        if wanted and not stale and not self.hub.ignores_ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._begin(status, headers | trouble.headers, len(data) - start)
        body = data[start:] if trouble.cut is None else data[start:][: trouble.cut]
        self.wfile.write(body[: trouble.pause_at])
        time.sleep(trouble.silence)
        body = body[trouble.pause_at :]
        if trouble.drip:
            for position in range(len(body)):
                self.wfile.write(body[position : position + 1])
                time.sleep(trouble.drip)
        else:
            self.wfile.write(body)
        self.close_connection = trouble.cut is not None

    def _send_tree(self, path: str) -> None:
        if not self.hub.trees:
            self._send(404, b"", {})
            return
        folder = path.partition(f"/tree/{COMMIT}/")[2]
        entries = []
        for item in sorted((self.folder / folder).iterdir()):
            files = sorted(item.rglob("*")) if item.is_dir() else [item]
            digest = hashlib.sha1()
            for file in files:
                digest.update(file.name.encode() + file.read_bytes())
            kind = "directory" if item.is_dir() else "file"
            path = f"{folder}/{item.name}"
            entries.append({"type": kind, "oid": digest.hexdigest(), "size": 0, "path": path})
        self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

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
    """Serve the folder as the dataset repository."""
    hub = Hub("", [], [], [], defaultdict(list), [])
    handler = type("Handler", (_Handler,), {"folder": folder, "hub": hub, "current": {}})
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.address = f"http://127.0.0.1:{servers[0].server_port}"
    handler.cdn = f"http://127.0.0.1:{servers[1].server_port}"
    threads = []
    for server in servers:
        # A client that gave up leaves a handler that still drips.
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
