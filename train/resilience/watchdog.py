"""Watchdog that ends a hung rank, so that the launcher can restart the run."""

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
"""Exit code of a hung rank: EX_TEMPFAIL of sysexits.h, a temporary failure."""


class Watchdog:
    """Thread that ends the process if no heartbeat arrives in time.

    It writes the stacks of all threads to a file first. If one rank hangs, all others wait for it.
    So each rank has its own watchdog: the stack files show which ranks wait in a collective call
    and which rank hangs before it.
    """

    def __init__(self, seconds: float, folder: Path, rank: int) -> None:
        """Create a watchdog that allows `seconds` between two heartbeats; 0 disables it.

        Stacks are written to a file in `folder`.
        """
        self._seconds = seconds
        self._folder = folder
        self._rank = rank
        self._last_heartbeat = time.monotonic()
        self._activity = "starting"
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

    def heartbeat(self, activity: str) -> None:
        """Record that the loop is alive, and its next activity, such as "in step 5"."""
        self._last_heartbeat = time.monotonic()
        self._activity = activity

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._seconds / 4)):
            seconds = time.monotonic() - self._last_heartbeat
            if seconds > self._seconds:
                self._end_process(seconds)

    def _end_process(self, seconds: float) -> None:
        """Write all stacks and end the process; `seconds` have passed since the last heartbeat."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"rank-{self._rank}-{int(time.time())}.txt"
        with open(path, "w") as file:
            file.write(
                f"rank {self._rank}: no heartbeat for {seconds:.0f} s while {self._activity}\n\n"
            )
            file.flush()
            faulthandler.dump_traceback(file=file, all_threads=True)
        _log.error(
            "rank %d hung while %s: no progress for %.0f s; its stacks are in %s",
            *(self._rank, self._activity, seconds, path),
        )
        # An exception cannot reach a thread that waits in a collective call.
        os._exit(HANG_EXIT_CODE)
