"""Requests to end: a preemption notice, Ctrl-C, or a file in the run's folder."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

__all__ = ["STOP_FILE", "StopRequest", "stop_request"]

STOP_FILE = "stop"
"""In the run's folder: who makes it asks all workers to save and leave."""
_LOOK_SECONDS = 2.0


class StopRequest:
    """Whether this process was asked to end. Ranks agree at the end of a step (`train.engine`)."""

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

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; a second one ends the process as ever."""
        self._signalled = True
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def stop_request(out: Path) -> Iterator[StopRequest]:
    """Listen to SIGTERM and SIGINT while the block runs, where the thread may."""
    request = StopRequest(out)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, request.on_signal) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
