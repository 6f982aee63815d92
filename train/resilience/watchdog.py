"""Ends a process that hangs, so that whoever started it can start it again."""

import faulthandler
import logging
import os
import threading
import time
from pathlib import Path
from typing import Self

__all__ = ["HANG_EXIT_CODE", "Watchdog"]

_log = logging.getLogger(__name__)

HANG_EXIT_CODE = 75
"""EX_TEMPFAIL: trying again is worth it."""


class Watchdog:
    """Ends the process if no heartbeat arrives in time, and writes down every thread's stack.

    One hung rank makes all others wait for it, so each rank has its own: their files tell who waits
    in a collective and who hangs before it.
    """

    def __init__(self, seconds: float, folder: Path, rank: int) -> None:
        """`seconds` of silence are too long; 0 never are. Stacks go to a file in `folder`."""
        self._seconds = seconds
        self._folder = folder
        self._rank = rank
        self._heard = time.monotonic()
        self._doing = "starting"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def hear(self, doing: str) -> None:
        """The loop is alive, and goes on with this."""
        self._heard = time.monotonic()
        self._doing = doing

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._seconds / 4)):
            silent = time.monotonic() - self._heard
            if silent > self._seconds:
                self._give_up(silent)

    def _give_up(self, silent: float) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"rank-{self._rank}-{int(time.time())}.txt"
        with open(path, "w") as file:
            file.write(f"rank {self._rank}: {silent:.0f} s of silence while {self._doing}\n\n")
            file.flush()
            faulthandler.dump_traceback(file=file, all_threads=True)
        _log.error(
            "rank %d hung while %s: no progress for %.0f s; stacks are in %s",
            *(self._rank, self._doing, silent, path),
        )
        # No exception would reach a thread that waits in a collective.
        os._exit(HANG_EXIT_CODE)
