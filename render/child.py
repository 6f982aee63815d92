"""The Blender child as a process: lines over its socket, a scratch folder and a log file."""

import contextlib
import os
import select
from pathlib import Path

from core.confined.child_process import PROJECT, ChildProcess, inherited_environment
from core.paths.scratch import scratch_folder
from render.job import Request, encode

__all__ = ["Child"]

_LOG_TAIL_BYTES, _LOG_BYTES, _LINE_BYTES = 4096, 1 << 24, 1 << 24
"""Most bytes that are read of the log's end, of the whole log, and of a line over the socket: a
child that a file has taken over may write without end."""
_KERNEL_CACHES = ("CUDA_CACHE_PATH", "OPTIX_CACHE_PATH", "XDG_CACHE_HOME")
"""Variables with the folders of compiled kernels, which must outlive the child and its HOME."""


class Child(ChildProcess):
    """A running `render.blender.worker`. Not thread-safe."""

    def __init__(self, threads: int) -> None:
        self._scratch = scratch_folder("blender")
        folder = self._scratch.name
        self._log = Path(folder) / "log.txt"
        try:
            with open(self._log, "ab") as log:
                environment = _environment(folder)
                super().__init__(
                    "render.blender.worker",
                    threads,
                    environment=environment,
                    folder=folder,
                    log=log,
                )
        except BaseException:
            self._scratch.cleanup()
            raise
        self._buffer = b""
        self._has_ended = False

    def is_alive(self) -> bool:
        """Return whether the child still runs and has not closed its socket."""
        return not self._has_ended and super().is_alive()

    def send(self, request: Request) -> None:
        """Send a request. If the child has ended, the next `poll` reports it."""
        with contextlib.suppress(ConnectionError):
            self.channel.sendall(encode(request).encode())

    def poll(self, seconds: float) -> str | None:
        """Return the child's next line, None if it sent none in time, "" if it has ended."""
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        if poller.poll(1000 * seconds):
            try:
                block = self.channel.recv(1 << 16)
            except ConnectionError:
                block = b""
            if not block or len(self._buffer) > _LINE_BYTES:
                self._has_ended = True
                return ""
            self._buffer += block
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        return line.decode(errors="replace")

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
            with open(self._log, "rb") as log:
                return log.read(_LOG_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def clear_log(self) -> None:
        """Empty the log, so that it holds the output about one object only."""
        with contextlib.suppress(OSError):
            os.truncate(self._log, 0)

    def kill(self) -> None:
        """Kill the whole process group, and remove the scratch folder."""
        self._has_ended = True
        super().kill()
        self._scratch.cleanup()


def _environment(scratch: str) -> dict[str, str]:
    cache = str(Path("~/.cache/lrm-kernels").expanduser())
    variables = inherited_environment("CUDA_VISIBLE_DEVICES")
    variables |= {name: os.environ.get(name, cache) for name in _KERNEL_CACHES}
    variables |= {"HOME": scratch, "TMPDIR": scratch, "PYTHONPATH": str(PROJECT)}
    return variables | {"BLENDER_USER_RESOURCES": scratch, "PYTHONNOUSERSITE": "1"}
