"""A confined process that calls functions on untrusted bytes, with limits on time and memory.

Decoders and parsers of strangers' files run in it. A file that crashes, stops or takes over the
child costs only that call: the answer is JSON and bytes of a limited size, and the next call gets
a new child.
"""

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from core.confined.child_process import PROJECT, ChildProcess, inherited_environment
from core.confined.wire import TooLarge, receive, send
from core.failures import FailureKind, StageFailed

__all__ = ["ConfinedFailure", "ConfinedProcess"]

_START_SECONDS = 60.0
_POLL_SECONDS = 0.05
"""Seconds between two measurements of the child's memory."""
_MAX_STEP_SECONDS = 1.0
"""Longest time between two measurements that counts."""
_MAX_JSON = 8 << 20
"""Bytes of the JSON part of an answer."""
_MAX_TEXT = 4096
"""Characters of a failure's message, and of its log."""
_RECYCLE_BYTES = 512 << 20
"""Resident memory of an idle child above which the next call gets a new one."""
_OF_FORMER_CALLS = frozenset({FailureKind.CRASH, FailureKind.OUT_OF_MEMORY})
"""Failures that what a former call left behind may cause."""


class ConfinedFailure(StageFailed):
    """A call failed: `kind` is `timeout`, `out_of_memory`, `crash`, `killed` or `no_start`, or the
    function's own failure; `too_large` is an answer beyond the limit, `storage` an OSError and
    `internal_error` any other error, by its name."""


class ConfinedProcess:
    """A child that is started at the first call, and replaced after a failure.

    Threads may share it: their calls wait for each other. After a fork, each process has a child of
    its own. The kernel kills the child when the thread that started it ends.
    """

    def __init__(self, name: str) -> None:
        """Start nothing yet; `name` is the subject of messages."""
        self._name = name
        self._child: ChildProcess | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of the child, None if there is no child."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """Kill the child, if there is one."""
        if self._child is not None and self._owner == os.getpid():
            self._child.kill()
        self._child = None

    def run(
        self,
        function: str,
        *arguments: Any,
        data: bytes | bytearray | memoryview | None = None,
        seconds: float,
        max_bytes: int,
        max_answer: int = 0,
    ) -> tuple[Any, bytearray]:
        """Call a function, named `MODULE:NAME`, in the child; return its value and its bytes.

        The function gets the arguments, which are JSON values, and `data` as a memoryview. It
        returns a JSON value and bytes, of which there may be `max_answer`. `max_bytes` limits the
        child's resident memory. Raises ConfinedFailure.
        """
        request = {
            "function": function,
            "arguments": arguments,
            "has_data": data is not None,
            "seconds": seconds,
            "max_bytes": max_bytes,
        }
        if self._owner != os.getpid():
            # The child and the lock belong to the process that this one was forked from.
            self._child, self._owner, self._lock = None, os.getpid(), threading.Lock()
        with self._lock:
            was_used = self._has_usable_child()
            try:
                return self._call(request, data or b"", max_answer)
            except ConfinedFailure as error:
                if not was_used or error.kind not in _OF_FORMER_CALLS:
                    raise
            return self._call(request, data or b"", max_answer)

    def _has_usable_child(self) -> bool:
        """Return whether there is a child for the next call; ends one that has grown."""
        child = self._child
        if child is None or (child.is_alive() and child.memory() <= _RECYCLE_BYTES):
            return child is not None
        self.close()
        return False

    def _call(
        self, request: dict[str, Any], data: bytes | bytearray | memoryview, max_answer: int
    ) -> tuple[Any, bytearray]:
        """Send a request and return the answer. Raises ConfinedFailure."""
        child = self._child or self._start()
        seconds = request["seconds"]
        wait = self._waiting(child, seconds, request["max_bytes"])
        try:
            child.channel.settimeout(seconds)
            send(child.channel, request, data)
            answer, result = receive(child.channel, wait, _MAX_JSON, max_answer)
            failure = _failure_in(answer)
        except TooLarge as error:
            message = f"the answer of {self._name} is too large: {error}"
            raise self._failure(FailureKind.TOO_LARGE, message) from None
        except TimeoutError:
            message = f"{self._name} took more than {seconds:g} s"
            raise self._failure(FailureKind.TIMEOUT, message) from None
        except (EOFError, OSError):
            reason = child.end_reason("the confined process", self._name)
            raise self._failure(*reason) from None
        except BaseException:
            self.close()  # the child is still at work
            raise
        if failure is None:
            return answer["value"], result
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            raise self._failure(failure.kind, f"{self._name}: {failure.message}")
        raise failure

    def _start(self) -> ChildProcess:
        """Start a child and wait until it is ready. Raises ConfinedFailure (`no_start`)."""
        try:
            child = ChildProcess("core.confined.serve", environment=_environment())
        except (OSError, subprocess.SubprocessError) as error:
            message = f"a process for {self._name} does not start: {error}"
            raise ConfinedFailure(FailureKind.NO_START, message) from None
        self._child = child
        try:
            wait = self._waiting(child, _START_SECONDS, sys.maxsize)
            receive(child.channel, wait, _MAX_JSON, 0)
        except (EOFError, OSError, TooLarge):
            _, message = child.end_reason(f"the process for {self._name}", "its start")
            raise self._failure(FailureKind.NO_START, message) from None
        except BaseException:
            self.close()  # its first message was not read
            raise
        return child

    def _waiting(self, child: ChildProcess, seconds: float, max_bytes: int) -> Callable[[], None]:
        """Return a function that waits for bytes of the child, within the limits of a call."""
        poller = select.poll()  # select() takes no file descriptor above 1023
        poller.register(child.channel, select.POLLIN)
        left, now = seconds, time.monotonic()

        def wait() -> None:
            nonlocal left, now
            is_ready: object = False
            while not is_ready:
                is_ready = poller.poll(1000 * _POLL_SECONDS)
                # The time in which this process is stopped, as by Ctrl-Z, does not count.
                before, now = now, time.monotonic()
                left -= min(now - before, _MAX_STEP_SECONDS)
                if left < 0:
                    raise TimeoutError
                if (used := child.memory()) > max_bytes:
                    limit = f"the limit is {max_bytes >> 20} MiB"
                    message = f"{self._name} used {used >> 20} MiB; {limit}"
                    raise self._failure(FailureKind.OUT_OF_MEMORY, message)

        return wait

    def _failure(self, kind: FailureKind, message: str) -> ConfinedFailure:
        """End the child, and return the failure."""
        self.close()
        return ConfinedFailure(kind, message)


def _failure_in(answer: Any) -> ConfinedFailure | None:
    """Return the failure that an answer reports. Raises EOFError if it is not a valid answer."""
    try:
        if isinstance(answer, dict) and "value" in answer:
            return None
        kind = FailureKind.from_name(answer["kind"])
        message, log = str(answer["message"])[:_MAX_TEXT], answer.get("log")
        return ConfinedFailure(kind, message, None if log is None else str(log)[:_MAX_TEXT])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EOFError("the answer has no known form") from None


def _environment() -> dict[str, str]:
    """Return the child's environment: no secrets, one thread, and the modules of this process."""
    folders = [path for path in sys.path if Path(path).is_absolute()]
    if str(PROJECT) not in folders:
        folders.insert(0, str(PROJECT))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    modules = {"PYTHONPATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1"}
    return inherited_environment() | threads | modules | {"HOME": "/"}
