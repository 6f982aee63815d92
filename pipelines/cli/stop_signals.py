"""SIGINT and SIGTERM: a command reports its end within seconds, whatever it is doing."""

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from core.signal_watch import SignalWatch, before_forced_end

__all__ = ["StopSignals"]


class StopSignals:
    """Raises KeyboardInterrupt in the main thread at SIGINT and at SIGTERM.

    If a library blocks the main thread, `report` is called and the process ends, as `SignalWatch`
    describes. A process that is killed leaves nothing that the next command does not handle.

    Another handler that the command sets, as a training run does, replaces all of this except that
    `report` is called before the process ends.
    """

    def __init__(self, report: Callable[[int], None], is_reported: threading.Event) -> None:
        """`report` receives the exit code; the command sets `is_reported` when it does the same."""
        self._report = report
        self._is_reported = is_reported
        self._stack = ExitStack()
        self._watch = SignalWatch(self._raise, self._respond, second_ends_process=False)
        self._received: int | None = None

    def __enter__(self) -> Self:
        """Set the handlers; outside the main thread, where Python allows none, do nothing."""
        self._stack.enter_context(before_forced_end(self._report))
        self._stack.enter_context(self._watch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the handlers and end the thread."""
        self._stack.close()

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

    def _raise(self, number: int) -> None:
        self._received = number
        raise KeyboardInterrupt

    def _respond(self, number: int) -> None:
        """Limit the time until the command ends, unless another handler continues it."""
        handler = signal.getsignal(number)
        is_of_ray = str(getattr(handler, "__module__", "")).startswith("ray.")
        if handler == self._watch.handler or is_of_ray:
            self._watch.end_soon(128 + number, is_unneeded=self._is_reported.is_set)
