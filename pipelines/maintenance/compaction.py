"""`lrm compact`: which samples count, by the catalog, and how the catalog learns what moved."""

import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import WorkFailed
from core.lock import Check, exclusive
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import rows_with
from dataset.maintenance.compact import Compaction, Placed, compact, plan_compaction
from dataset.snapshots.protection import Pinned, pinned_by, read_manifest, release
from pipelines.building.dataset_status import load_standing
from pipelines.building.decide import CLEARED, DAMAGED, REMOVE
from pipelines.building.event_columns import SAMPLE_PLACE
from pipelines.building.object_table import latest_of
from pipelines.building.progress import waiter

__all__ = ["compact_dataset"]

_COMMAND = "lrm compact"
_COMMIT_EVENTS = 1000
_COMPACTED = "compacted"
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
        plan, pinned = _plan(root, _read(root), dead_share, released)
        return _summary(plan, pinned, deleted=None)
    on_wait = waiter(wait)
    with (
        exclusive(root, _COMMAND, on_wait=on_wait) as check_shards,
        exclusive(root, _COMMAND, what="snapshots", on_wait=on_wait) as check_snapshots,
        tempfile.TemporaryDirectory(prefix="lrm-compact-") as scratch,
    ):
        if released is not None:
            release(root, released)
        known = _read(root)
        plan, pinned = _plan(root, known, dead_share, released)
        ledger = _CatalogLedger(root, known, (check_shards, check_snapshots))
        size = known.samples_per_shard
        try:
            deleted = compact(root, plan, size, ledger, Path(scratch) / "shard.tar")
        except OSError as error:
            raise WorkFailed(
                f"{root.uri}: cannot compact: {error}; nothing is lost, the same command goes on"
            ) from error
    return _summary(plan, pinned, deleted)


Result = tuple[str, str, str]
"""Asset id, stage and rig of a result."""
_POINTERS = {"fetch": "raw", "geometry": "path", "pack": "shard", "render": "staging"}
"""Per stage, the column that names a file."""


@dataclass(kw_only=True)
class _Known:
    """What the catalog says of the files."""

    samples_per_shard: int
    rows: Mapping[Result, Mapping[str, Any]]
    """The newest events of `pack` and `geometry` that went well, as columns."""
    placed: list[Placed]
    referenced: set[str]
    """Companion, staged and raw files that count."""
    untouchable: dict[str, str]
    """Shards with damaged samples, which the next build may restore."""


# The one place here that knows the standing of the objects and the events behind it.
def _read(root: Storage) -> _Known:
    """Which samples and files count.

    Dead is what is dropped, removed or no longer listed, and what a newer sample superseded; what
    still waits to be redone is not. Of another rig than the last build's, only what is removed or
    no longer listed is dead.
    """
    standing = load_standing(root)
    results = _newest_results(root)
    removed = {asset_id for asset_id, stage, _ in results if stage == REMOVE}
    listed = set(standing.objects.ids.to_pylist())
    is_dropped = pa.array(standing.decisions.where("dropped"))
    dropped = set(standing.objects.ids.filter(is_dropped).to_pylist())

    def is_live(asset_id: str, rig: str) -> bool:
        dead = asset_id in removed or (asset_id in dropped and rig == standing.config.rig)
        return asset_id in listed and not dead

    placed = [
        Placed(
            asset_id=asset_id,
            rig=rig,
            shard=row["shard"],
            key=row["sample"],
            live=is_live(asset_id, rig),
            removed=asset_id in removed,
        )
        for (asset_id, stage, rig), row in results.items()
        if stage == "pack"
    ]
    files = {_file_of(place, results) for place in results if place[0] not in removed}
    damaged = standing.objects.columns.one_of("pack.kind", {DAMAGED})
    broken = map(standing.decider.broken_shard, standing.objects.states(np.flatnonzero(damaged)))
    return _Known(
        samples_per_shard=standing.config.shards.samples_per_shard,
        rows={place: row for place, row in results.items() if place[1] in ("pack", "geometry")},
        placed=placed,
        referenced={path for path in files if path is not None},
        untouchable={
            found["shard"]: "it is damaged: run `lrm build` first"
            for found in broken
            if found is not None
        },
    )


def _newest_results(root: Storage) -> dict[Result, dict[str, Any]]:
    """What went well last, of every object, stage that makes files, and rig; and the takedowns."""
    latest = latest_of(root)
    wanted = [place for place in latest.places() if place[0] in (*_POINTERS, REMOVE)]
    columns = ["status", "content", "settings", *{*_POINTERS.values(), *SAMPLE_PLACE}]
    return {
        (row["asset_id"], *place): row
        for place, table in latest.tables(wanted, columns).items()
        for row in rows_with(table, "status", "ok").to_pylist()
    }


def _file_of(place: Result, results: Mapping[Result, Mapping[str, Any]]) -> str | None:
    """The raw, companion or staged file that a result needs; once packed, no staged one."""
    asset_id, stage, rig = place
    if stage not in ("fetch", "geometry", "render"):
        return None
    row, packed = results[place], results.get((asset_id, "pack", rig))
    same = ("content", "settings")
    is_packed = packed is not None and all(packed[name] == row[name] for name in same)
    return None if stage == "render" and is_packed else row[_POINTERS[stage]]


def _plan(
    root: Storage, known: _Known, dead_share: float, released: str | None
) -> tuple[Compaction, list[Pinned]]:
    now = datetime.now(UTC)
    pinned = [
        replace(found, protected_until=now) if found.snapshot_id == released else found
        for found in pinned_by(root)
    ]
    plan = plan_compaction(
        root, known.placed, pinned, known.referenced, known.untouchable, dead_share
    )
    return _without_new_orphans(root, plan, known, pinned), pinned


def _without_new_orphans(
    root: Storage, plan: Compaction, known: _Known, pinned: Sequence[Pinned]
) -> Compaction:
    """The plan, which spares shards that were just written and that nothing points to yet.

    The driver that had them written may have lost its lock with a commit on its way.
    """
    named = {sample.shard for sample in known.placed}.union(*(found.samples for found in pinned))
    of_shard: dict[str, list[str]] = defaultdict(list)
    for path in plan.delete:
        if path.startswith("shards/"):
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


class _CatalogLedger:
    """Writes what moved as events."""

    def __init__(self, root: Storage, known: _Known, checks: Sequence[Check]) -> None:
        self._catalog = Catalog(root)
        self._run, self._batch = uuid.uuid4().hex, 0
        self._events: list[Event] = []
        self._checks = checks
        self._rows = known.rows
        self._owners: dict[str, set[Result]] = defaultdict(set)
        """Per shard and companion file, the results that point there."""
        for place, row in known.rows.items():
            self._owners[row[_POINTERS[place[1]]]].add(place)

    def moved(self, sample: Placed, shard: str, sha256: str) -> None:
        """A sample lies in a new shard."""
        place = (sample.asset_id, "pack", sample.rig)
        moved = {"shard": shard, "sample": sample.key, "shard_sha256": sha256}
        self._add(self._event(place, data=moved))
        self._owners[sample.shard].discard(place)

    def gone(self, paths: Collection[str]) -> None:
        """Results that point to these files are taken back; what was measured stays."""
        of_rig: dict[str, list[str]] = defaultdict(list)
        for place in sorted({place for path in paths for place in self._owners.get(path, ())}):
            asset_id, stage, rig = place
            names = ("path",) if stage == "geometry" else SAMPLE_PLACE
            data = {name: self._rows[place][name] for name in names}
            self._add(self._event(place, data=data, status=CLEARED, kind=_COMPACTED))
            if stage == "pack":
                of_rig[rig].append(asset_id)
        for rig, ids in of_rig.items():
            for asset_id, rendered in self._catalog.newest(ids, "render", rig).items():
                row = self._rows[asset_id, "pack", rig]
                if (rendered.content, rendered.settings) == (row["content"], row["settings"]):
                    self._add(replace(rendered, data={**rendered.data, "staging": None}))

    def _event(self, place: Result, **fields: Any) -> Event:
        asset_id, stage, rig = place
        same = {name: self._rows[place][name] for name in ("content", "settings")}
        return Event(asset_id=asset_id, stage=stage, rig=rig, **same, **fields)

    def flush(self) -> None:
        """Everything is in the catalog."""
        for check in self._checks:
            check()
        if self._events:
            self._batch += 1
            self._catalog.commit(self._events, self._run, self._batch, *self._checks)
            self._events = []

    def _add(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) >= _COMMIT_EVENTS:
            self.flush()


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
