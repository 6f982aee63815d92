"""Storage and local working folders of a run's checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from core.storage import Storage

if TYPE_CHECKING:
    from train.settings.train_config import TrainConfig

__all__ = ["CheckpointPaths", "checkpoint_storage"]


def checkpoint_storage(out: Path | str, uri: str | None) -> Storage:
    """Return the storage of a run's checkpoints: at `uri`, by default below the run's folder."""
    return Storage(uri or Path(out) / "checkpoints")


@dataclass(frozen=True, kw_only=True)
class CheckpointPaths:
    """The storage of a run's checkpoints, and two working folders on the local disk."""

    storage: Storage
    write_folder: Path
    """Folder that ranks write their files to: the storage itself if it is local. Files for an
    object store stay here until they are uploaded."""
    load_folder: Path
    """Folder of downloaded and converted files; removed after loading."""

    @classmethod
    def of(cls, config: "TrainConfig") -> Self:
        """Return the paths that a configuration names."""
        storage = checkpoint_storage(config.out, config.checkpoints)
        in_transit = Path(config.out) / "checkpoints-in-transit"
        write_folder = Path(storage.resolve("")) if storage.is_local else in_transit
        return cls(
            storage=storage, write_folder=write_folder, load_folder=write_folder / ".loading"
        )
