"""Stop requests to a training process: SIGTERM, SIGINT, or the run's stop file."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from train.resilience.signals import signal_handler
from train.resilience.stop_file import StopFile

__all__ = ["StopRequest", "stop_request"]

_POLL_SECONDS = 2.0
"""Seconds between two checks of the stop file, which may be on a network file system."""


class StopRequest:
    """State of this process's stop request. Ranks exchange it at the end of each step."""

    def __init__(self, out: Path) -> None:
        self._file = StopFile(out)
        self._requested = False
        self._polled = time.monotonic()
        self.has_progress = False
        """Whether a step has ended since the start, so that an end needs a checkpoint first."""

    def __bool__(self) -> bool:
        """Return whether the process is requested to end; cheap enough for every step."""
        now = time.monotonic()
        if not self._requested and now - self._polled >= _POLL_SECONDS:
            self._polled = now
            self._requested = self._file.is_requested()
        return self._requested

    def set(self) -> None:
        """Request this process to end."""
        self._requested = True


@contextlib.contextmanager
def stop_request(out: Path) -> Iterator[StopRequest]:
    """Yield the stop request of this process, which signals and the stop file of `out` set.

    Raises Stopped at a signal before `has_progress` is set.
    """
    request = StopRequest(out)
    with signal_handler(request.set, lambda: request.has_progress):
        yield request
