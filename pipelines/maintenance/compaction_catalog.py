"""The catalog's part of a compaction: which samples and files are in use, and what was changed."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from core.failures import FailureKind
from core.lock import LockCheck
from core.storage import Storage
from dataset.catalog.event_columns import CLEARED, REMOVE
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import rows_with
from dataset.maintenance.compaction_plan import StoredSample
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.object_table import latest_of
from pipelines.building.stages.pack import (
    PACK,
    SAMPLE,
    SHARD,
    SHARD_SHA256,
    damaged_sample_location,
)
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import ResultFile

__all__ = ["CatalogLedger", "CatalogUsage", "read_usage"]

_COMMIT_EVENTS = 1000
"""Events in one commit."""
_COMPACTED = "compacted"
"""Kind of the event that clears a result whose file a compaction deletes."""

_STATUS = PACK.events.status.name
_INPUT_COLUMNS = (PACK.events.content.name, PACK.events.settings.name)
"""Names of the columns that identify the input of a result; they are the same for every stage."""

ResultKey = tuple[str, str, str]
"""(asset id, stage, rig) of a result."""


@dataclass(kw_only=True)
class CatalogUsage:
    """The use of samples and files, from the catalog."""

    samples_per_shard: int
    folders: tuple[str, ...]
    """The folders of all files that stages write."""
    rows: Mapping[ResultKey, Mapping[str, Any]]
    """The columns of the newest results that are invalid without their file."""
    samples: list[StoredSample]
    """All samples, with the shard that holds each."""
    files_in_use: set[str]
    """The companion, staged and raw files that results need."""
    damaged_shards: dict[str, str]
    """Shards with damaged samples and the reason to skip them: the next build may restore them."""


def read_usage(root: Storage) -> CatalogUsage:
    """Return which samples and files are in use.

    A sample is not in use if its object is dropped, removed or no longer listed, or if a newer
    sample replaced it. A sample that the next build will redo is in use. Dropped objects count only
    for the rig of the last build.
    """
    dataset_state = load_dataset_state(root)
    results = _newest_results(root)
    removed = {asset_id for asset_id, stage, _ in results if stage == REMOVE.stage}
    listed = set(dataset_state.objects.ids.to_pylist())
    dropped_rows = pa.array(dataset_state.decisions.where("dropped"))
    dropped = set(dataset_state.objects.ids.filter(dropped_rows).to_pylist())

    def is_live(asset_id: str, rig: str) -> bool:
        is_dropped = asset_id in dropped and rig == dataset_state.config.rig
        return asset_id in listed and asset_id not in removed and not is_dropped

    samples = [
        StoredSample(
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
    in_use = (_needed_file(key, results, files) for key in results if key[0] not in removed)
    is_damaged = dataset_state.objects.columns.one_of(
        PACK.events.kind, {FailureKind.SAMPLE_DAMAGED}
    )
    damaged = (
        damaged_sample_location(state, dataset_state.decider.identities)
        for state in dataset_state.objects.states(np.flatnonzero(is_damaged))
    )
    required = {stage for stage, file in files.items() if file.required}
    return CatalogUsage(
        samples_per_shard=dataset_state.config.shards.samples_per_shard,
        folders=tuple(file.folder for file in files.values()),
        rows={key: row for key, row in results.items() if key[1] in required},
        samples=samples,
        files_in_use={path for path in in_use if path is not None},
        damaged_shards={
            location[SHARD.name]: "it is damaged: run `lrm build` first"
            for location in damaged
            if location is not None
        },
    )


def _files() -> dict[str, ResultFile]:
    """Return the declaration of each stage's file, by stage."""
    return {stage.name: stage.file for stage in STAGES if stage.file is not None}


def _newest_results(root: Storage) -> dict[ResultKey, dict[str, Any]]:
    """Return the newest result of every object, rig and stage with files, if it succeeded.

    Includes the removals of objects, as results of the stage `remove`.
    """
    latest, files = latest_of(root), _files()
    stage_rigs = [key for key in latest.stage_rigs() if key[0] in {REMOVE.stage, *files}]
    names = {column.name for file in files.values() for column in file.location}
    columns = [_STATUS, *_INPUT_COLUMNS, *sorted(names)]
    return {
        (row["asset_id"], *stage_rig): row
        for stage_rig, table in latest.tables(stage_rigs, columns).items()
        for row in rows_with(table, _STATUS, "ok").to_pylist()
    }


def _needed_file(
    key: ResultKey, results: Mapping[ResultKey, Mapping[str, Any]], files: Mapping[str, ResultFile]
) -> str | None:
    """Return the file that a result needs beside the shards; None if it needs none.

    A staged file is no longer needed once a later result was made from the same input.
    """
    asset_id, stage, rig = key
    file = files.get(stage)
    if file is None or stage == PACK.name:
        return None
    row, later = results[key], results.get((asset_id, file.until, rig))
    is_superseded = later is not None and all(later[name] == row[name] for name in _INPUT_COLUMNS)
    return None if is_superseded else row[file.path.name]


class CatalogLedger:
    """Records the moved samples and deleted files of a compaction as events.

    Implements `dataset.maintenance.compact.Ledger`.
    """

    def __init__(self, root: Storage, usage: CatalogUsage, checks: Sequence[LockCheck]) -> None:
        self._catalog = Catalog(root)
        self._run, self._batch = uuid.uuid4().hex, 0
        self._events: list[Event] = []
        self._checks = checks
        self._rows = usage.rows
        self._owners: dict[str, set[ResultKey]] = defaultdict(set)
        """Per shard and companion file, the results that it holds."""
        self._files = _files()
        for key, row in usage.rows.items():
            self._owners[row[self._files[key[1]].path.name]].add(key)

    def record_moved(self, sample: StoredSample, shard: str, sha256: str) -> None:
        """Record that a new shard holds a sample."""
        key = (sample.asset_id, PACK.name, sample.rig)
        location = {SHARD.name: shard, SAMPLE.name: sample.key, SHARD_SHA256.name: sha256}
        self._add(self._event(key, data=location))
        self._owners[sample.shard].discard(key)

    def record_deleted(self, paths: Collection[str]) -> None:
        """Clear the results that these files hold; measurements stay."""
        cleared: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key in sorted({key for path in paths for key in self._owners.get(path, ())}):
            asset_id, stage, rig = key
            columns = self._files[stage].location
            data = {column.name: self._rows[key][column.name] for column in columns}
            self._add(self._event(key, data=data, status=CLEARED, kind=_COMPACTED))
            cleared[stage, rig].append(asset_id)
        for (stage, rig), ids in cleared.items():
            self._clear_staged(stage, rig, ids)

    def _clear_staged(self, stage: str, rig: str, ids: Sequence[str]) -> None:
        """Record that the staged files of these results do not exist any more either."""
        for source, file in self._files.items():
            if file.until != stage:
                continue
            for asset_id, event in self._catalog.newest(ids, source, rig).items():
                row = self._rows[asset_id, stage, rig]
                if all(getattr(event, name) == row[name] for name in _INPUT_COLUMNS):
                    self._add(replace(event, data={**event.data, file.path.name: None}))

    def _event(self, key: ResultKey, **fields: Any) -> Event:
        """Return an event of a result, made from the same input as the result itself."""
        asset_id, stage, rig = key
        same_input = {name: self._rows[key][name] for name in _INPUT_COLUMNS}
        return Event(asset_id=asset_id, stage=stage, rig=rig, **same_input, **fields)

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
