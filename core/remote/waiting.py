"""Notices of long waits: what a process waits for, on standard error after ten silent seconds."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

__all__ = ["Wait", "reported", "server_of", "waiting_for"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SILENT_SECONDS = 10.0
"""Seconds without an answer until a wait is reported."""
_REPEAT_SECONDS = 60.0
"""Waits for one server are reported at most once in this time: a worker can have many."""
_reports: dict[str, float] = {}
"""Time of the last report of each server, in seconds of the monotonic clock."""


class Wait:
    """A wait for a remote server, reported once if nothing arrives for a while."""

    def __init__(self, server: str, purpose: str) -> None:
        self._server = server
        self._purpose = purpose
        self._started = self._last = time.monotonic()
        self._ended = threading.Event()

    def progress(self) -> None:
        """Restart the time until the report, because bytes arrived."""
        self._last = time.monotonic()

    def end(self) -> None:
        """End the wait."""
        self._ended.set()

    def watch(self) -> None:
        """Report the wait once it has been silent for long, and return then or at its end."""
        while not self._ended.wait(self._last + _SILENT_SECONDS - time.monotonic()):
            now = time.monotonic()
            if now - self._last >= _SILENT_SECONDS:
                self._report(now)
                return

    def _report(self, now: float) -> None:
        if now - _reports.get(self._server, -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            _reports[self._server] = now
            _log.warning(
                "waiting for %s (%.0f s): %s", self._server, now - self._started, self._purpose
            )


@contextlib.contextmanager
def waiting_for(server: str, purpose: str) -> Iterator[Wait]:
    """Report the block if it waits for the server for ten seconds without progress."""
    wait = Wait(server, purpose)
    threading.Thread(target=wait.watch, name="wait-notice", daemon=True).start()
    try:
        yield wait
    finally:
        wait.end()


def reported(server: str, purpose: str, work: Callable[[], T]) -> T:
    """Return the result of `work`, reported as a wait for the server if it takes long."""
    with waiting_for(server, purpose):
        return work()


def server_of(url: str) -> str:
    """Return the scheme, host and port of a URL, without credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
