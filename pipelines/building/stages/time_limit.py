"""The time limit of one piece of work in this process, which may hang in Python or in a library."""

import contextlib
import faulthandler
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

__all__ = ["TimeLimitReached", "margin", "time_limit"]

_REPEAT_SECONDS = 5.0
"""Interval of further interruptions: Python drops an exception that a destructor raises."""
_STDERR = 2


class TimeLimitReached(BaseException):
    """The work took too long. Not an `Exception`: code that retries must not catch it."""


def margin(seconds: float) -> float:
    """Return the additional seconds after which the next, harder measure against a hang follows."""
    return max(1.0, seconds / 10)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitReached in the block after this many seconds; end the process if that fails.

    The exception interrupts Python code and system calls of the main thread. It cannot interrupt a
    library that computes. `margin(seconds)` later, a thread that needs no interpreter lock writes
    all stacks to standard error and ends the process with code 1. The kernel then kills its Blender
    child.
    """
    is_main = threading.current_thread() is threading.main_thread()
    faulthandler.dump_traceback_later(seconds + margin(seconds), exit=True, file=_STDERR)
    try:
        with _alarm(seconds) if is_main else contextlib.nullcontext():
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    handler = signal.signal(signal.SIGALRM, _interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT_SECONDS)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        # Again, because an alarm at the end of the block interrupts the line above, too.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)  # None is one of a library
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimeLimitReached
