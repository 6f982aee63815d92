"""Notices of long waits: what a process waits for, on standard error after ten silent seconds."""

import contextlib
import logging
import os
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


_watched: set["Wait"] = set()
"""The waits of this process, and after a fork those of its parent. Changes of a set are atomic."""
_watchers: list[threading.Thread] = []
"""The thread that reports waits, if it runs: one for all, because starting one takes 0.1 ms."""


class Wait:
    """A wait for a remote server, reported once if nothing arrives for a while."""

    def __init__(self, server: str, purpose: str) -> None:
        self._server = server
        self._purpose = purpose
        self._started = self._last = time.monotonic()
        self._process = os.getpid()

    def progress(self) -> None:
        """Restart the time until the report, because bytes arrived."""
        self._last = time.monotonic()

    def check(self) -> None:
        """Report the wait, and watch it no longer, if it has been silent for long."""
        now = time.monotonic()
        if now - self._last < _SILENT_SECONDS or self._process != os.getpid():
            return
        _watched.discard(self)
        if now - _reports.get(self._server, -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            _reports[self._server] = now
            _log.warning(
                "waiting for %s (%.0f s): %s", self._server, now - self._started, self._purpose
            )


@contextlib.contextmanager
def waiting_for(server: str, purpose: str) -> Iterator[Wait]:
    """Report the block if it waits for the server for ten seconds without progress."""
    wait = Wait(server, purpose)
    _watched.add(wait)
    _start_watcher()
    try:
        yield wait
    finally:
        _watched.discard(wait)


def _start_watcher() -> None:
    if not _watchers or not _watchers[0].is_alive():  # it does not survive a fork
        watcher = threading.Thread(target=_watch, name="wait-notices", daemon=True)
        _watchers[:] = [watcher]  # of two that start at once, the other one ends
        watcher.start()


def _watch() -> None:
    while _watchers == [threading.current_thread()]:
        for wait in list(_watched):
            wait.check()
        time.sleep(_SILENT_SECONDS / 10)


def reported(server: str, purpose: str, work: Callable[[], T]) -> T:
    """Return the result of `work`, reported as a wait for the server if it takes long."""
    with waiting_for(server, purpose):
        return work()


def server_of(url: str) -> str:
    """Return the scheme, host and port of a URL, without credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
