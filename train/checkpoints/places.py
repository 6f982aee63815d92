"""Where the checkpoints of a run are stored, written and read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from core.storage import Storage

if TYPE_CHECKING:
    from train.settings.train_config import TrainConfig

__all__ = ["CheckpointPlaces", "checkpoint_storage"]


def checkpoint_storage(out: Path | str, elsewhere: str | None) -> Storage:
    """Return the storage of a run's checkpoints: below its folder, unless a URI is configured."""
    return Storage(elsewhere or str(Path(out) / "checkpoints"))


@dataclass(frozen=True, kw_only=True)
class CheckpointPlaces:
    """The storage of a run's checkpoints, and its two working folders on the local disk."""

    storage: Storage
    written: Path
    """Ranks write their files here: the storage itself, if it is local. Files for an object store
    stay here until they are uploaded."""
    loading: Path
    """Downloaded and converted files; removed after loading."""

    @classmethod
    def of(cls, config: "TrainConfig") -> Self:
        """Return the places that a configuration names."""
        storage = checkpoint_storage(config.out, config.checkpoints)
        in_transit = Path(config.out) / "checkpoints-in-transit"
        written = Path(storage.resolve("")) if storage.is_local else in_transit
        return cls(storage=storage, written=written, loading=written / ".loading")
