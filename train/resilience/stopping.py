"""Requests to end: a preemption notice, Ctrl-C, or a file in the run's folder."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["STOP_FILE", "StopRequest", "hearing", "stop_request"]

STOP_FILE = "stop"
"""In the run's folder: who makes it asks all workers to save and leave."""
_LOOK_SECONDS = 2.0


class StopRequest:
    """Whether this process was asked to end. Ranks agree on it at the end of a step."""

    def __init__(self, out: Path) -> None:
        self._file = out / STOP_FILE
        self._signalled = False
        self._looked = time.monotonic()

    def __bool__(self) -> bool:
        """Cheap: the file is looked for every few seconds only."""
        if self._signalled:
            return True
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._signalled = self._file.exists()
        return self._signalled

    def make(self) -> None:
        """Ask this process to end."""
        self._signalled = True


@contextlib.contextmanager
def hearing(asked: Callable[[], None]) -> Iterator[None]:
    """Call this at SIGTERM and SIGINT while the block runs, where the thread may listen; a second
    signal ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: Any) -> None:
        asked()
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
    """Whether this process was asked to end while the block runs."""
    request = StopRequest(out)
    with hearing(request.make):
        yield request
