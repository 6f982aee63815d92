"""A child process of this project's code, which a socket connects with this process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import psutil

from core.failures import FailureKind

__all__ = ["PROJECT", "ChildProcess", "inherited_environment"]

PROJECT = Path(__file__).resolve().parent.parent.parent
"""The folder of the project's packages."""
_INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH")
"""Environment variables that a child inherits: none of them holds credentials."""
_KINDS = {
    # From outside: from the kernel's OOM killer, or an operator.
    signal.SIGKILL: FailureKind.KILLED,
    signal.SIGTERM: FailureKind.KILLED,
    # From the child's own timer, which ends it while its parent is stopped.
    signal.SIGALRM: FailureKind.TIMEOUT,
}
"""Failure kinds of the signals that are no crash."""
_END_SECONDS = 5.0
"""Time in which a child that has closed its socket must end."""


def inherited_environment(*names: str) -> dict[str, str]:
    """Return the environment of a child: the variables without secrets, and those named."""
    return {name: os.environ[name] for name in (*_INHERITED, *names) if name in os.environ}


class ChildProcess:
    """A running `python -m MODULE PARENT_PID ARGUMENTS`. Not thread-safe.

    Its standard input is one end of a socket pair, on which it sends, too. This works with any
    standard streams of this process, even closed ones. It has a process group of its own: Ctrl-C is
    for the parent only.
    """

    def __init__(
        self,
        module: str,
        *arguments: object,
        environment: Mapping[str, str],
        folder: str = "/",
        log: int | IO[bytes] = subprocess.DEVNULL,
    ) -> None:
        """Start it in a folder, with a file for its output. Raises OSError."""
        self.channel, child_end = socket.socketpair()
        try:
            with child_end:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, str(os.getpid()), *map(str, arguments)],
                    stdin=child_end.fileno(),
                    stdout=log,
                    stderr=log,
                    env=dict(environment),
                    cwd=folder,
                    process_group=0,
                )
            self._process_info = self._find_process()
        except BaseException:
            self.channel.close()  # a child that has started ends
            raise

    def _find_process(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.Error):  # it has ended already
            return psutil.Process(self._process.pid)
        return None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Return whether the child still runs."""
        return self._process.poll() is None

    def memory(self) -> int:
        """Return the child's resident memory in bytes, 0 if it has ended.

        The children start no processes of their own. Searching for some would read the process
        table of the whole machine (13 ms with 80 processes) at every poll.
        """
        if self._process_info is not None:
            with contextlib.suppress(psutil.Error):
                return self._process_info.memory_info().rss
        return 0

    def end_reason(self, subject: str, during: str) -> tuple[FailureKind, str]:
        """Return the failure kind and a message for a child that ended while it did something."""
        try:
            code = self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            return FailureKind.CRASH, f"{subject} sent an incomplete answer during {during}"
        ending = signal.Signals(-code) if code < 0 else None
        how = f"exit code {code}" if ending is None else f"signal {ending.name}"
        kind = FailureKind.CRASH if ending is None else _KINDS.get(ending, FailureKind.CRASH)
        return kind, f"{subject} ended with {how} during {during}"

    def kill(self) -> None:
        """Kill the whole process group, and close the socket."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.channel.close()
