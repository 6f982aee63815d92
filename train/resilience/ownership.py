"""Who writes into a run's folder: the newest start. Workers that an older one left behind leave."""

import uuid
from pathlib import Path

import torch.distributed as dist

from core.errors import Stopped
from train.resilience.collectives import on_rank_0

__all__ = ["Ownership"]

_FILE = "owner"


class Ownership:
    """The claim of one start on its run. A driver that is killed, or a second terminal, may leave
    two of them training at once, for a while."""

    def __init__(self, out: Path) -> None:
        """Claims the run; every rank calls it."""
        self._file = out / _FILE
        self._own = uuid.uuid4().hex
        if dist.get_rank() == 0:
            self._file.write_text(self._own)

    def check(self) -> None:
        """Before something is written; every rank calls it. Raises Stopped on all of them if the
        run has a newer start."""
        if on_rank_0(self._is_replaced):
            raise Stopped("the run has been started again elsewhere: this start leaves it alone")

    def _is_replaced(self) -> bool:
        try:
            return self._file.read_text() != self._own
        except OSError:
            # The writes that follow report what is wrong with the folder.
            return False
