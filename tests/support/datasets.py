"""Datasets that many tests read: built once for all test processes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.format.shards import read_index
from pipelines.demo.demo_mirror import CAPTIONS_FILE

# As small as it can be and still be a picture, in this process.
QUICK = (
    "--render.resolution 40 --render.samples 1 --shards.samples-per-shard 4 --address none"
).split()


def events_of(root: Path) -> list[dict[str, Any]]:
    """All events of a dataset, in their order."""
    batches = Catalog(Storage(str(root))).since(0)
    return sorted(
        (row for batch in batches for row in batch.to_pylist()), key=lambda row: row["seq"]
    )


def made_once(folder: Path, make: Callable[[], None]) -> None:
    """Have the first process that comes make it; others wait."""
    with FileLock(f"{folder}.lock"):
        if not folder.with_suffix(".made").exists():
            make()
            folder.with_suffix(".made").touch()


@dataclass(frozen=True)
class Built:
    """A dataset and the words that built it."""

    root: Path
    source: Path

    @property
    def words(self) -> list[str]:
        captions = str(self.source / CAPTIONS_FILE)
        return ["--source", str(self.source), "--captions", captions, *QUICK]


def samples(root: Storage) -> dict[str, dict[str, tuple[int, int]]]:
    """Size and checksum of every member, by sample."""
    shards = [path for path in root.find_files("shards") if path.endswith(".tar")]
    return {
        entry.key: dict(zip(entry.members, zip(entry.sizes, entry.crc32, strict=True), strict=True))
        for shard in shards
        for entry in read_index(root, shard)[0]
    }


def ends(root: Storage) -> list[tuple[str, str, str, str]]:
    batches = Catalog(root).since(0)
    rows = [row for batch in batches for row in batch.to_pylist()]
    return sorted((row["asset_id"], row["stage"], row["status"], row["kind"]) for row in rows)
