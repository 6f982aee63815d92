"""Samples by position in the order, with a replacement sample for a damaged or missing one.

The choice of the replacement depends on the position alone (`candidates_at`), so it is the same for
any number of ranks and loader workers, and after a restart.
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
"""Errors of reading and decoding a sample whose bytes are damaged or missing."""
_CANDIDATES = 8
"""Maximum number of samples that are tried for one position. More damaged ones in a row are not a
coincidence."""


class Reading(NamedTuple):
    """The result of reading one position."""

    item: Item
    replacement: Replacement | None = None
    """The replacement sample that the item is of, if the one of the order is damaged."""


class SampleDataset(Dataset[Item], ABC):
    """Dataset of training items by position in the order.

    An item is a function of (snapshot, seed, position). If the sample at a position is damaged or
    missing, the item is of another sample, with the random draws of the position.
    """

    def __init__(self, root: Storage, samples: Sequence[Sample], seed: int) -> None:
        self._root, self._samples, self._seed = root, samples, seed

    def __getitem__(self, position: int) -> Item:
        return self.read(position).item

    def read(self, position: int) -> Reading:
        """Return the item at a position, and the replacement of its sample, if any.

        Raises WorkFailed naming the sample if the storage fails: the sample may be intact, so
        replacing it would make the order irreproducible. Raises FinalFailure if all candidates are
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
            f"{faults[0]}; no replacement sample is left, {len(faults)} samples are damaged: "
            f"{REMEDY}"
        )

    @abstractmethod
    def _load(self, sample: Sample, position: int) -> Item:
        """Return the item of a sample at a position."""

    def _require_dataset(self, sample: Sample, error: FileNotFoundError) -> None:
        """Raise WorkFailed if the whole dataset is missing, and not only the shard."""
        try:
            exists = self._root.exists(FORMAT_FILE)
        except storage_errors() as outage:
            raise unreadable(sample, outage) from outage
        if not exists:
            raise unreadable(sample, error) from error


def unreadable(sample: Sample, cause: Exception | str) -> WorkFailed:
    """Return an error that names the sample, its shard and the cause."""
    return WorkFailed(f"{sample.asset_id}: cannot read its views in {sample.shard}: {cause}")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
