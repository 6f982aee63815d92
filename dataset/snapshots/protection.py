"""Protection of the files that snapshots read against deletion by a compaction.

The end of the protection is stored in the snapshot's manifest, not in its rows, so it does not
change the snapshot's id.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from core.storage import Storage
from dataset.snapshots.manifests import (
    SNAPSHOT_FORMAT,
    created_at,
    read_manifest,
    read_manifests,
    time_in,
    write_manifest,
)
from dataset.snapshots.references import warn_without_manifest
from dataset.snapshots.rows import open_rows

__all__ = [
    "MAX_PROTECT_DAYS",
    "PROTECT_DAYS",
    "SnapshotFiles",
    "days_from_now",
    "end_protection",
    "files_of_snapshot",
    "files_of_snapshots",
    "mark_compacted",
    "protected_until",
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


def protected_until(manifest: dict[str, Any]) -> datetime:
    """Return the end of a snapshot's protection."""
    if "protected_until" in manifest:
        return time_in(manifest, "protected_until")
    return created_at(manifest) + timedelta(days=PROTECT_DAYS)


def days_from_now(days: float) -> str:
    """Return the time this many days from now, in the format of manifests."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")


def end_protection(root: Storage, snapshot_id: str) -> None:
    """End a snapshot's protection now. Raises BadInput if there is no such snapshot."""
    manifest = read_manifest(root, snapshot_id)
    if protected_until(manifest) > datetime.now(UTC):
        write_manifest(root, manifest | {"protected_until": days_from_now(0)})


def files_of_snapshots(root: Storage) -> Iterator[SnapshotFiles]:
    """Yield the files of each snapshot that has not been compacted.

    The files of one without a manifest stay, with a warning, until it is deleted. Raises
    UnreadableSnapshot for others, because their files are unknown.
    """
    readable, unreadable = read_manifests(root)
    for error in unreadable:
        if error.has_manifest:
            raise error
    warn_without_manifest(unreadable)
    kept = {"format": SNAPSHOT_FORMAT, "protected_until": days_from_now(MAX_PROTECT_DAYS)}
    for error in unreadable:
        yield files_of_snapshot(root, {"snapshot": error.snapshot_id, **kept})
    for manifest in readable:
        if "compacted" in manifest:
            continue
        yield files_of_snapshot(root, manifest)


def files_of_snapshot(root: Storage, manifest: dict[str, Any]) -> SnapshotFiles:
    """Return the files of one snapshot. Raises UnreadableSnapshot."""
    rows = open_rows(root, manifest)
    names = [name for name in ("shard", "key", "geometry") if name in rows.schema_arrow.names]
    samples: dict[str, set[str]] = {}
    geometry: set[str] = set()
    for batch in rows.iter_batches(columns=names):
        for row in batch.to_pylist():
            samples.setdefault(row["shard"], set()).add(row["key"])
            if row.get("geometry"):
                geometry.add(row["geometry"])
    return SnapshotFiles(
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
