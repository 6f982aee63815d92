"""`lrm compact`: plan a compaction, do it, and tell what it did."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import WorkFailed
from core.lock import exclusive
from core.storage import Storage
from dataset.maintenance.compact import Compaction, compact, plan_compaction
from dataset.snapshots.protection import Pinned, pinned_by, read_manifest, release
from pipelines.building.progress import waiter
from pipelines.building.stages.pack import SHARDS
from pipelines.maintenance.compaction_catalog import CatalogLedger, Used, read_used

__all__ = ["compact_dataset"]

_COMMAND = "lrm compact"
_MAY_COME = "nothing points to it, but it is younger than an hour: its commit may be on its way"
_ORPHAN_SECONDS = 3600.0
"""So long a shard that nothing points to may still be the one of a commit that is on its way."""


def compact_dataset(
    root: Storage, dead_share: float, released: str | None, dry_run: bool, wait: bool
) -> dict[str, Any]:
    """Free what nothing counts on; the JSON of `lrm compact --json`.

    Raises BadInput if there is no snapshot `released`, or somebody else is writing.
    """
    if released is not None:
        read_manifest(root, released)
    if dry_run:
        plan, pinned = _plan(root, read_used(root), dead_share, released)
        return _summary(plan, pinned, deleted=None)
    on_wait = waiter(wait)
    with (
        exclusive(root, _COMMAND, on_wait=on_wait) as check_shards,
        exclusive(root, _COMMAND, what="snapshots", on_wait=on_wait) as check_snapshots,
        tempfile.TemporaryDirectory(prefix="lrm-compact-") as scratch,
    ):
        if released is not None:
            release(root, released)
        used = read_used(root)
        plan, pinned = _plan(root, used, dead_share, released)
        ledger = CatalogLedger(root, used, (check_shards, check_snapshots))
        size = used.samples_per_shard
        try:
            deleted = compact(root, plan, size, ledger, Path(scratch) / "shard.tar")
        except OSError as error:
            raise WorkFailed(
                f"{root.uri}: cannot compact: {error}; nothing is lost, the same command goes on"
            ) from error
    return _summary(plan, pinned, deleted)


def _plan(
    root: Storage, used: Used, dead_share: float, released: str | None
) -> tuple[Compaction, list[Pinned]]:
    now = datetime.now(UTC)
    pinned = [
        replace(found, protected_until=now) if found.snapshot_id == released else found
        for found in pinned_by(root)
    ]
    plan = plan_compaction(
        root, used.placed, pinned, used.referenced, used.untouchable, used.folders, dead_share
    )
    return _without_new_orphans(root, plan, used, pinned), pinned


def _without_new_orphans(
    root: Storage, plan: Compaction, used: Used, pinned: Sequence[Pinned]
) -> Compaction:
    """The plan, which spares shards that were just written and that nothing points to yet.

    The driver that had them written may have lost its lock with a commit on its way.
    """
    named = {sample.shard for sample in used.placed}.union(*(found.samples for found in pinned))
    of_shard: dict[str, list[str]] = defaultdict(list)
    for path in plan.delete:
        if path.startswith(f"{SHARDS}/"):
            of_shard[f"{PurePosixPath(path).with_suffix('.tar')}"].append(path)
    new = {
        shard: paths
        for shard, paths in of_shard.items()
        if shard not in named and min(_age(root, path) for path in paths) < _ORPHAN_SECONDS
    }
    spared = {path for paths in new.values() for path in paths}
    return replace(
        plan,
        delete={path: size for path, size in plan.delete.items() if path not in spared},
        skipped=plan.skipped | dict.fromkeys(new, _MAY_COME),
    )


def _age(root: Storage, path: str) -> float:
    """Seconds since a file was written; endless if the storage does not say."""
    entry = root.info(path)
    names = ("LastModified", "last_modified", "mtime", "created")
    written = next((entry[name] for name in names if entry.get(name)), 0.0)
    return time.time() - (written.timestamp() if isinstance(written, datetime) else float(written))


def _summary(
    plan: Compaction, pinned: list[Pinned], deleted: dict[str, int] | None
) -> dict[str, Any]:
    ends = {found.snapshot_id: found.protected_until.isoformat() for found in pinned}
    going = plan.delete if deleted is None else deleted
    leaving = {shard: found for shard, found in plan.rewrite.items() if shard not in plan.skipped}
    return {
        "dry_run": deleted is None,
        "rewritten": {"shards": len(leaving), "samples": sum(map(len, leaving.values()))},
        "deleted": {"files": len(going), "bytes": sum(going.values())},
        "held": {
            name: {
                "protected_until": ends[name],
                "bytes": sum(files.values()),
                "shards": sorted(path for path in files if path.endswith(".tar")),
            }
            for name, files in plan.held.items()
        },
        "outlived": sorted(plan.outlived),
        "skipped": plan.skipped,
    }
