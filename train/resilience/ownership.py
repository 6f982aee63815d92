"""Ownership of a run's folder: only the newest start writes to it, workers of older starts end."""

import uuid
from pathlib import Path

from core.atomic import atomic_write
from core.errors import Stopped
from core.paths.regular_file import read_regular
from train.resilience.collectives import on_rank_0

__all__ = ["Ownership"]

_FILE = "owner"


class Ownership:
    """Claim of one start on its run.

    After a killed driver, or with a second terminal, two starts may train at the same time for a
    while.
    """

    def __init__(self, out: Path) -> None:
        """Claim the run; all ranks call it."""
        self._file = out / _FILE
        self._token = uuid.uuid4().hex
        on_rank_0(lambda: atomic_write(self._file, self._token))

    def check(self) -> None:
        """Raise Stopped on all ranks if the run was started again.

        All ranks call it, before they write.
        """
        if on_rank_0(self._is_replaced):
            raise Stopped(
                "the run has been started again elsewhere: this older start ends without writing"
            )

    def _is_replaced(self) -> bool:
        try:
            return read_regular(self._file) != self._token.encode()
        except OSError:
            # The writes that follow report the problem of the folder.
            return False
