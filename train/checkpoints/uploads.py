"""Sends a checkpoint's files to an object store while training goes on."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from core.retry import Backoff, retry
from core.storage import Storage, storage_errors

__all__ = ["Upload"]

_log = logging.getLogger(__name__)

_ATTEMPTS = 6
_BACKOFF = Backoff(first_seconds=1.0)
_ALL_SECONDS = 3600.0
_LOOK_SECONDS = 1.0


class Upload:
    """One checkpoint on its way: this rank's files, and on rank 0 the manifest after all others'.

    A store shows an object only when it is whole, so rank 0 knows by the sizes that all are there.
    """

    def __init__(
        self,
        storage: Storage,
        folder: str,
        own: Mapping[str, Path],
        finish: Callable[[], None] | None,
        sizes: Mapping[str, int],
    ) -> None:
        """`own`: this rank's files by name. Rank 0's `finish` runs once all `sizes` are there."""
        self._storage, self._folder = storage, folder
        self._own, self._finish, self._sizes = own, finish, sizes
        self.problem = ""
        """Why it did not arrive, once it is over."""
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it has arrived, or never will (`problem`)."""
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """Another rank's files will not come: the manifest must not wait for them."""
        self._given_up.set()

    def _run(self) -> None:
        try:
            for name, path in self._own.items():
                self._attempt(partial(self._storage.put, f"{self._folder}/{name}", path))
            if self._finish is not None and self._await_all():
                self._attempt(self._finish)
        except Exception as error:  # noqa: BLE001 - a thread that just died would pass for arrived
            problem = str(error) or type(error).__name__
            self.problem = f"{self._storage.uri}/{self._folder}: cannot upload: {problem}"
            _log.error("%s", self.problem)
        finally:
            for path in self._own.values():
                path.unlink(missing_ok=True)
            for folder in {path.parent for path in self._own.values()}:
                # Other ranks of this node may still have files in it.
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _attempt(self, work: Callable[[], None]) -> None:
        retry(
            work,
            attempts=_ATTEMPTS,
            wait=_BACKOFF.seconds,
            is_transient=lambda error: isinstance(error, storage_errors()),
            before_wait=lambda _, error, seconds: _log.warning(
                "checkpoint upload: %s; again in %g s", error, seconds
            ),
        )

    def _await_all(self) -> bool:
        """Whether all ranks' files are there; False once it was given up."""
        wanted = {f"{self._folder}/{name}": size for name, size in self._sizes.items()}
        until = time.monotonic() + _ALL_SECONDS
        while True:
            there = self._storage.find_files(self._folder)
            missing = [name for name, size in wanted.items() if there.get(name) != size]
            if not missing:
                return True
            if time.monotonic() > until:
                raise TimeoutError(f"{missing[0]} did not arrive within {_ALL_SECONDS:g} s")
            if self._given_up.wait(_LOOK_SECONDS):
                return False
