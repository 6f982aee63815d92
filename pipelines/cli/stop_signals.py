"""SIGINT and SIGTERM: a command reports its end within seconds, whatever it is doing."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

__all__ = ["StopSignals"]

REPORT_SECONDS = 1.5
"""Time in seconds after which a stop is reported although the command has not ended: Ray kills the
driver of a job three seconds after the signal."""
END_SECONDS = 5.0
"""Time in seconds after which the process ends although the main thread does not."""
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Raises KeyboardInterrupt in the main thread at SIGINT and at SIGTERM.

    The main thread receives a signal only between two steps of Python code: not while a library
    reads, writes or waits. A thread therefore calls `report` if the command has not reported its
    end in time, and later ends the process. A process that is killed leaves nothing that the next
    command does not handle.

    Another handler that the command sets, as a training run does, replaces all of this.
    """

    def __init__(self, report: Callable[[int], None], is_reported: threading.Event) -> None:
        """`report` receives the exit code; the command sets `is_reported` when it does the same."""
        self._report = report
        self._is_reported = is_reported
        self._has_ended = threading.Event()
        self._before: dict[int, Any] = {}
        self._fd_before = -1
        self._thread: threading.Thread | None = None
        self._received: int | None = None

    def __enter__(self) -> Self:
        """Set the handlers; outside the main thread, where Python allows none, do nothing."""
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            for number in _NUMBERS:
                # A signal that the starter of this process has disabled (`nohup`) stays disabled.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._raise)
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the handlers and end the thread."""
        if self._thread is None:
            return
        self._has_ended.set()
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._writer.send(b"\0")
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _watch(self) -> None:
        """Wait for signals, and bound the time until the command ends after one."""
        while number := self._reader.recv(1)[0]:
            if not self._ends_the_command(number):
                continue
            code = 128 + number
            if self._is_reported.wait(REPORT_SECONDS):
                return
            self._report(code)
            if not self._has_ended.wait(END_SECONDS - REPORT_SECONDS):
                os._exit(code)
            return

    def code_of(self, error: BaseException) -> int | None:
        """Return the exit code if the command ended with this error because of a signal, or None.

        Libraries may turn the error of the handler into another one.
        """
        # Ray's own handler of SIGTERM, which is set while Ray starts.
        is_of_ray = isinstance(error, SystemExit) and error.code == signal.SIGTERM
        number = signal.SIGTERM if is_of_ray else self._received
        if number is None and isinstance(error, KeyboardInterrupt):
            number = signal.SIGINT
        return None if number is None else 128 + number

    def _raise(self, number: int, _frame: Any) -> None:
        self._received = number
        raise KeyboardInterrupt

    def _ends_the_command(self, number: int) -> bool:
        """Return whether the present handler of a signal ends the command at once."""
        handler = signal.getsignal(number)
        is_of_ray = str(getattr(handler, "__module__", "")).startswith("ray.")
        return handler == self._raise or is_of_ray
