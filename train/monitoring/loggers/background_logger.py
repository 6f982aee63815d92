"""Calls of a logger in a thread of its own, so that it neither delays nor ends the training."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial

from PIL import Image

from core.errors import first_line
from train.monitoring.loggers.logger import Logger

__all__ = ["BackgroundLogger"]

_log = logging.getLogger(__name__)

_MAX_WAITING = 10_000
"""Calls that may wait for a slow program; later ones are dropped."""
_CLOSE_SECONDS = 60.0
"""Time in which the waiting calls are written at the end."""

_Call = Callable[[Logger], None]


class BackgroundLogger:
    """A logger whose calls return at once.

    Opening it and every call may fail or hang: its first error is a warning, and ends it.
    """

    def __init__(self, name: str, open_logger: Callable[[], Logger]) -> None:
        self._name, self._open = name, open_logger
        self._calls: queue.Queue[_Call | None] = queue.Queue(_MAX_WAITING)
        self._full = False
        # Daemon: a program that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a step by name."""
        self._put(lambda logger: logger.scalars(step, values))

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Log a picture of a step."""
        self._put(lambda logger: logger.picture(step, name, picture))

    def close(self, *, failed: bool, wait: bool = True) -> None:
        """Write the waiting calls, for a minute at most; without `wait`, return at once."""
        self._put(partial(_close, failed=failed))
        self._put(None)
        if not wait:
            return
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            _log.warning(
                "logger %s: does not respond; its last values are lost, metrics.jsonl has them",
                self._name,
            )

    def _put(self, call: _Call | None) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            if not self._full:
                _log.warning(
                    "logger %s: is too slow; some values are left out, metrics.jsonl has them",
                    self._name,
                )
            self._full = True

    def _work(self) -> None:
        try:
            logger = self._open()
            while (call := self._calls.get()) is not None:
                call(logger)
        except Exception as error:  # noqa: BLE001 - any error of a library that only shows curves
            _log.warning(
                "logger %s: its curves end here, the training continues: %s",
                *(self._name, first_line(error)),
            )
            while self._calls.get() is not None:
                pass


def _close(logger: Logger, *, failed: bool) -> None:
    logger.close(failed=failed)
