"""The Blender child as a process: its process group, two pipes and a log file."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil

from core.failures import FailureKind
from core.paths.scratch import scratch_folder
from render.job import Request, encode

__all__ = ["Child"]

_LOG_TAIL_BYTES = 4096
_PROJECT = Path(__file__).parent.parent
_INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""Environment variables that a child inherits: none of them holds credentials."""
_KERNEL_CACHES = ("CUDA_CACHE_PATH", "OPTIX_CACHE_PATH", "XDG_CACHE_HOME")
"""Variables with the folders of compiled kernels, which must outlive the child and its HOME."""

_EXTERNAL_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM})
"""Signals that come from outside, from the kernel's OOM killer or an operator, not from a crash."""


class Child:
    """A running `render.blender.worker`. Not thread-safe."""

    def __init__(self, threads: int) -> None:
        self._scratch = scratch_folder("blender")
        self._log = Path(self._scratch.name) / "log.txt"
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        command = [sys.executable, "-m", "render.blender.worker"]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*command, *map(str, (os.getpid(), child_in, child_out, threads))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(child_in, child_out),
                env=self._environment(),
                cwd=self._scratch.name,
                process_group=0,
            )
        self._process_info = psutil.Process(self._process.pid)
        os.close(child_in)
        os.close(child_out)
        self._requests: IO[str] = open(to_child, "w")  # noqa: SIM115 - open as long as the child runs
        self._replies = from_child
        self._buffer = b""
        self._ended = False

    def _environment(self) -> dict[str, str]:
        scratch = self._scratch.name
        variables = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        cache = str(Path("~/.cache/lrm-kernels").expanduser())
        variables |= {name: os.environ.get(name, cache) for name in _KERNEL_CACHES}
        variables |= {"HOME": scratch, "TMPDIR": scratch, "PYTHONPATH": str(_PROJECT)}
        return variables | {"BLENDER_USER_RESOURCES": scratch, "PYTHONNOUSERSITE": "1"}

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return not self._ended and self._process.poll() is None

    def send(self, request: Request) -> None:
        """Send a request. If the child has ended, the next `poll` reports it."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(encode(request))
            self._requests.flush()

    def poll(self, seconds: float) -> str | None:
        """Return the child's next line, None if it sent none in time, "" if it has ended."""
        ready, _, _ = select.select([self._replies], [], [], seconds)
        if ready:
            block = os.read(self._replies, 1 << 16)
            if not block:
                self._ended = True
                return ""
            self._buffer += block
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        return line.decode()

    def memory(self) -> int:
        """Return the child's resident memory in bytes, 0 if it has ended.

        Blender starts no processes of its own. Searching for some would read the process table of
        the whole machine (13 ms with 80 processes) at every view and every poll.
        """
        with contextlib.suppress(psutil.Error):
            return self._process_info.memory_info().rss
        return 0

    def end_reason(self, name: str) -> tuple[FailureKind, str]:
        """Return the failure kind and a message, given what the child was doing when it ended."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return FailureKind.CRASH, f"Blender sent an incomplete answer during {name}"
        kind = FailureKind.KILLED if -code in _EXTERNAL_SIGNALS else FailureKind.CRASH
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return kind, f"Blender ended with {how} during {name}"

    def log_tail(self) -> str:
        """Return the end of Blender's output."""
        try:
            with open(self._log, "rb") as log:
                log.seek(max(0, self._log.stat().st_size - _LOG_TAIL_BYTES))
                return log.read(_LOG_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def log(self) -> str:
        """Return Blender's output since the last `clear_log`."""
        try:
            return self._log.read_text(errors="replace")
        except OSError:
            return ""

    def clear_log(self) -> None:
        """Empty the log, so that it holds the output about one object only."""
        with contextlib.suppress(OSError):
            os.truncate(self._log, 0)

    def kill(self) -> None:
        """Kill the whole process group, and remove the scratch folder."""
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            self._requests.close()
        os.close(self._replies)
        self._scratch.cleanup()
