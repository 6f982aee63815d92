"""Response to SIGTERM and SIGINT within seconds, whatever a training process is doing."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

from core.errors import Stopped
from core.signal_watch import SignalWatch, call_within

__all__ = ["signal_handler"]

_log = logging.getLogger(__name__)

_DECISION_SECONDS = 1.0
"""Time in which the run's folder is read to find out whether a step has ended."""
_AFTER_STEP = "the run ends after the current step with a checkpoint"
_AT_ONCE = "the run ends now: no step has ended since its start, so there is nothing to save"
_ANSWER = "%s: %s; a second signal ends the process; the same command continues"
_ENDED = "stopped before the first step of this start; the same command continues"


class _Interrupted(KeyboardInterrupt):
    """A signal ends the block. Not an Exception, which libraries may catch and ignore."""


class _TrainSignals:
    """The response to signals while a block of a training runs.

    If a step has ended, a signal requests the end after the current step. If not, there is nothing
    to save, and the signal ends the block at once. A second signal ends the process.
    """

    def __init__(self, request: Callable[[], None], has_progress: Callable[[], bool]) -> None:
        self._request, self._has_progress = request, has_progress
        self._decided = threading.Event()
        self._ends_at_once = self._raised = False
        self.watch = SignalWatch(self._interrupt, self._respond, second_ends_process=True)

    def ended_block(self, error: BaseException) -> bool:
        """Return whether an error is that of a signal, or a library's answer to it."""
        if not isinstance(error, Exception):
            # Ray raises SystemExit at SIGTERM while it starts.
            self._decided.wait(2 * _DECISION_SECONDS if self.watch.has_received else 0)
        return self._ends_at_once

    def _interrupt(self, _number: int) -> None:
        """Run in the main thread after a signal, once no library blocks it."""
        self._decided.wait(2 * _DECISION_SECONDS)
        if self._ends_at_once and not self._raised:
            self._raised = True
            raise _Interrupted(_ENDED)

    def _respond(self, number: int) -> None:
        """Answer the first signal. Reading and writing the run's folder may fail or hang."""
        self._ends_at_once = not self._may_have_progress()
        if self._ends_at_once:
            self.watch.end_soon(Stopped.exit_code)
        self._decided.set()
        reaction = _AT_ONCE if self._ends_at_once else _AFTER_STEP
        _log.warning(_ANSWER, signal.Signals(number).name, reaction)
        if not self._ends_at_once:
            try:
                self._request()
            except OSError as error:
                _log.warning(
                    "cannot write the stop file: %s; a second signal ends the process", error
                )

    def _may_have_progress(self) -> bool:
        """Return whether a step has ended; True if that cannot be read in time."""
        answers: list[bool] = []

        def read() -> None:
            with contextlib.suppress(OSError):
                answers.append(self._has_progress())

        call_within(_DECISION_SECONDS, read)
        return answers[0] if answers else True


@contextlib.contextmanager
def signal_handler(request: Callable[[], None], has_progress: Callable[[], bool]) -> Iterator[None]:
    """Respond to SIGTERM and SIGINT while the block runs.

    `has_progress` returns whether a step has ended in the block. If so, the first signal calls
    `request`, to request the end after the current step. If not, it ends the block at once, within
    five seconds, and Stopped is raised. A second signal ends the process.
    """
    signals = _TrainSignals(request, has_progress)
    with signals.watch:
        try:
            yield
        except BaseException as error:
            if signals.ended_block(error):
                raise Stopped(_ENDED) from None
            raise
