"""The state of a run: which process trains in its folder, and how its last start ended.

The launcher (the driver on Ray, rank 0 under torchrun) records itself in a file of the run's folder
and renews the time in it. So `lrm train --status` tells a run that is running from one that was
killed, also from another machine, and a second start in the same folder is refused.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter

from core.atomic import atomic_write
from core.config import PositiveInt
from core.errors import BadInput, cannot_write, first_line
from core.monitoring.notify import outcome_of
from core.paths.regular_file import read_regular
from core.process_identity import has_ended, kernel_scope, start_ticks
from core.signal_watch import before_forced_end, call_within
from train.monitoring.metrics_log import last_metrics
from train.monitoring.run_file import known_run

__all__ = ["STATE_FILE", "RunState", "StartProgress", "StateRecord", "read_state"]

_log = logging.getLogger(__name__)

STATE_FILE = "run_state.json"
_HEARTBEAT_SECONDS = 10.0
"""Interval at which the launcher renews its record."""
_SILENT_SECONDS = 60.0
"""Age of the record of a launcher on another machine after which it counts as dead. The clocks of
the machines must agree to within half of this."""

_LAST_WRITE_SECONDS = 1.0
"""Time for the last record of a process that a signal ends."""

State = Literal["starting", "running", "done", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class StateRecord:
    """The launcher of a start, and how far the start is."""

    state: State
    message: str = ""
    """Why it ended, in one line."""
    host: str
    pid: PositiveInt
    kernel: str
    started: str
    """`kernel` and `started` identify the process on its machine, see `core.process_identity`."""
    since: str
    time: Annotated[float, Field(allow_inf_nan=False)]
    """Time of this record in seconds since 1970."""

    @property
    def is_active(self) -> bool:
        """Whether no end is recorded."""
        return self.state in ("starting", "running")

    def has_vanished(self) -> bool:
        """Return whether the process has ended without recording its end."""
        if not self.is_active or has_ended(self.pid, self.kernel, self.started):
            return self.is_active
        return not self._is_local() and time.time() - self.time > _SILENT_SECONDS

    def _is_local(self) -> bool:
        return bool(self.kernel) and self.kernel == kernel_scope()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def read_state(out: Path) -> StateRecord | None:
    """Return the record in a run's folder; None without one, as of an older version.

    A damaged record is a warning: a launcher that runs renews it soon.
    """
    path = out / STATE_FILE
    try:
        return TypeAdapter(StateRecord).validate_json(read_regular(path), strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        problem = "no record of a launcher" if isinstance(error, ValueError) else error.strerror
        _log.warning("warning: %s: damaged: the launcher is not known: %s", path, problem)
        return None


class StartProgress:
    """Whether the newest start of a run's workers has finished a step."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.num_restarts = -1
        """Number of times that this process has started the workers again."""
        self.restart()

    def restart(self) -> None:
        """Count from the next start of the workers."""
        self.num_restarts += 1
        self._before = _start_time(self._out)
        self._has_steps = False

    def has_steps(self) -> bool:
        """Return whether a step has ended; reads the two files that rank 0 writes."""
        if not self._has_steps and _start_time(self._out) != self._before:
            # Rank 0 removes the lines of repeated steps before it writes the record of its start.
            run, last = known_run(self._out), last_metrics(self._out)
            self._has_steps = bool(run and last and last["step"] > run["first_step"])
        return self._has_steps


class RunState:
    """The claim of this process on a run's folder while a block runs, renewed by a thread."""

    def __init__(self, out: Path, progress: StartProgress) -> None:
        self._out, self._progress = out, progress
        self._ended = threading.Event()
        self._forced_end = before_forced_end(self._record_forced_end)
        self._thread = threading.Thread(target=self._renew, name="run state", daemon=True)

    def __enter__(self) -> Self:
        """Record this process.

        Raises BadInput if another one trains in the folder, or the folder cannot be written.
        """
        holder = read_state(self._out)
        if holder is not None and holder.is_active and self._is_alive(holder):
            raise BadInput(
                f"--out {self._out}: another command trains here ({holder}): wait for it, stop it "
                f"(touch {self._out}/stop), or give another --out"
            )
        pid = os.getpid()
        self._record = StateRecord(
            state="starting",
            host=socket.gethostname(),
            pid=pid,
            kernel=kernel_scope(),
            started=start_ticks(pid),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            time=time.time(),
        )
        try:
            self._write()
        except OSError as error:
            raise cannot_write(f"--out {self._out}: cannot write here", error) from None
        self._thread.start()
        self._forced_end.__enter__()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._forced_end.__exit__(None, None, None)
        self._ended.set()
        self._thread.join()
        outcome = "done" if error is None else outcome_of(error)
        state: State = "failed" if outcome == "refused" else outcome
        message = "" if error is None else first_line(error)
        self._record = replace(self._record, state=state, message=message)
        self._write_if_possible()

    def _is_alive(self, holder: StateRecord) -> bool:
        """Return whether the holder still runs: at once for this machine, else by its heartbeat."""
        if holder.has_vanished():
            return False
        if holder._is_local():
            return True
        _log.warning("%s: waiting for a sign of life of %s", self._out, holder)
        deadline = time.monotonic() + 3 * _HEARTBEAT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = read_state(self._out)
            if now is None or not now.is_active:
                return False
            if now.time != holder.time:
                return True
        return False

    def _record_forced_end(self, _code: int) -> None:
        """Record the end before a signal ends the process; the storage may not respond."""
        self._ended.set()
        self._record = replace(self._record, state="stopped", message="ended by a signal")
        call_within(_LAST_WRITE_SECONDS, self._write_if_possible)

    def _renew(self) -> None:
        while not self._ended.wait(_HEARTBEAT_SECONDS):
            state: State = "running" if self._progress.has_steps() else "starting"
            self._record = replace(self._record, state=state, time=time.time())
            self._write_if_possible()

    def _write_if_possible(self) -> None:
        # A full disk must not end the run; the next heartbeat tries again.
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        atomic_write(self._out / STATE_FILE, json.dumps(asdict(self._record), indent=1))


def _start_time(out: Path) -> Any:
    run = known_run(out)
    return run["started"] if run else None
