"""`lrm compact`: plans a compaction, runs it, and summarises the result."""

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import WorkFailed
from core.lock import exclusive_lock
from core.paths.scratch import scratch_folder
from core.storage import Storage
from dataset.maintenance.compact import compact
from dataset.maintenance.compaction_plan import Compaction, plan_compaction
from dataset.maintenance.temporary_files import find_temporary_files
from dataset.snapshots.protection import SnapshotFiles, end_protection, files_of_snapshots
from dataset.snapshots.references import resolve
from dataset.snapshots.rows import write_missing_checksums
from pipelines.building.progress import print_when_waiting
from pipelines.building.stages.pack import SHARDS
from pipelines.maintenance.compaction_catalog import CatalogLedger, CatalogUsage, read_usage
from pipelines.maintenance.garbage_losses import find_garbage_losses

__all__ = ["compact_dataset"]

_COMMAND = "lrm compact"
_TOO_NEW = "no event refers to it, but it is less than an hour old: its commit may be pending"
_ORPHAN_SECONDS = 3600.0
"""Minimum age in seconds of a shard without references before it is deleted: its commit may be
pending."""


def compact_dataset(
    root: Storage,
    max_garbage_ratio: float,
    release: Collection[str],
    accept_loss: float | None,
    dry_run: bool,
    wait: bool,
) -> dict[str, Any]:
    """Delete the garbage of a dataset and return the JSON of `lrm compact --json`.

    Shards whose garbage ratio exceeds `max_garbage_ratio` are rewritten. The protection of the
    snapshots `release` ends first. With `wait`, waits while another command holds a lock. Raises
    BadInput if there is no such snapshot, if the files of a snapshot are unknown because it cannot
    be read, if another command is writing, or if a changed source
    made garbage of more objects than the share `accept_loss` (not for a dry run, whose result has
    the message); WorkFailed if the storage fails.
    """
    released = {resolve(root, reference) for reference in release}
    if dry_run:
        usage = read_usage(root)
        plan, pinned = _plan(root, usage, max_garbage_ratio, released)
        loss = find_garbage_losses(root, usage.samples).to_dict(accept_loss)
        return _summary(plan, pinned, deleted=None) | {"loss": loss}
    on_wait = print_when_waiting(wait)
    with (
        exclusive_lock(root, _COMMAND, on_wait=on_wait) as check_shards,
        exclusive_lock(root, _COMMAND, name="snapshots", on_wait=on_wait) as check_snapshots,
        scratch_folder("compact") as scratch,
    ):
        usage = read_usage(root)
        losses = find_garbage_losses(root, usage.samples)
        losses.check(accept_loss)
        write_missing_checksums(root)
        plan, pinned = _plan(root, usage, max_garbage_ratio, released)
        for snapshot_id in released:
            end_protection(root, snapshot_id)
        ledger = CatalogLedger(root, usage, (check_shards, check_snapshots))
        size = usage.samples_per_shard
        try:
            deleted = compact(root, plan, size, ledger, Path(scratch) / "shard.tar")
        except OSError as error:
            raise WorkFailed(
                f"{root.uri}: compaction interrupted: {error}; no data is lost: run the same "
                "command again"
            ) from error
    return _summary(plan, pinned, deleted) | {"loss": losses.to_dict(accept_loss)}


def _plan(
    root: Storage, usage: CatalogUsage, max_garbage_ratio: float, released: Collection[str]
) -> tuple[Compaction, list[SnapshotFiles]]:
    """Return the plan, and the snapshots with the time until which each is protected."""
    now = datetime.now(UTC)
    pinned = [
        replace(snapshot, protected_until=now) if snapshot.snapshot_id in released else snapshot
        for snapshot in files_of_snapshots(root)
    ]
    plan = plan_compaction(
        root,
        usage.samples,
        pinned,
        usage.files_in_use,
        usage.damaged_shards,
        usage.folders,
        max_garbage_ratio,
    )
    plan = _without_new_orphans(root, plan, usage, pinned)
    return replace(plan, delete={**plan.delete, **find_temporary_files(root)}), pinned


def _without_new_orphans(
    root: Storage, plan: Compaction, usage: CatalogUsage, pinned: Sequence[SnapshotFiles]
) -> Compaction:
    """Return the plan without deletions of shards that were just written and have no reference.

    The driver of their build may have lost its lock while the commit was pending.
    """
    referenced = {sample.shard for sample in usage.samples}
    referenced = referenced.union(*(snapshot.samples for snapshot in pinned))
    paths_of: dict[str, list[str]] = defaultdict(list)
    for path in plan.delete:
        if path.startswith(f"{SHARDS}/"):
            paths_of[f"{PurePosixPath(path).with_suffix('.tar')}"].append(path)
    new = {
        shard: paths
        for shard, paths in paths_of.items()
        if shard not in referenced and min(_age(root, path) for path in paths) < _ORPHAN_SECONDS
    }
    new_paths = {path for paths in new.values() for path in paths}
    return replace(
        plan,
        delete={path: size for path, size in plan.delete.items() if path not in new_paths},
        skipped=plan.skipped | dict.fromkeys(new, _TOO_NEW),
    )


def _age(root: Storage, path: str) -> float:
    """Return the seconds since a file was written; very many if the storage has no such time."""
    entry = root.info(path)
    names = ("LastModified", "last_modified", "mtime", "created")
    written = next((entry[name] for name in names if entry.get(name)), 0.0)
    return time.time() - (written.timestamp() if isinstance(written, datetime) else float(written))


def _summary(
    plan: Compaction, pinned: list[SnapshotFiles], deleted: dict[str, int] | None
) -> dict[str, Any]:
    """Return the JSON of a compaction. `deleted` is None for a dry run."""
    protected_until = {snapshot.snapshot_id: snapshot.protected_until for snapshot in pinned}
    files_deleted = plan.delete if deleted is None else deleted
    deleted_bytes = sum(files_deleted.values())
    copied_bytes = plan.copied_bytes if deleted is None else plan.copied["bytes"]
    rewritten = {
        shard: samples for shard, samples in plan.rewrite.items() if shard not in plan.skipped
    }
    return {
        "dry_run": deleted is None,
        "rewritten": {
            "shards": len(rewritten),
            "samples": sum(map(len, rewritten.values())),
            "bytes": copied_bytes,
        },
        "deleted": {"files": len(files_deleted), "bytes": deleted_bytes},
        "freed_bytes": deleted_bytes - copied_bytes,
        "held": {
            name: {
                "protected_until": protected_until[name].isoformat(),
                "bytes": sum(files.values()),
                "shards": sorted(path for path in files if path.endswith(".tar")),
            }
            for name, files in plan.kept_for_snapshots.items()
        },
        "held_together": _held_together(plan, protected_until),
        "outlived": sorted(plan.read_by_expired),
        "skipped": plan.skipped,
    }


def _held_together(
    plan: Compaction, protected_until: Mapping[str, datetime]
) -> list[dict[str, Any]]:
    """Return the files that snapshots keep, by all snapshots that read them.

    The files of a group are free once the protection of all its snapshots has ended.
    """
    holders: dict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for name, files in plan.kept_for_snapshots.items():
        sizes |= files
        for path in files:
            holders[path].append(name)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, names in holders.items():
        groups[tuple(names)].append(path)
    return [
        {
            "snapshots": list(names),
            "protected_until": max(protected_until[name] for name in names).isoformat(),
            "shards": _counted([path for path in paths if path.startswith(f"{SHARDS}/")], sizes),
            "companions": _counted(
                [path for path in paths if not path.startswith(f"{SHARDS}/")], sizes
            ),
        }
        for names, paths in groups.items()
    ]


def _counted(paths: Collection[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the number of files and their bytes; the index of a shard belongs to the shard."""
    files = {PurePosixPath(path).with_suffix("") for path in paths}
    return {"files": len(files), "bytes": sum(sizes[path] for path in paths)}
