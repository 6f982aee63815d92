"""Deletion of snapshots: their files below `snapshots/`; `lrm compact` deletes their shards."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from core.errors import BadInput
from core.storage import Storage
from dataset.snapshots.manifests import (
    UnreadableSnapshot,
    manifest_path,
    read_manifest,
    rows_path,
)
from dataset.snapshots.protection import protected_until
from dataset.snapshots.references import names_of, resolve
from dataset.snapshots.rows import credits_path

__all__ = ["delete_snapshots"]


def delete_snapshots(
    root: Storage, references: Collection[str], *, force: bool
) -> dict[str, list[str]]:
    """Delete snapshots and return their ids, each with its names.

    The caller holds the lock `snapshots`. Raises BadInput before anything is deleted if one does
    not exist; without `force` also if one is protected, has names besides those given, or cannot be
    read.
    """
    given: dict[str, set[str]] = {}
    for reference in references:
        given.setdefault(resolve(root, reference), set()).add(reference)
    names = {}
    for snapshot_id, texts in given.items():
        try:
            manifest = read_manifest(root, snapshot_id)
        except UnreadableSnapshot:
            if not force:
                raise
            manifest = {}
        names[snapshot_id] = names_of(manifest)
        if not force:
            _require_unused(root, manifest, texts)
    for snapshot_id in names:
        # The manifest is last: it has the names by which an interrupted deletion is continued.
        root.delete(credits_path(snapshot_id), rows_path(snapshot_id))
        root.delete(manifest_path(snapshot_id))
    return names


def _require_unused(root: Storage, manifest: dict[str, Any], given: Collection[str]) -> None:
    """Raise BadInput if a snapshot is protected, or if one of its names has other names beside it.

    `given` are the words that refer to it.
    """
    names = names_of(manifest)
    what = f"{root.uri}: snapshot {manifest['snapshot']}"
    # After a compaction has deleted shards of it, no run can read it.
    if "compacted" not in manifest and protected_until(manifest) > datetime.now(UTC):
        named = f" ({', '.join(names)})" if names else ""
        raise BadInput(
            f"{what}{named} is protected until {protected_until(manifest):%Y-%m-%d}, because a "
            "training run may need it: add --force to delete it"
        )
    others = [name for name in names if name not in given]
    if others and set(names) & set(given):
        raise BadInput(
            f"{what} is also called {', '.join(others)}: add --force to delete it with all names"
        )
