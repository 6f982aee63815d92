"""SIGINT and SIGTERM: a process answers within seconds, whatever its main thread does."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

__all__ = ["SignalWatch", "before_forced_end", "call_within"]

NUMBERS = (signal.SIGINT, signal.SIGTERM)
REPORT_SECONDS = 1.5
"""Time after a signal at which the end is reported although the block has not ended: Ray kills the
driver of a job three seconds after the signal."""
END_SECONDS = 4.0
"""Time after a signal at which the process ends although the block has not ended: the promise is an
end within five seconds."""
_SAME_SIGNAL_SECONDS = 1.0
"""Signals within this time count as one: a launcher may forward a Ctrl-C that its workers got."""
_POLL_SECONDS = 0.1
"""Interval of the checks of these times."""
_RESPONSE_SECONDS = 1.0
"""Time that the end of the block waits for the response to a signal."""

_end_functions: list[Callable[[int], None]] = []
"""What is called before a signal ends the process, the last one first."""


@contextlib.contextmanager
def before_forced_end(function: Callable[[int], None]) -> Iterator[None]:
    """Call `function` with the exit code if a signal ends the process while the block runs.

    It is called in a thread, and before the process ends: the block may end normally after it.
    """
    _end_functions.append(function)
    try:
        yield
    finally:
        _end_functions.remove(function)


def call_within(seconds: float, function: Callable[[], object]) -> None:
    """Call a function that may block, such as a write; return after `seconds` at the latest."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)


class SignalWatch:
    """Handles SIGINT and SIGTERM while a block runs.

    Python calls `in_main_thread` in the main thread, but not while a library blocks it. A thread
    therefore receives the numbers of the signals from a pipe. It calls `respond` in a thread of its
    own, because storage may block that, too. `respond` may call `end_soon`. With
    `second_ends_process`, a second signal ends the process, and a third does not wait for the
    functions of `before_forced_end`.

    A signal that the starter of this process has disabled (`nohup`) stays disabled. Outside the
    main thread, where Python allows no handlers, nothing is done. Blocks may be nested: the
    innermost one receives the signals.
    """

    def __init__(
        self,
        in_main_thread: Callable[[int], None],
        respond: Callable[[int], None],
        *,
        second_ends_process: bool,
    ) -> None:
        self._in_main_thread, self._respond = in_main_thread, respond
        self._second_ends_process = second_ends_process
        self._before: dict[int, Any] = {}
        self._fd_before = -1
        self._closed = False
        self._code: int | None = None
        self._is_unneeded: Callable[[], bool] = lambda: False
        self._end_time = 0.0
        self._first: float | None = None
        self._response: threading.Thread | None = None
        self._report: threading.Thread | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Set the handlers and start the thread."""
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._fd_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            for number in NUMBERS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self.handler)
            self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
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
        self._closed = True
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        with contextlib.suppress(BlockingIOError):  # full, so the thread is awake
            os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)
        if self._response is not None:
            self._response.join(_RESPONSE_SECONDS)
        if self._report is not None:
            self._report.join()

    @property
    def has_received(self) -> bool:
        """Whether a signal has arrived."""
        return self._first is not None

    def handler(self, number: int, _frame: Any) -> None:
        """Handle a signal in the main thread."""
        self._in_main_thread(number)

    def end_soon(self, code: int, *, is_unneeded: Callable[[], bool] = lambda: False) -> None:
        """Report the end after 1.5 seconds, and end the process after 4 with this exit code.

        The end of the block cancels both, and so does `is_unneeded` if it returns true after the
        1.5 seconds.
        """
        self._is_unneeded = is_unneeded
        self._code = code

    def _watch(self) -> None:
        """Respond to the signals whose numbers arrive in the pipe."""
        while not self._closed:
            waiting = None if self._first is None else _POLL_SECONDS
            if select.select([self._reader], [], [], waiting)[0]:
                for number in os.read(self._reader, 64):
                    self._receive(number)
            if not self._closed and self._code is not None:
                self._report_or_end(self._code)

    def _receive(self, number: int) -> None:
        if number not in self._before or self._closed:
            return
        now = time.monotonic()
        if self._first is None or not self._second_ends_process:
            if self._code is None:
                self._first = now
                self._response = threading.Thread(
                    target=self._respond, args=(number,), name="signal", daemon=True
                )
                self._response.start()
        elif now - self._first > _SAME_SIGNAL_SECONDS:
            if self._end_time:  # a third one
                os._exit(128 + number)
            self._code, self._end_time = 128 + number, now
            self._start_report(self._code)

    def _report_or_end(self, code: int) -> None:
        """Report the end or end the process if it is time."""
        assert self._first is not None
        now = time.monotonic()
        if self._report is None:
            if now - self._first < REPORT_SECONDS:
                return
            if self._is_unneeded():
                self._code = None
                self._first = None
                return
            self._start_report(code)
        end_time = self._end_time or self._first + END_SECONDS
        if now >= end_time and self._report is not None and not self._report.is_alive():
            os._exit(code)

    def _start_report(self, code: int) -> None:
        if self._report is None:
            self._report = threading.Thread(target=_call_end_functions, args=(code,), daemon=True)
            self._report.start()


def _call_end_functions(code: int) -> None:
    for function in reversed(_end_functions):
        with contextlib.suppress(Exception):  # the process must end
            function(code)
