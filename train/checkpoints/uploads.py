"""Upload of a checkpoint's files to an object store while training continues."""

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
_ARRIVAL_TIMEOUT_SECONDS = 3600.0
"""How long rank 0 waits for the files of the other ranks."""
_POLL_SECONDS = 1.0
"""Seconds between two listings of the uploaded files."""


class Upload:
    """Running upload of this rank's files of a checkpoint; on rank 0 also of the manifest.

    Rank 0 writes the manifest when the files of all ranks have arrived. An object store lists an
    object only when its upload is complete, so comparing sizes is enough.
    """

    def __init__(
        self,
        storage: Storage,
        folder: str,
        own: Mapping[str, Path],
        finish: Callable[[], None] | None,
        sizes: Mapping[str, int],
    ) -> None:
        """Start the upload of this rank's files (`own`, by name) to a folder of the storage.

        `finish` is given on rank 0, and called when all files of `sizes` have arrived.
        """
        self._storage, self._folder = storage, folder
        self._own, self._finish, self._sizes = own, finish, sizes
        self.problem = ""
        """Why the upload failed; empty while it runs and if it succeeded."""
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    @property
    def is_finished(self) -> bool:
        """Whether the upload has ended: succeeded, failed (`problem`) or cancelled."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Stop waiting for the files of other ranks, because one of them failed."""
        self._cancelled.set()

    def _run(self) -> None:
        try:
            for name, path in self._own.items():
                self._attempt(partial(self._storage.put, f"{self._folder}/{name}", path))
            if self._finish is not None and self._await_all():
                self._attempt(self._finish)
        except Exception as error:  # noqa: BLE001 - a thread that died would count as a success
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
                "checkpoint upload: %s; next attempt in %g s", error, seconds
            ),
        )

    def _await_all(self) -> bool:
        """Wait for the files of all ranks; return False if the upload was cancelled."""
        expected = {f"{self._folder}/{name}": size for name, size in self._sizes.items()}
        deadline = time.monotonic() + _ARRIVAL_TIMEOUT_SECONDS
        while True:
            sizes = self._storage.find_files(self._folder)
            missing = [name for name, size in expected.items() if sizes.get(name) != size]
            if not missing:
                return True
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{missing[0]} did not arrive within {_ARRIVAL_TIMEOUT_SECONDS:g} s"
                )
            if self._cancelled.wait(_POLL_SECONDS):
                return False
