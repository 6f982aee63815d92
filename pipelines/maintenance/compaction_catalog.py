"""Which samples and files are in use, by the catalog, and how a compaction is recorded there."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from core.failures import FailureKind
from core.lock import Check
from core.storage import Storage
from dataset.catalog.event_columns import CLEARED, REMOVE
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import rows_with
from dataset.maintenance.compact import Placed
from pipelines.building.dataset_status import load_standing
from pipelines.building.object_table import latest_of
from pipelines.building.stages.pack import PACK, SAMPLE, SHARD, SHARD_SHA256, broken_shard
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import ResultFile

__all__ = ["CatalogLedger", "Used", "read_used"]

_COMMIT_EVENTS = 1000
_COMPACTED = "compacted"
"""Kind of an event that takes back a result whose file a compaction deletes."""

_STATUS = PACK.events.status.name
_MADE_FROM = (PACK.events.content.name, PACK.events.settings.name)
"""Columns that say what a result was made from: the same ones for every stage."""

Result = tuple[str, str, str]
"""Asset id, stage and rig of a result."""


@dataclass(kw_only=True)
class Used:
    """What the catalog says of the files."""

    samples_per_shard: int
    folders: tuple[str, ...]
    """Folders of the files that stages make."""
    rows: Mapping[Result, Mapping[str, Any]]
    """The newest results that are void without their file, as columns."""
    placed: list[Placed]
    referenced: set[str]
    """Companion, staged and raw files in use."""
    untouchable: dict[str, str]
    """Shards with damaged samples, which the next build may restore, and the reason."""


def read_used(root: Storage) -> Used:
    """Return which samples and files are in use.

    Not in use is what is dropped, removed or no longer listed, and what a newer sample superseded;
    what still waits to be redone is in use. Of another rig than the last build's, only what is
    removed or no longer listed is not.
    """
    standing = load_standing(root)
    results = _newest_results(root)
    removed = {asset_id for asset_id, stage, _ in results if stage == REMOVE.stage}
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
            shard=row[SHARD.name],
            key=row[SAMPLE.name],
            live=is_live(asset_id, rig),
            removed=asset_id in removed,
        )
        for (asset_id, stage, rig), row in results.items()
        if stage == PACK.name
    ]
    files = _files()
    in_use = (_referenced(place, results, files) for place in results if place[0] not in removed)
    damaged = standing.objects.columns.one_of(PACK.events.kind, {FailureKind.SAMPLE_DAMAGED})
    broken = (
        broken_shard(state, standing.decider.identities)
        for state in standing.objects.states(np.flatnonzero(damaged))
    )
    required = {stage for stage, file in files.items() if file.required}
    return Used(
        samples_per_shard=standing.config.shards.samples_per_shard,
        folders=tuple(file.folder for file in files.values()),
        rows={place: row for place, row in results.items() if place[1] in required},
        placed=placed,
        referenced={path for path in in_use if path is not None},
        untouchable={
            place[SHARD.name]: "it is damaged: run `lrm build` first"
            for place in broken
            if place is not None
        },
    )


def _files() -> dict[str, ResultFile]:
    """Return the files of results, by stage."""
    return {stage.name: stage.file for stage in STAGES if stage.file is not None}


def _newest_results(root: Storage) -> dict[Result, dict[str, Any]]:
    """Return the last good result of every object, stage that makes files, and rig; and the
    takedowns."""
    latest, files = latest_of(root), _files()
    wanted = [place for place in latest.places() if place[0] in {REMOVE.stage, *files}]
    names = {column.name for file in files.values() for column in file.place}
    columns = [_STATUS, *_MADE_FROM, *sorted(names)]
    return {
        (row["asset_id"], *place): row
        for place, table in latest.tables(wanted, columns).items()
        for row in rows_with(table, _STATUS, "ok").to_pylist()
    }


def _referenced(
    place: Result, results: Mapping[Result, Mapping[str, Any]], files: Mapping[str, ResultFile]
) -> str | None:
    """Return the file beside the shards that a result needs."""
    asset_id, stage, rig = place
    file = files.get(stage)
    if file is None or stage == PACK.name:
        return None
    row, later = results[place], results.get((asset_id, file.until, rig))
    superfluous = later is not None and all(later[name] == row[name] for name in _MADE_FROM)
    return None if superfluous else row[file.path.name]


class CatalogLedger:
    """Records what a compaction moves and deletes, as events."""

    def __init__(self, root: Storage, used: Used, checks: Sequence[Check]) -> None:
        self._catalog = Catalog(root)
        self._run, self._batch = uuid.uuid4().hex, 0
        self._events: list[Event] = []
        self._checks = checks
        self._rows = used.rows
        self._owners: dict[str, set[Result]] = defaultdict(set)
        """Per shard and companion file, the results that lie there."""
        self._files = _files()
        for place, row in used.rows.items():
            self._owners[row[self._files[place[1]].path.name]].add(place)

    def moved(self, sample: Placed, shard: str, sha256: str) -> None:
        """Record that a new shard holds a sample."""
        place = (sample.asset_id, PACK.name, sample.rig)
        moved = {SHARD.name: shard, SAMPLE.name: sample.key, SHARD_SHA256.name: sha256}
        self._add(self._event(place, data=moved))
        self._owners[sample.shard].discard(place)

    def gone(self, paths: Collection[str]) -> None:
        """Take back the results that lie in these files; measurements stay."""
        cleared: dict[tuple[str, str], list[str]] = defaultdict(list)
        for place in sorted({place for path in paths for place in self._owners.get(path, ())}):
            asset_id, stage, rig = place
            columns = self._files[stage].place
            data = {column.name: self._rows[place][column.name] for column in columns}
            self._add(self._event(place, data=data, status=CLEARED, kind=_COMPACTED))
            cleared[stage, rig].append(asset_id)
        for (stage, rig), ids in cleared.items():
            self._forget_sources(stage, rig, ids)

    def _forget_sources(self, stage: str, rig: str, ids: Sequence[str]) -> None:
        """Record that the staged files which these results were made from are not there either."""
        for source, file in self._files.items():
            if file.until != stage:
                continue
            for asset_id, made in self._catalog.newest(ids, source, rig).items():
                row = self._rows[asset_id, stage, rig]
                if all(getattr(made, name) == row[name] for name in _MADE_FROM):
                    self._add(replace(made, data={**made.data, file.path.name: None}))

    def _event(self, place: Result, **fields: Any) -> Event:
        asset_id, stage, rig = place
        same = {name: self._rows[place][name] for name in _MADE_FROM}
        return Event(asset_id=asset_id, stage=stage, rig=rig, **same, **fields)

    def flush(self) -> None:
        """Commit everything that was recorded."""
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
