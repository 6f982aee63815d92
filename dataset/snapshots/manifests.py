"""The manifests of snapshots: JSON files with a checksum, so that a changed one is noticed."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from core.config import canonical_json
from core.errors import BadInput, first_line, is_lost
from core.storage import Storage

__all__ = [
    "SNAPSHOT_FORMAT",
    "UnreadableSnapshot",
    "created_at",
    "last_created_at",
    "list_snapshots",
    "manifest_path",
    "manifests",
    "read_file",
    "read_manifest",
    "read_manifests",
    "rows_path",
    "time_in",
    "write_manifest",
]

SNAPSHOT_FORMAT = 2
_CHECKSUM = "checksum"
"""SHA-256 of all other fields; manifests of earlier versions have none."""
_TIMES = ("created", "protected_until", "last_created")


class UnreadableSnapshot(BadInput):
    """A snapshot of which a file is missing, damaged or not the one that was written."""

    def __init__(
        self, root: Storage, snapshot_id: str, problem: str, *, has_manifest: bool = True
    ) -> None:
        """Without a manifest, it was lost, or the creation of the snapshot was interrupted."""
        remedy = (
            "restore the file, or create the snapshot again if its samples are still kept, with "
            f"the options of its creation: lrm snapshot --root {root.uri}; or delete it: "
            f"lrm snapshot --root {root.uri} --delete {snapshot_id} --force"
        )
        super().__init__(f"{root.uri}: snapshot {snapshot_id} cannot be read: {problem}; {remedy}")
        self.snapshot_id, self.problem, self.remedy = snapshot_id, problem, remedy
        self.has_manifest = has_manifest


def list_snapshots(root: Storage) -> list[str]:
    """Return the ids of all snapshots of a dataset, also of those that lack a manifest or rows."""
    folder, names = Path(root.resolve("snapshots")), root.list_files("snapshots")
    if root.is_local and folder.is_dir():
        # Also folders, pipes and links in the place of files.
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    files = (PurePosixPath(name) for name in names)
    return sorted({file.stem for file in files if file.suffix in (".json", ".parquet")})


def manifest_path(snapshot_id: str) -> str:
    """Return the path of a snapshot's manifest below the root."""
    return f"snapshots/{snapshot_id}.json"


def rows_path(snapshot_id: str) -> str:
    """Return the path of a snapshot's rows below the root."""
    return f"snapshots/{snapshot_id}.parquet"


def read_file(root: Storage, snapshot_id: str, path: str) -> bytes:
    """Return the content of a file of a snapshot.

    Raises FileNotFoundError, UnreadableSnapshot if something else is in its place or another user
    owns it, or the OSError of a storage that fails.
    """
    try:
        return root.read(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        if not (is_lost(error) or isinstance(error, PermissionError)):
            raise
        raise UnreadableSnapshot(root, snapshot_id, f"{path}: {error.strerror or error}") from None


def read_manifest(root: Storage, snapshot_id: str) -> dict[str, Any]:
    """Read the manifest of a snapshot.

    Raises BadInput if the snapshot does not exist, or UnreadableSnapshot.
    """
    path = manifest_path(snapshot_id)
    try:
        manifest = json.loads(read_file(root, snapshot_id, path))
        if manifest["snapshot"] != snapshot_id or not isinstance(manifest["format"], int):
            raise ValueError("its fields `snapshot` and `format`")
        if not isinstance(manifest["samples"] + manifest["bytes"], int):
            raise ValueError("its fields `samples` and `bytes`")
        "".join([manifest["where"] or "", *manifest.get("names", ())])  # fails unless they are text
        if None in (time_in(manifest, name).tzinfo for name in _TIMES if name in manifest):
            raise ValueError("a time without a time zone")
        # The rule for the checksum of a later format is unknown.
        if manifest["format"] <= SNAPSHOT_FORMAT and not _is_as_written(manifest):
            raise UnreadableSnapshot(root, snapshot_id, f"{path} was changed after it was written")
        return dict(manifest)
    except FileNotFoundError:
        if root.exists(rows_path(snapshot_id)):
            problem = f"{path} is missing: it was lost, or the snapshot's creation was interrupted"
            raise UnreadableSnapshot(root, snapshot_id, problem, has_manifest=False) from None
        raise BadInput(f"{root.uri}: no snapshot {snapshot_id!r}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"no field {error}" if isinstance(error, KeyError) else first_line(error)
        problem = f"{path} is no manifest ({why})"
        raise UnreadableSnapshot(root, snapshot_id, problem) from None


def write_manifest(root: Storage, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a snapshot, with its checksum."""
    sealed = {**manifest, _CHECKSUM: _checksum(manifest)}
    root.write(manifest_path(manifest["snapshot"]), json.dumps(sealed, indent=1).encode())


def _checksum(manifest: Mapping[str, Any]) -> str:
    fields = {name: value for name, value in manifest.items() if name != _CHECKSUM}
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()


def _is_as_written(manifest: Mapping[str, Any]) -> bool:
    """Return whether the checksum is that of the fields.

    Without a checksum, only a manifest of an earlier version is: it has none of its rows either.
    """
    if _CHECKSUM not in manifest:
        return "rows_sha256" not in manifest
    return bool(manifest[_CHECKSUM] == _checksum(manifest))


def manifests(root: Storage) -> list[dict[str, Any]]:
    """Return all manifests that can be read, that of the oldest snapshot first."""
    return read_manifests(root)[0]


def read_manifests(root: Storage) -> tuple[list[dict[str, Any]], list[UnreadableSnapshot]]:
    """Return all manifests, that of the oldest snapshot first, and the unreadable snapshots."""
    unsorted, unreadable = [], []
    for snapshot_id in list_snapshots(root):
        try:
            unsorted.append(read_manifest(root, snapshot_id))
        except UnreadableSnapshot as error:
            unreadable.append(error)
        except BadInput:
            continue  # it was deleted meanwhile
    by_age = sorted(unsorted, key=lambda manifest: (created_at(manifest), manifest["snapshot"]))
    return by_age, unreadable


def created_at(manifest: Mapping[str, Any]) -> datetime:
    """Return when a snapshot was created first."""
    return time_in(manifest, "created")


def last_created_at(manifest: Mapping[str, Any]) -> datetime:
    """Return when `lrm snapshot` last returned a snapshot; manifests once lacked this time."""
    return time_in(manifest, "last_created" if "last_created" in manifest else "created")


def time_in(manifest: Mapping[str, Any], name: str) -> datetime:
    """Return a time of a manifest."""
    return datetime.fromisoformat(manifest[name])
