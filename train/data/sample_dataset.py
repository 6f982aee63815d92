"""Samples by their position in the order; another sample replaces a damaged or missing one.

Which one is a function of the position alone (`candidates_at`): the same for any number of ranks
and loader workers, and after a restart.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from core.errors import Damaged, FinalFailure, WorkFailed
from core.storage import Storage, storage_errors
from dataset.root import FORMAT_FILE
from dataset.snapshots.snapshot import Sample
from train.data.order import candidates_at
from train.resilience.damaged_samples import REMEDY, Fault, Replacement

__all__ = ["Item", "Reading", "SampleDataset", "unreadable"]

Item = dict[str, Tensor]

_DAMAGE = (Damaged, EOFError, FileNotFoundError, ValueError, KeyError)
"""What reading and decoding raise where the bytes are not those of a sample."""
_CANDIDATES = 8
"""Samples that are tried for one position: more damaged ones in a row are no accident."""


class Reading(NamedTuple):
    """What was read for a position."""

    item: Item
    replacement: Replacement | None = None
    """Which sample the item is of, if the one of the order is damaged."""


class SampleDataset(Dataset[Item], ABC):
    """Item `position` is what the step at that position of the order trains on.

    It is a function of (snapshot, seed, position). If the sample at a position is damaged or
    missing, the item is that of another sample, with the random draws of the position.
    """

    def __init__(self, root: Storage, samples: Sequence[Sample], seed: int) -> None:
        self._root, self._samples, self._seed = root, samples, seed

    def __getitem__(self, position: int) -> Item:
        return self.read(position).item

    def read(self, position: int) -> Reading:
        """Return the item at a position, and what replaced its sample.

        Raises WorkFailed naming the sample if the storage fails: that is no damage, and a
        replacement would make the order irreproducible. Raises FinalFailure if all candidates are
        damaged.
        """
        faults: list[Fault] = []
        for index in candidates_at(position, len(self._samples), self._seed, _CANDIDATES):
            sample = self._samples[index]
            try:
                item = self._load(sample, position)
            except _DAMAGE as error:
                if isinstance(error, FileNotFoundError):
                    self._require_dataset(sample, error)
                faults.append(Fault(position, sample.asset_id, sample.shard, _one_line(error)))
            except storage_errors() as error:
                raise unreadable(sample, error) from error
            else:
                return Reading(item, Replacement(faults, sample.asset_id) if faults else None)
        raise FinalFailure(
            f"{faults[0]}; nothing can stand in for it, {len(faults)} samples are damaged: {REMEDY}"
        )

    @abstractmethod
    def _load(self, sample: Sample, position: int) -> Item:
        """Return the item of a sample at a position."""

    def _require_dataset(self, sample: Sample, error: FileNotFoundError) -> None:
        """Raise WorkFailed if the whole dataset is missing, and not the shard alone."""
        try:
            is_there = self._root.exists(FORMAT_FILE)
        except storage_errors() as outage:
            raise unreadable(sample, outage) from outage
        if not is_there:
            raise unreadable(sample, error) from error


def unreadable(sample: Sample, why: Exception | str) -> WorkFailed:
    """Return an error that names the sample."""
    return WorkFailed(f"{sample.asset_id}: cannot read its views in {sample.shard}: {why}")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
