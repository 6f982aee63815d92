"""Which sample stands in for one that is damaged or missing: a function of the position alone."""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.errors import Damaged, FinalFailure, WorkFailed
from core.storage import Storage, storage_errors
from dataset.root import FORMAT_FILE
from dataset.snapshots.snapshot import Sample
from train.data.order import candidates_at
from train.resilience.damaged_samples import REMEDY, Fault, pack_faults

__all__ = ["load_at", "unreadable"]

Item = dict[str, Tensor]

_DAMAGE = (Damaged, EOFError, FileNotFoundError, ValueError, KeyError)
"""What reading and decoding raise where the bytes are not those of a sample."""
_CANDIDATES = 8
"""So many damaged samples for one position are no accident."""


def load_at(
    root: Storage,
    samples: Sequence[Sample],
    seed: int,
    position: int,
    load: Callable[[Sample], Item],
) -> Item:
    """What `load` makes of the sample at a position or of its stand-in; `faults` tells which.

    Raises WorkFailed if the storage fails, which is no damage: then nothing may stand in, or the
    order would depend on the weather. Raises FinalFailure if all candidates are damaged.
    """
    faults: list[Fault] = []
    for index in candidates_at(position, len(samples), seed, _CANDIDATES):
        sample = samples[index]
        try:
            item = load(sample)
        except _DAMAGE as error:
            if isinstance(error, FileNotFoundError):
                _require_dataset(root, sample, error)
            faults.append(Fault(position, sample.asset_id, sample.shard, _one_line(error)))
        except storage_errors() as error:
            raise unreadable(sample, error) from error
        else:
            return item | {"faults": pack_faults(faults, sample.asset_id)}
    raise FinalFailure(
        f"{faults[0]}; nothing can stand in for it, {len(faults)} samples are damaged: {REMEDY}"
    )


def unreadable(sample: Sample, why: Exception | str) -> WorkFailed:
    """An error that names the sample."""
    return WorkFailed(f"{sample.asset_id}: cannot read its views in {sample.shard}: {why}")


def _require_dataset(root: Storage, sample: Sample, error: FileNotFoundError) -> None:
    """Raise WorkFailed if not the shard alone is missing but all of the dataset."""
    try:
        there = root.exists(FORMAT_FILE)
    except storage_errors() as outage:
        raise unreadable(sample, outage) from outage
    if not there:
        raise unreadable(sample, error) from error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
