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

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import BadInput, first_line
from core.storage import Storage

__all__ = [
    "MAX_PROTECT_DAYS",
    "PROTECT_DAYS",
    "SnapshotFiles",
    "UnreadableSnapshot",
    "days_from_now",
    "end_protection",
    "files_of_snapshots",
    "list_snapshots",
    "manifest_path",
    "manifests",
    "mark_compacted",
    "protected_until",
    "read_manifest",
    "read_manifests",
    "readable_rows",
    "write_manifest",
]

MAX_PROTECT_DAYS = 36500
PROTECT_DAYS = 90
"""Default protection; also that of older snapshots, whose manifests do not contain it."""
_TIMES = ("created", "protected_until", "last_created")


class UnreadableSnapshot(BadInput):
    """A snapshot of which a file is damaged or missing."""

    def __init__(self, root: Storage, snapshot_id: str, problem: str) -> None:
        super().__init__(
            f"{root.uri}: snapshot {snapshot_id} cannot be read: {problem}; restore the file, or "
            f"delete the snapshot: lrm snapshot --root {root.uri} --delete {snapshot_id} --force"
        )
        self.snapshot_id = snapshot_id


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
    """Read the manifest of a snapshot.

    Raises BadInput if the snapshot does not exist, or UnreadableSnapshot.
    """
    path = manifest_path(snapshot_id)
    try:
        manifest = json.loads(root.read(path))
        if manifest["snapshot"] != snapshot_id or not isinstance(manifest["format"], int):
            raise ValueError("its fields `snapshot` and `format`")
        manifest["samples"], manifest["bytes"], manifest["where"]
        if None in (_time(manifest, name).tzinfo for name in _TIMES if name in manifest):
            raise ValueError("a time without a time zone")
        return manifest
    except FileNotFoundError:
        raise BadInput(f"{root.uri}: no snapshot {snapshot_id!r}") from None
    except (ValueError, TypeError, KeyError) as error:
        why = f"no field {error}" if isinstance(error, KeyError) else first_line(error)
        problem = f"{path} is no manifest ({why})"
        raise UnreadableSnapshot(root, snapshot_id, problem) from None


def write_manifest(root: Storage, manifest: dict[str, Any]) -> None:
    """Write the manifest of a snapshot."""
    root.write(manifest_path(manifest["snapshot"]), json.dumps(manifest, indent=1).encode())


def manifests(root: Storage) -> list[dict[str, Any]]:
    """Return all manifests that can be read, that of the oldest snapshot first."""
    return read_manifests(root)[0]


def read_manifests(root: Storage) -> tuple[list[dict[str, Any]], list[UnreadableSnapshot]]:
    """Return all manifests, that of the oldest snapshot first, and those that cannot be read."""
    unsorted, unreadable = [], []
    for snapshot_id in list_snapshots(root):
        try:
            unsorted.append(read_manifest(root, snapshot_id))
        except UnreadableSnapshot as error:
            unreadable.append(error)
        except BadInput:
            continue  # it was deleted meanwhile
    by_age = sorted(
        unsorted, key=lambda manifest: (_time(manifest, "created"), manifest["snapshot"])
    )
    return by_age, unreadable


def _time(manifest: dict[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(manifest[name])


@contextlib.contextmanager
def readable_rows(root: Storage, snapshot_id: str) -> Iterator[None]:
    """Raise UnreadableSnapshot if the block finds the rows of a snapshot missing or damaged."""
    try:
        yield
    except (FileNotFoundError, pa.ArrowInvalid, KeyError) as error:
        missing = isinstance(error, FileNotFoundError)
        problem = "is missing" if missing else f"is damaged ({first_line(error)})"
        problem = f"snapshots/{snapshot_id}.parquet {problem}"
        raise UnreadableSnapshot(root, snapshot_id, problem) from None


def protected_until(manifest: dict[str, Any]) -> datetime:
    """Return the end of a snapshot's protection."""
    if "protected_until" in manifest:
        return _time(manifest, "protected_until")
    return _time(manifest, "created") + timedelta(days=PROTECT_DAYS)


def days_from_now(days: float) -> str:
    """Return the time this many days from now, in the format of manifests."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")


def end_protection(root: Storage, snapshot_id: str) -> None:
    """End a snapshot's protection now. Raises BadInput if there is no such snapshot."""
    manifest = read_manifest(root, snapshot_id)
    if protected_until(manifest) > datetime.now(UTC):
        write_manifest(root, manifest | {"protected_until": days_from_now(0)})


def files_of_snapshots(root: Storage) -> Iterator[SnapshotFiles]:
    """Yield the files of each snapshot that has not been compacted, the oldest first.

    Raises UnreadableSnapshot, because the files of such a snapshot are unknown.
    """
    readable, unreadable = read_manifests(root)
    if unreadable:
        raise unreadable[0]
    for manifest in readable:
        if "compacted" in manifest:
            continue
        samples: dict[str, set[str]] = {}
        geometry: set[str] = set()
        snapshot_id = manifest["snapshot"]
        with (
            readable_rows(root, snapshot_id),
            root.open(f"snapshots/{snapshot_id}.parquet") as file,
        ):
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
            snapshot_id=snapshot_id,
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
