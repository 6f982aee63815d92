"""A server on loopback that answers like the Hugging Face hub, from a folder."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["COMMIT", "serve_hub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REPOSITORY = "allenai/objaverse"


@contextmanager
def serve_hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the folder as the dataset repository; its address, and the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self._answer(body=False)

        def do_GET(self):
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            asked.append(f"{self.command} {path}")
            if path.startswith(f"/api/datasets/{_REPOSITORY}"):
                data = json.dumps({"id": _REPOSITORY, "sha": COMMIT, "siblings": []}).encode()
                return self._send(200, data, body, {"Content-Type": "application/json"})
            prefix = f"/datasets/{_REPOSITORY}/resolve/{COMMIT}/"
            file = folder / path.removeprefix(prefix)
            if not path.startswith(prefix) or not file.is_file():
                return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
            data = file.read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            return self._send(200, data, body, {"ETag": f'"{etag}"'})

        def _send(self, code: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
