"""Protection of the files that snapshots read against deletion by a compaction.

The end of the protection is stored in the snapshot's manifest, not in its rows, so it does not
change the snapshot's id.
"""

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq

from core.errors import BadInput
from core.storage import Storage

__all__ = [
    "MAX_PROTECT_DAYS",
    "PROTECT_DAYS",
    "SnapshotFiles",
    "days_from_now",
    "end_protection",
    "files_of_snapshots",
    "list_snapshots",
    "manifest_path",
    "manifests",
    "mark_compacted",
    "protected_until",
    "read_manifest",
    "write_manifest",
]

MAX_PROTECT_DAYS = 36500
PROTECT_DAYS = 90
"""Default protection; also that of older snapshots, whose manifests do not contain it."""


@dataclass(frozen=True, kw_only=True)
class SnapshotFiles:
    """The files that a snapshot reads."""

    snapshot_id: str
    protected_until: datetime
    samples: dict[str, set[str]]
    """Keys of its samples in each shard."""
    geometry: set[str]
    """Paths of its companion files."""

    @property
    def is_protected(self) -> bool:
        """Whether its files must not be deleted."""
        return self.protected_until > datetime.now(UTC)


def list_snapshots(root: Storage) -> list[str]:
    """Return the ids of all snapshots of a dataset."""
    names = root.list_files("snapshots")
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def read_manifest(root: Storage, snapshot_id: str) -> dict[str, Any]:
    """Read the manifest of a snapshot. Raises BadInput if the snapshot does not exist."""
    try:
        return json.loads(root.read(manifest_path(snapshot_id)))
    except FileNotFoundError:
        raise BadInput(f"{root.uri}: no snapshot {snapshot_id!r}") from None


def write_manifest(root: Storage, manifest: dict[str, Any]) -> None:
    """Write the manifest of a snapshot."""
    root.write(manifest_path(manifest["snapshot"]), json.dumps(manifest, indent=1).encode())


def manifests(root: Storage) -> list[dict[str, Any]]:
    """Return all manifests, that of the oldest snapshot first."""
    unsorted = []
    for snapshot_id in list_snapshots(root):
        # A snapshot that is deleted meanwhile does not exist.
        with contextlib.suppress(BadInput):
            unsorted.append(read_manifest(root, snapshot_id))
    return sorted(unsorted, key=lambda manifest: (manifest["created"], manifest["snapshot"]))


def protected_until(manifest: dict[str, Any]) -> datetime:
    """Return the end of a snapshot's protection."""
    if "protected_until" in manifest:
        return datetime.fromisoformat(manifest["protected_until"])
    return datetime.fromisoformat(manifest["created"]) + timedelta(days=PROTECT_DAYS)


def days_from_now(days: float) -> str:
    """Return the time this many days from now, in the format of manifests."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")


def end_protection(root: Storage, snapshot_id: str) -> None:
    """End a snapshot's protection now. Raises BadInput if there is no such snapshot."""
    manifest = read_manifest(root, snapshot_id)
    if protected_until(manifest) > datetime.now(UTC):
        write_manifest(root, manifest | {"protected_until": days_from_now(0)})


def files_of_snapshots(root: Storage) -> Iterator[SnapshotFiles]:
    """Yield the files of each snapshot that has not been compacted, the oldest first."""
    for manifest in manifests(root):
        if "compacted" in manifest:
            continue
        samples: dict[str, set[str]] = {}
        geometry: set[str] = set()
        with root.open(f"snapshots/{manifest['snapshot']}.parquet") as file:
            rows = pq.ParquetFile(file)
            names = [
                name for name in ("shard", "key", "geometry") if name in rows.schema_arrow.names
            ]
            for batch in rows.iter_batches(columns=names):
                for row in batch.to_pylist():
                    samples.setdefault(row["shard"], set()).add(row["key"])
                    if row.get("geometry"):
                        geometry.add(row["geometry"])
        yield SnapshotFiles(
            snapshot_id=manifest["snapshot"],
            protected_until=protected_until(manifest),
            samples=samples,
            geometry=geometry,
        )


def mark_compacted(root: Storage, snapshot_ids: Collection[str]) -> None:
    """Record in the manifests of these snapshots that files of them are about to be deleted."""
    for snapshot_id in snapshot_ids:
        manifest = read_manifest(root, snapshot_id)
        write_manifest(root, manifest | {"compacted": days_from_now(0)})


def manifest_path(snapshot_id: str) -> str:
    """Return the path of a snapshot's manifest below the root."""
    return f"snapshots/{snapshot_id}.json"
