"""Stop requests to a training process: SIGTERM, SIGINT, or the run's stop file."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from train.resilience.stop_file import StopFile

__all__ = ["StopRequest", "signal_handler", "stop_request"]

_POLL_SECONDS = 2.0
"""Seconds between two checks of the stop file, which may be on a network file system."""


class StopRequest:
    """State of this process's stop request. Ranks exchange it at the end of each step."""

    def __init__(self, out: Path) -> None:
        self._file = StopFile(out)
        self._requested = False
        self._polled = time.monotonic()

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
def signal_handler(request: Callable[[], None]) -> Iterator[None]:
    """Call `request` at SIGTERM and SIGINT while the block runs; a second signal ends the process.

    Does nothing outside the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: Any) -> None:
        request()
        signal.signal(number, signal.SIG_DFL)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_request(out: Path) -> Iterator[StopRequest]:
    """Yield the stop request of this process, which signals and the stop file of `out` set."""
    request = StopRequest(out)
    with signal_handler(request.set):
        yield request
