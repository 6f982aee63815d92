"""The Blender child as the operating system sees it: a process group, two pipes and a log."""

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
from render.job import Request, encode
from render.scratch import scratch_folder

__all__ = ["Child"]

_LOG_TAIL = 4096
_PROJECT = Path(__file__).parent.parent
_PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""What a child inherits of the environment: no credentials."""
_KERNEL_CACHES = ("CUDA_CACHE_PATH", "OPTIX_CACHE_PATH", "XDG_CACHE_HOME")
"""Where drivers and Cycles keep compiled kernels: kept beyond the child, which has its own HOME."""

_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM})
"""Signals that no program sends itself by a fault: the kernel short of memory, or an operator."""


class Child:
    """A running `render.blender.worker`. Not for several threads."""

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
        self._watched = psutil.Process(self._process.pid)
        os.close(child_in)
        os.close(child_out)
        self._requests: IO[str] = open(to_child, "w")  # noqa: SIM115 - lives as long as the child
        self._replies = from_child
        self._buffer = b""
        self._ended = False

    def _environment(self) -> dict[str, str]:
        scratch = self._scratch.name
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        cache = str(Path("~/.cache/lrm-kernels").expanduser())
        kept |= {name: os.environ.get(name, cache) for name in _KERNEL_CACHES}
        own = {"HOME": scratch, "TMPDIR": scratch, "PYTHONPATH": str(_PROJECT)}
        return kept | own | {"BLENDER_USER_RESOURCES": scratch, "PYTHONNOUSERSITE": "1"}

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return not self._ended and self._process.poll() is None

    def send(self, request: Request) -> None:
        """Send a request; a child that is gone shows at the next poll."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(encode(request))
            self._requests.flush()

    def poll(self, seconds: float) -> str | None:
        """The next line of the child, None if there is none yet, an empty one if it ended."""
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
        """Resident bytes of the child, 0 if it is gone.

        Blender starts no processes, and to look for some means to read those of the whole machine:
        13 ms where there are 80, at every view and every poll.
        """
        with contextlib.suppress(psutil.Error):
            return self._watched.memory_info().rss
        return 0

    def end_reason(self, name: str) -> tuple[FailureKind, str]:
        """How the child ended: by itself, or killed by the system or somebody."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return FailureKind.CRASH, f"Blender broke off its answer during {name}"
        kind = FailureKind.KILLED if -code in _FROM_OUTSIDE else FailureKind.CRASH
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return kind, f"Blender ended with {how} during {name}"

    def log_tail(self) -> str:
        """The end of what Blender printed."""
        try:
            with open(self._log, "rb") as log:
                log.seek(max(0, self._log.stat().st_size - _LOG_TAIL))
                return log.read(_LOG_TAIL).decode(errors="replace")
        except OSError:
            return ""

    def log(self) -> str:
        """All that Blender printed since the last `forget_log`."""
        try:
            return self._log.read_text(errors="replace")
        except OSError:
            return ""

    def forget_log(self) -> None:
        """Begin a new log: what was printed about one object does not explain the next."""
        with contextlib.suppress(OSError):
            os.truncate(self._log, 0)

    def kill(self) -> None:
        """End the whole process group, and clean up."""
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            self._requests.close()
        os.close(self._replies)
        self._scratch.cleanup()
