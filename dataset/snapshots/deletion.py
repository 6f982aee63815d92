"""Deletion of snapshots: their files below `snapshots/`; `lrm compact` deletes their shards."""

import re
from collections.abc import Collection
from datetime import UTC, datetime

from core.errors import BadInput
from core.storage import Storage
from dataset.snapshots.protection import (
    list_snapshots,
    manifest_path,
    protected_until,
    read_manifest,
)
from dataset.snapshots.references import resolve

__all__ = ["delete_snapshots"]

_OTHER_FILES = re.compile(r"([0-9a-f]{16})\.(parquet|credits\.md)")


def delete_snapshots(root: Storage, references: Collection[str], *, force: bool) -> list[str]:
    """Delete snapshots and return their ids; the caller holds the lock `snapshots`.

    Raises BadInput before anything is deleted if one does not exist, or is protected and not
    `force`.
    """
    ids = list(dict.fromkeys(resolve(root, reference) for reference in references))
    for snapshot_id in () if force else ids:
        manifest = read_manifest(root, snapshot_id)
        # After a compaction has deleted shards of it, no run can read it.
        if "compacted" not in manifest and protected_until(manifest) > datetime.now(UTC):
            raise BadInput(
                f"{root.uri}: snapshot {snapshot_id} is protected until "
                f"{protected_until(manifest):%Y-%m-%d}, because a training run may need it: add "
                "--force to delete it"
            )
    for snapshot_id in ids:
        # First the manifest, because a snapshot exists while it has a manifest.
        root.delete(manifest_path(snapshot_id))
    existing = set(list_snapshots(root))
    for name in root.list_files("snapshots"):
        # Also what a deletion that was killed has left.
        match = _OTHER_FILES.fullmatch(name)
        if match and match[1] not in existing:
            root.delete(f"snapshots/{name}")
    return ids
