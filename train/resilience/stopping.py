"""What asks a training process to end: SIGTERM or SIGINT, or the run's stop file."""

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
"""Between two looks for the stop file: the run's folder may be on a network file system."""


class StopRequest:
    """Whether this process was asked to end. Ranks agree on it at the end of a step."""

    def __init__(self, out: Path) -> None:
        self._file = StopFile(out)
        self._requested = False
        self._polled = time.monotonic()

    def __bool__(self) -> bool:
        """Return whether the process was asked to end; cheap enough for every step."""
        now = time.monotonic()
        if not self._requested and now - self._polled >= _POLL_SECONDS:
            self._polled = now
            self._requested = self._file.is_requested()
        return self._requested

    def make(self) -> None:
        """Ask this process to end."""
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
    """Return whether this process is asked to end while the block runs."""
    request = StopRequest(out)
    with signal_handler(request.make):
        yield request
