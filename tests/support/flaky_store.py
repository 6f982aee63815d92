"""An S3 server behind a proxy that adds random faults of networks and busy stores."""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.paths import REPOSITORY

SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>'
)
ADMIN = "/-/faults/"
_COMMIT = re.compile(r"/_delta_log/\d+\.json")
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


class FlakyStore:
    """The state of the proxy, and counts of its faults and of the requests by method.

    The faults are `slow` (503 SlowDown), `cut` (half of a GET's answer) and `lost` (no answer to a
    PUT that was executed).
    """

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.counts: Counter[str] = Counter()
        self.faults = True
        self.down_until = 0.0
        self._pid_to_kill = 0
        # Random, because with a fixed cycle a client in a loop would always get the same fault.
        self._random = random.Random(0)
        self._since: Counter[str] = Counter()
        """Requests since the last fault of each kind."""
        self._lock = threading.Lock()

    def is_due(self, kind: str, one_in: int) -> bool:
        """Decide whether a request gets this fault, with probability 1 / `one_in`; count it.

        Every kind occurs at least once in 2 * `one_in` requests, so that few requests have faults.
        """
        with self._lock:
            self._since[kind] += self.faults
            is_late = self._since[kind] >= 2 * one_in
            due = self.faults and (is_late or self._random.randrange(one_in) == 0)
            if due:
                self.counts[kind] += 1
                self._since[kind] = 0
            return due

    def count(self, method: str) -> None:
        """Count a request."""
        with self._lock:
            self.counts[method] += 1

    def administer(self, order: str) -> None:
        """Execute an order of the test.

        `on` and `off` switch the faults, `down/SECONDS` answers nothing but 503 for that time,
        `kill/PID` kills a process at the next commit, and `fill/BUCKET/FOLDER/COUNT` puts empty
        objects into the store without requests.
        """
        name, _, value = order.partition("/")
        if name == "down":
            self.down_until = time.monotonic() + float(value)
        elif name == "kill":
            self._pid_to_kill = int(value)
        elif name == "fill":
            _fill(*value.split("/", 1))
        else:
            self.faults = name == "on"

    def kills_at(self, method: str, path: str) -> bool:
        """Kill the chosen process if this is a commit; return whether to drop the commit.

        Every second such commit is dropped, at random.
        """
        with self._lock:
            if not self._pid_to_kill or method != "PUT" or not _COMMIT.search(path):
                return False
            pid, self._pid_to_kill = self._pid_to_kill, 0
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return self._random.random() < 0.5


def _fill(bucket: str, order: str) -> None:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    folder, _, count = order.rpartition("/")
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(int(count)):
        backend.put_object(bucket, f"{folder}/{number:05d}", b"")


def _handler(store: FlakyStore) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _forward(self) -> None:
            if self.path.startswith(ADMIN):
                store.administer(self.path.removeprefix(ADMIN))
                self._answer(200, {}, json.dumps(store.counts).encode())
                return
            store.count(self.command)
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self._chunks()
            if time.monotonic() < store.down_until or store.is_due("slow", 9):
                self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
                return
            if store.kills_at(self.command, self.path):
                self.close_connection = True
                return
            upstream = http.client.HTTPConnection(store.target, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
            headers["Content-Length"] = str(len(body))
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            if self.command == "PUT" and store.is_due("lost", 8):
                self.close_connection = True
                self.connection.close()
                return
            headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
            if self.command == "GET" and len(data) > 64 and store.is_due("cut", 25):
                headers["Content-Length"] = str(len(data))
                self._answer(answer.status, headers, data[: len(data) // 2])
                self.close_connection = True
                return
            if self.command != "HEAD":
                headers["Content-Length"] = str(len(data))
            self._answer(answer.status, headers, data)

        def _chunks(self) -> bytes:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return b""
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers and self.command != "HEAD":
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815

    return Handler


def main() -> None:
    """Serve until killed.

    The proxy needs its own process: a client written in Rust may hold the GIL while it waits.
    """
    from moto.server import ThreadedMotoServer

    real = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    real.start()
    store = FlakyStore("http://{}:{}".format(*real.get_host_and_port()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(store))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


@contextmanager
def flaky_store() -> Iterator[str]:
    """Start a server and the proxy for the block; yield the proxy's address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.flaky_store"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def switch_faults(address: str, *, on: bool = True) -> dict[str, int]:
    """Switch the faults on or off; return the numbers of faults and requests so far by kind."""
    return _order(address, "on" if on else "off")


def start_outage(address: str, seconds: float) -> None:
    """Answer all requests of the next `seconds` with 503."""
    _order(address, f"down/{seconds}")


def kill_at_commit(address: str, pid: int | None) -> None:
    """Kill a process when the next commit of a catalog arrives; None cancels the order."""
    _order(address, f"kill/{pid or 0}")


def fill_folder(address: str, bucket: str, folder: str, count: int) -> None:
    """Put `count` empty objects into a folder of a bucket."""
    _order(address, f"fill/{bucket}/{folder}/{count}")


def _order(address: str, order: str) -> dict[str, int]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request("GET", f"{ADMIN}{order}")
    counts: dict[str, int] = json.load(connection.getresponse())
    connection.close()
    return counts


if __name__ == "__main__":
    main()
