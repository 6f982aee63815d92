"""Where a dataset stands: the funnel of `lrm status`, and everything about one object."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.event_log import Catalog, StageRecord
from dataset.object_record import split_asset_id
from dataset.root import read_build
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decider, Decision, Decisions
from pipelines.building.object_table import Objects, latest_of, load_objects
from pipelines.building.projection import columns_for_counts, with_event
from pipelines.building.stages import geometry
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.pack import SAMPLE, SHARD
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import Stage

__all__ = ["Standing", "inspect_object", "load_standing", "stored_config", "summarise"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """Every listed object with its decision, by the configuration of the last build."""

    config: BuildConfig
    objects: Objects
    decisions: Decisions
    """On the objects, row by row."""

    @property
    def kept(self) -> Iterator[ObjectState]:
        """The objects whose samples lie in a shard, in the order of their ids."""
        return self.objects.states(np.flatnonzero(self.decisions.where("kept")))

    def each(self) -> Iterator[tuple[ObjectState, Decision]]:
        """Every object with its decision, in the order of the ids. Slow for very many."""
        for row, state in enumerate(self.objects.states(np.arange(len(self.objects)))):
            yield state, self.decisions.at(row)

    def geometry_path(self, state: ObjectState) -> str | None:
        """Where an object's companion geometry lies below the root, if it has a valid one."""
        return _geometry_path(state, self.decider)

    @cached_property
    def decider(self) -> Decider:
        """Whoever judged these objects."""
        return Decider(self.config)


def stored_config(root: Storage) -> BuildConfig:
    """The configuration of the last build."""
    return BuildConfig.load(read_build(root)["config"], where=f"{root.uri}: build.json")


def load_standing(root: Storage, columns: list[str] | None = None) -> Standing:
    """Read the catalog and judge every object anew: verdicts are computed, not stored.

    `columns` (of all that there are) limits what is read.
    """
    config = stored_config(root)
    decider = Decider(config)
    objects = load_objects(latest_of(root), decider, columns)
    decisions = decider.decide_all(objects.columns)
    return Standing(config=config, objects=objects, decisions=decisions)


def summarise(root: Storage) -> dict[str, Any]:
    """The JSON of `lrm status --json`: listed = kept + dropped + failed + pending."""
    standing = load_standing(root, columns_for_counts())
    decisions = standing.decisions
    return {
        "listed": len(standing.objects),
        "kept": int(decisions.where("kept").sum()),
        "dropped": _dropped(decisions),
        "failed": _failed(standing),
        "pending": int(decisions.where("pending").sum()),
        "unsure": _unsure(decisions),
        "bytes": _bytes(standing),
        "stages": _stages(standing),
        "rig": standing.config.rig,
    }


def _dropped(decisions: Decisions) -> dict[str, int]:
    """Objects per reason; every object under its first one."""
    counts: dict[str, int] = {}
    for (_, reason), number in zip(
        decisions.reasons, np.bincount(decisions.reason + 1)[1:].tolist(), strict=False
    ):
        counts[reason] = counts.get(reason, 0) + number
    return _most_first(counts)


def _failed(standing: Standing) -> dict[str, int]:
    counts: dict[str, int] = {}
    for place, stage in enumerate(standing.decisions.stages):
        here = standing.decisions.failed == place
        if here.any():
            kinds = standing.objects.table[stage.events.kind.key].filter(here).cast(pa.string())
            for item in pc.value_counts(kinds).to_pylist():
                counts[item["values"]] = counts.get(item["values"], 0) + item["counts"]
    return _most_first(counts)


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    found = {name: number for name, number in counts.items() if number}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _unsure(decisions: Decisions) -> int:
    """Kept objects of which a filter has something to say that drops nothing."""
    remarked = np.zeros(len(decisions), dtype=bool)
    for link, judgement in decisions.judgements:
        for where in judgement.remarks.values():
            remarked |= where & decisions.known[link.needs]
    return int((remarked & decisions.where("kept")).sum())


def _bytes(standing: Standing) -> dict[str, int]:
    columns, kept = standing.objects.columns, standing.decisions.where("kept")
    found = {}
    for stage in STAGES:
        if stage.stores is not None:
            sizes = columns.numbers(stage.stores.column)
            if stage.stores.is_output:
                sizes = sizes[kept & standing.decider.valid(stage, columns)]
            found[stage.stores.label] = int(np.nansum(sizes))
    return found


def _stages(standing: Standing) -> dict[str, dict[str, Any]]:
    """Per stage, how many objects passed it, its seconds, and the seconds of its parts."""
    columns = standing.objects.columns
    found = {}
    for stage in standing.decider.stages:
        valid = standing.decider.valid(stage, columns)
        good = valid & columns.one_of(stage.events.status, {"ok"})
        seconds = columns.numbers(stage.events.seconds)[valid]
        found[stage.name] = {
            "done": int(good.sum()),
            "seconds": round(float(np.nansum(seconds)), 3),
            "parts": _parts(standing.objects, stage, valid),
        }
    return found


def _parts(objects: Objects, stage: Stage, valid: np.ndarray) -> dict[str, float]:
    key = stage.events.timings.key
    if key not in objects.table.column_names:
        return {}
    timings = objects.table[key].filter(valid).combine_chunks().drop_null()
    parts, seconds = timings.keys, timings.items.to_numpy(zero_copy_only=False)
    names = parts.dictionary_encode()
    sums = np.bincount(names.indices.to_numpy(), weights=seconds, minlength=len(names.dictionary))
    totals = zip(names.dictionary.to_pylist(), sums.tolist(), strict=True)
    return {part: round(spent, 3) for part, spent in sorted(totals, key=lambda item: -item[1])}


def inspect_object(root: Storage, asset_id: str) -> dict[str, Any]:
    """The JSON of `lrm inspect --json`: all that is known of one object. Raises BadInput."""
    split_asset_id(asset_id)
    config = stored_config(root)
    decider = Decider(config)
    history = Catalog(root).history(asset_id)
    if not history:
        raise BadInput(f"{asset_id}: not in this dataset")
    state, newest = _replay(asset_id, history, decider)
    if state.get(LIST.status) != "ok":
        raise BadInput(f"{asset_id}: its source does not list it any more")
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
            "stage": failure.stage.name,
            "kind": failure.kind,
            "message": failure.message,
            "log_tail": newest[failure.stage.name].event.data.get("log_tail", ""),
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
        "samples": _samples(state, decider, config.rig) if decision.state == "kept" else [],
    }


def _replay(
    asset_id: str, history: list[StageRecord], decider: Decider
) -> tuple[ObjectState, dict[str, StageRecord]]:
    """The state after all events of an object, and the newest event of each stage."""
    state, newest = ObjectState(row={"asset_id": asset_id}), {}
    for record in history:
        event = record.event
        if decider.places.get(event.stage) == (event.stage, event.rig):
            state = with_event(state, event)
            newest[event.stage] = record
    return state, newest


def _samples(state: ObjectState, decider: Decider, rig: str) -> list[dict[str, Any]]:
    sample = {"rig": rig, "shard": state.get(SHARD), "key": state.get(SAMPLE)}
    return [sample | {"geometry": _geometry_path(state, decider)}]


def _geometry_path(state: ObjectState, decider: Decider) -> str | None:
    return state.get(geometry.PATH) if decider.holds(geometry.GEOMETRY, state) else None
