"""Response to SIGTERM and SIGINT within seconds, whatever a training process is doing."""

import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from core.errors import Stopped

__all__ = ["SignalHandler", "signal_handler"]

_log = logging.getLogger(__name__)

_SAME_SIGNAL_SECONDS = 1.0
"""Signals within this time count as one: a launcher may forward a Ctrl-C that its workers got."""
_BLOCKED_SECONDS = 3.0
"""Time after which a main thread that has not seen a signal is blocked by a library."""
_UNWIND_SECONDS = 15.0
"""Time in which the main thread ends the block, and with it a local Ray, after a signal."""
_POLL_SECONDS = 0.5
"""Interval of the checks of these times."""
_AFTER_STEP = "the run ends after the current step with a checkpoint"
_AT_ONCE = "the run ends now: no step has ended since its start, so there is nothing to save"
_ENDED = "stopped before the first step of this start; the same command continues"
_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class _Interrupted(BaseException):
    """A signal ends the block. Not an Exception, which libraries may catch and ignore."""


class SignalHandler:
    """Handler of SIGTERM and SIGINT while a block runs (`signal_handler`).

    If a step has ended, a signal requests the end after the current step. If not, there is nothing
    to save, and the signal ends the block at once. A second signal ends the process.

    Python calls handlers in the main thread, but not while a library blocks it (an import, a
    collective call, a connection). Therefore a thread receives the numbers of signals from a pipe,
    decides, and ends the process itself if the main thread is blocked.
    """

    def __init__(self, request: Callable[[], None], has_progress: Callable[[], bool]) -> None:
        self._request, self._has_progress = request, has_progress
        self._decided, self._raised, self._closed = (threading.Event() for _ in range(3))
        self.ends_at_once = False
        """Whether a signal ends the block before the current step has ended."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.getsignal(number) for number in _NUMBERS}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        self.install()

    def install(self) -> None:
        """Install the handlers, at the start and after a library has installed its own."""
        for number in _NUMBERS:
            signal.signal(number, self._on_signal)

    def close(self) -> None:
        """Restore the handlers that were installed before."""
        self._closed.set()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        """Run in the main thread after a signal, once no library blocks it."""
        self._decided.wait(_BLOCKED_SECONDS)
        if self.ends_at_once and not self._raised.is_set():
            self._raised.set()
            raise _Interrupted

    def _watch(self) -> None:
        """Respond to the signals whose numbers arrive in the pipe."""
        number = self._next_signal(None)
        if number is None:
            return
        first = time.monotonic()
        self.ends_at_once = not self._has_progress()
        self._decided.set()
        if not self.ends_at_once:
            self._request()
        _log.warning(
            "%s: %s; a second signal ends the process",
            *(signal.Signals(number).name, _AT_ONCE if self.ends_at_once else _AFTER_STEP),
        )
        while not self._closed.is_set():
            again = self._next_signal(_POLL_SECONDS)
            seconds = time.monotonic() - first
            if again is not None and seconds > _SAME_SIGNAL_SECONDS:
                os._exit(128 + again)
            limit = _UNWIND_SECONDS if self._raised.is_set() else _BLOCKED_SECONDS
            if self.ends_at_once and seconds > limit:
                _log.warning("%s", _ENDED)
                os._exit(Stopped.exit_code)

    def _next_signal(self, timeout: float | None) -> int | None:
        """Return the number of the next signal; None without one, or if the handler is closed."""
        if not select.select([self._read], [], [], timeout)[0]:
            return None
        content = os.read(self._read, 1)
        return content[0] if content else None


@contextlib.contextmanager
def signal_handler(
    request: Callable[[], None], has_progress: Callable[[], bool]
) -> Iterator[SignalHandler | None]:
    """Respond to SIGTERM and SIGINT while the block runs, as `SignalHandler` describes.

    `request` requests the end after the current step; `has_progress` returns whether a step has
    ended in the block. Raises Stopped if a signal ended the block at once. Does nothing outside the
    main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    handler = SignalHandler(request, has_progress)
    try:
        yield handler
    except BaseException:
        if handler.ends_at_once:
            # The error is _Interrupted, or a library's answer to it.
            raise Stopped(_ENDED) from None
        raise
    finally:
        handler.close()
