"""The stop file: an empty file `stop` in a run's folder requests its workers to save and end.

- Written by a person or a script (`touch RUN/stop`) to end the run, and by the driver of a run on
  Ray: at SIGTERM or Ctrl-C, or when the cluster has grown, to restart with more workers.
- Read by every training process at the end of a step (`stopping`), and by the driver while it waits
  for free slots and after the workers ended, to distinguish a requested end from a failure.
- Removed by the driver (under torchrun, by rank 0) at its start; by the driver also before a
  restart and at its end.

A file works for every kind of run: Ray does not forward the driver's signals to workers, and a Ray
actor would make the training loop depend on Ray. The driver and all workers share the run's folder,
and a person can write there without access to the processes. The cost is a delay of about two
seconds.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["StopFile"]

_NAME = "stop"


class StopFile:
    """The stop file of a run, and the requests that this process made with it."""

    def __init__(self, out: Path) -> None:
        """Create it for the run with the folder `out`; nothing is written."""
        self._path = out / _NAME
        self._stop_requested = False
        self._restart_requested = False

    def is_requested(self) -> bool:
        """Return whether the workers are requested to end, for any reason."""
        return self._stop_requested or self._path.exists()

    def is_for_restart(self) -> bool:
        """Return whether this process requested the workers to end only to restart them."""
        return self._restart_requested and not self._stop_requested

    def request_stop(self) -> None:
        """Request the workers to end for good, also if a restart was requested before."""
        self._stop_requested = True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()

    def request_restart(self) -> None:
        """Request the workers to end for a restart; an existing stop request has priority."""
        try:
            self._path.touch(exist_ok=False)
        except FileExistsError:
            return
        self._restart_requested = True

    @contextlib.contextmanager
    def removed(self) -> Iterator[None]:
        """Remove the file of an earlier start before the block, and that of this one after it."""
        self.remove()
        try:
            yield
        finally:
            self.remove()

    def remove(self) -> None:
        """Remove the file; a stop request of this process remains in effect."""
        self._restart_requested = False
        self._path.unlink(missing_ok=True)
