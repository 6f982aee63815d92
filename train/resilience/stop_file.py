"""The stop file: an empty file `stop` in a run's folder asks all its workers to save and end.

Written: by a person or a script (`touch RUN/stop`) to end the run; by the driver of a run on Ray at
SIGTERM or Ctrl-C, and, to restart on more workers, when the cluster has grown.
Read: by every training process at the ends of steps (`stopping`), and by the driver after the
workers ended and while it waits for slots, to tell the end of the run from a failure.
Removed: by the driver (under torchrun, by rank 0) at its start, by the driver also before a restart
and at its end.

It is a file because nothing else reaches the workers of every kind of run. Ray passes no signal of
the driver on to workers, and a Ray actor would need Ray in the training loop, which also runs
without it. The driver and all workers share the run's folder anyway (metrics and ownership lie
there), and a person can use it without access to the processes. The price: a request takes effect
about two seconds later.
"""

from pathlib import Path

__all__ = ["StopFile"]

_NAME = "stop"


class StopFile:
    """The stop file of a run, and what this process itself requested by it."""

    def __init__(self, out: Path) -> None:
        """`out` is the run's folder."""
        self._path = out / _NAME
        self._stop_requested = False
        self._restart_requested = False

    def is_requested(self) -> bool:
        """Return whether the workers are asked to end, for whatever reason."""
        return self._stop_requested or self._path.exists()

    def is_for_restart(self) -> bool:
        """Return whether this process asked the workers to end only to restart them."""
        return self._restart_requested and not self._stop_requested

    def request_stop(self) -> None:
        """Ask the workers to end for good, also if a restart was requested."""
        self._stop_requested = True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()

    def request_restart(self) -> None:
        """Ask the workers to end, to be restarted; a request to stop that is there stays one."""
        try:
            self._path.touch(exist_ok=False)
        except FileExistsError:
            return
        self._restart_requested = True

    def remove(self) -> None:
        """Remove the file; a stop that this process requested stays requested."""
        self._restart_requested = False
        self._path.unlink(missing_ok=True)
