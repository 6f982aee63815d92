"""Datasets that many tests read, built once for all test processes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.format.shards import read_index
from pipelines.demo.demo_mirror import CAPTIONS_FILE

# The fastest build whose renders pass the checks; it runs in this process.
QUICK = (
    "--render.resolution 40 --render.samples 1 --shards.samples-per-shard 4 --address none"
).split()

# Every object is dropped after its inspection, so nothing is rendered.
WITHOUT_BLENDER = (
    "--filters.textured.min-triangle-share 1 --no-filters.caption --no-filters.missing-texture "
    "--address none"
).split()


def events_of(root: Path) -> list[dict[str, Any]]:
    """Return all events of a dataset in their order."""
    batches = Catalog(Storage(str(root))).since(0)
    return sorted(
        (row for batch in batches for row in batch.to_pylist()), key=lambda row: row["seq"]
    )


def create_once(folder: Path, make: Callable[[], None]) -> None:
    """Call `make` in the first process that requests the folder; the others wait for it."""
    with FileLock(f"{folder}.lock"):
        if not folder.with_suffix(".made").exists():
            make()
            folder.with_suffix(".made").touch()


@dataclass(frozen=True)
class BuiltDataset:
    """A dataset, its source, and the options of its build."""

    root: Path
    source: Path

    @property
    def words(self) -> list[str]:
        """The options of the build, without `--root`."""
        captions = str(self.source / CAPTIONS_FILE)
        return ["--source", str(self.source), "--captions", captions, *QUICK]


def samples(root: Storage) -> dict[str, dict[str, tuple[int, int]]]:
    """Return the size and the checksum of every member by sample."""
    shards = [path for path in root.find_files("shards") if path.endswith(".tar")]
    return {
        entry.key: dict(zip(entry.members, zip(entry.sizes, entry.crc32, strict=True), strict=True))
        for shard in shards
        for entry in read_index(root, shard)[0]
    }


def event_outcomes(root: Storage) -> list[tuple[str, str, str, str]]:
    """Return asset id, stage, status and failure kind of every event, sorted."""
    batches = Catalog(root).since(0)
    rows = [row for batch in batches for row in batch.to_pylist()]
    return sorted((row["asset_id"], row["stage"], row["status"], row["kind"]) for row in rows)
