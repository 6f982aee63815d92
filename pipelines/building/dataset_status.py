"""The state of a dataset: the funnel of `lrm status` and the details of `lrm inspect`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadInput, WorkFailed
from core.storage import Storage
from dataset.catalog.event_columns import LIST, LISTED
from dataset.catalog.event_log import Catalog, StageRecord
from dataset.columns import sum_by_name
from dataset.root import read_build
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decider, Decision, Decisions
from pipelines.building.object_table import Objects, latest_of, load_objects
from pipelines.building.projection import with_event
from pipelines.building.stages import geometry
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.pack import SAMPLE, SHARD
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import Stage

__all__ = [
    "DatasetState",
    "count_dropped",
    "count_failed",
    "inspect_object",
    "inspect_objects",
    "load_dataset_state",
    "stored_config",
    "summarise",
]

_INSPECTED_AT_ONCE = 500
"""Objects whose events are in memory at the same time; the log is read once for all of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetState:
    """All listed objects and the decisions on them under one configuration."""

    config: BuildConfig
    objects: Objects
    decisions: Decisions
    """The decisions on the objects, in the same order."""

    @property
    def kept(self) -> Iterator[ObjectState]:
        """The objects whose samples are in a shard, in the order of their ids."""
        return self.objects.states(np.flatnonzero(self.decisions.where("kept")))

    def with_decisions(self) -> Iterator[tuple[ObjectState, Decision]]:
        """Yield every object with its decision, in the order of the ids.

        Slow for large datasets; use `decisions` to handle all objects at once.
        """
        for row, state in enumerate(self.objects.states(np.arange(len(self.objects)))):
            yield state, self.decisions.at(row)

    def geometry_path(self, state: ObjectState) -> str | None:
        """Return the path of an object's companion geometry below the root; None without one."""
        return _geometry_path(state, self.decider)

    @cached_property
    def decider(self) -> Decider:
        """The decider for the configuration."""
        return Decider(self.config)


def stored_config(root: Storage, build: Mapping[str, Any] | None = None) -> BuildConfig:
    """Return the configuration of the last build. Raises WorkFailed if there is none.

    `build` is the content of build.json if it was read before.
    """
    build = read_build(root) if build is None else build
    if "config" not in build:
        raise WorkFailed(f"{root.uri}: build.json has no configuration; restore it from a backup")
    return BuildConfig.load(build["config"], where=f"{root.uri}: build.json")


def load_dataset_state(
    root: Storage, columns: list[str] | None = None, config: BuildConfig | None = None
) -> DatasetState:
    """Read the catalog and decide on every object: verdicts are computed, not stored.

    `columns` limits which columns are read, by their names without the stage; by default all.
    `config` replaces the configuration of the last build.
    """
    config = config or stored_config(root)
    decider = Decider(config)
    objects = load_objects(latest_of(root), decider, columns)
    decisions = decider.decide_all(objects.columns)
    return DatasetState(config=config, objects=objects, decisions=decisions)


def summarise(dataset_state: DatasetState) -> dict[str, Any]:
    """Return the counts of `lrm status --json`: listed = kept + dropped + failed + pending."""
    decisions = dataset_state.decisions
    return {
        "listed": len(dataset_state.objects),
        "kept": int(decisions.where("kept").sum()),
        "dropped": count_dropped(decisions),
        "failed": count_failed(dataset_state),
        "pending": int(decisions.where("pending").sum()),
        "unsure": _count_uncertain(decisions),
        "bytes": _bytes(dataset_state),
        "stages": _stages(dataset_state),
        "rig": dataset_state.config.rig,
    }


def count_dropped(decisions: Decisions) -> dict[str, int]:
    """Return the number of dropped objects per reason; an object counts for its first reason."""
    counts: dict[str, int] = {}
    for (_, reason), number in zip(
        decisions.reasons, np.bincount(decisions.reason + 1)[1:].tolist(), strict=False
    ):
        counts[reason] = counts.get(reason, 0) + number
    return _largest_first(counts)


def count_failed(dataset_state: DatasetState) -> dict[str, int]:
    """Return the number of failed objects per failure kind."""
    counts: dict[str, int] = {}
    for index, outcome in enumerate(dataset_state.decisions.outcomes):
        failed_here = dataset_state.decisions.failed == index
        if failed_here.any():
            kinds = dataset_state.objects.table[outcome.kind.key].filter(failed_here)
            for item in pc.value_counts(kinds.cast(pa.string())).to_pylist():
                counts[item["values"]] = counts.get(item["values"], 0) + item["counts"]
    return _largest_first(counts)


def _largest_first(counts: dict[str, int]) -> dict[str, int]:
    positive = {name: number for name, number in counts.items() if number}
    return dict(sorted(positive.items(), key=lambda item: -item[1]))


def _count_uncertain(decisions: Decisions) -> int:
    """Return the number of kept objects that a filter has a remark on, such as an unclear case."""
    has_remark = np.zeros(len(decisions), dtype=bool)
    for filter_, filter_result in decisions.filter_results:
        for where in filter_result.remarks.values():
            has_remark |= where & decisions.known[filter_.needs]
    return int((has_remark & decisions.where("kept")).sum())


def _bytes(dataset_state: DatasetState) -> dict[str, int]:
    """Return the stored bytes per label of `StoredBytes`; output counts for kept objects only."""
    columns, kept = dataset_state.objects.columns, dataset_state.decisions.where("kept")
    totals = {}
    for stage in STAGES:
        if stage.stores is not None:
            sizes = columns.numbers(stage.stores.column)
            if stage.stores.is_output:
                sizes = sizes[kept & dataset_state.decider.valid(stage, columns)]
            totals[stage.stores.label] = int(np.nansum(sizes))
    return totals


def _stages(dataset_state: DatasetState) -> dict[str, dict[str, Any]]:
    """Return per stage the objects that passed it, its seconds, and the seconds of its parts."""
    columns = dataset_state.objects.columns
    stages = {}
    for stage in dataset_state.decider.stages:
        valid = dataset_state.decider.valid(stage, columns)
        good = valid & columns.one_of(stage.events.status, {"ok"})
        seconds = columns.numbers(stage.events.seconds)[valid]
        stages[stage.name] = {
            "done": int(good.sum()),
            "seconds": round(float(np.nansum(seconds)), 3),
            "parts": _parts(dataset_state.objects, stage, valid),
        }
    return stages


def _parts(objects: Objects, stage: Stage, valid: np.ndarray) -> dict[str, float]:
    """Return the seconds of all valid objects in each part of a stage, longest first."""
    key = stage.events.timings.key
    if key not in objects.table.column_names:
        return {}
    totals = sum_by_name(objects.table[key].filter(valid)).items()
    return {part: round(spent, 3) for part, spent in sorted(totals, key=lambda item: -item[1])}


def inspect_object(root: Storage, asset_id: str) -> dict[str, Any]:
    """Return the JSON of `lrm inspect --json`: everything the catalog holds on one object.

    Raises BadInput for an object that is not listed.
    """
    return next(inspect_objects(root, [asset_id]))


def inspect_objects(root: Storage, asset_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield what `inspect_object` returns, for several objects."""
    config = stored_config(root)
    decider, catalog = Decider(config), Catalog(root)
    for start in range(0, len(asset_ids), _INSPECTED_AT_ONCE):
        block = asset_ids[start : start + _INSPECTED_AT_ONCE]
        for asset_id, history in catalog.histories(block).items():
            yield _inspected(asset_id, history, decider, config.rig)


def _inspected(
    asset_id: str, history: list[StageRecord], decider: Decider, rig: str
) -> dict[str, Any]:
    if not history:
        raise BadInput(f"{asset_id}: not in this dataset")
    state, newest = _replay(asset_id, history, decider)
    if state.get(LIST.status) not in LISTED:
        raise BadInput(f"{asset_id}: the source no longer lists this object")
    decision = decider.decide(state)
    failure = decision.failure
    return {
        "asset_id": asset_id,
        "state": decision.state,
        "next_stage": decision.stage and decision.stage.name,
        "dropped": [
            {name: value for name, value in asdict(verdict).items() if name != "keep"}
            for verdict in decision.verdicts
            if not verdict.keep
        ],
        "failed": failure
        and {
            "stage": failure.stage,
            "kind": failure.kind,
            "message": failure.message,
            "log_tail": newest[failure.stage].event.data.get("log_tail", ""),
        },
        "record": state.record.to_dict(),
        "measurements": {
            stage.name: dict(newest[stage.name].event.data)
            for stage in STAGES
            if stage.run is not None
            and stage.name in newest
            and newest[stage.name].event.status == "ok"
        },
        "events": [record.to_dict() for record in history],
        "samples": _samples(state, decider, rig) if decision.state == "kept" else [],
    }


def _replay(
    asset_id: str, history: list[StageRecord], decider: Decider
) -> tuple[ObjectState, dict[str, StageRecord]]:
    """Return an object's state after all its events, and the last event of each stage."""
    state, newest = ObjectState(row={"asset_id": asset_id}), {}
    for record in history:
        event = record.event
        if decider.stage_rigs.get(event.stage) == (event.stage, event.rig):
            state = with_event(state, event)
            newest[event.stage] = record
    return state, newest


def _samples(state: ObjectState, decider: Decider, rig: str) -> list[dict[str, Any]]:
    sample = {"rig": rig, "shard": state.get(SHARD), "key": state.get(SAMPLE)}
    return [sample | {"geometry": _geometry_path(state, decider)}]


def _geometry_path(state: ObjectState, decider: Decider) -> str | None:
    return state.get(geometry.PATH) if decider.holds(geometry.GEOMETRY, state) else None
