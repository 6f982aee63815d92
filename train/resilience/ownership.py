"""Only the newest start of a run writes into its folder; workers of older starts end."""

import uuid
from pathlib import Path

import torch.distributed as dist

from core.atomic import atomic_write
from core.errors import Stopped
from train.resilience.collectives import on_rank_0

__all__ = ["Ownership"]

_FILE = "owner"


class Ownership:
    """The claim of one start on its run. A driver that is killed, or a second terminal, may leave
    two of them training at once, for a while."""

    def __init__(self, out: Path) -> None:
        """Claim the run; all ranks call it."""
        self._file = out / _FILE
        self._own = uuid.uuid4().hex
        if dist.get_rank() == 0:
            atomic_write(self._file, self._own)

    def check(self) -> None:
        """Raise Stopped on all ranks if the run was started again.

        All ranks call it, before they write.
        """
        if on_rank_0(self._is_replaced):
            raise Stopped("the run has been started again elsewhere: this start leaves it alone")

    def _is_replaced(self) -> bool:
        try:
            return self._file.read_text() != self._own
        except OSError:
            # The writes that follow report what is wrong with the folder.
            return False
