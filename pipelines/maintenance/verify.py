"""`lrm verify`: every shard that counts is read again, and what is damaged is recorded as failed.

The next build then redoes the damaged samples, and nothing else.
"""

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from core.failures import FailureKind
from core.quantities import duration
from core.storage import Storage
from dataset.catalog.event_columns import CLEARED
from dataset.catalog.event_log import Catalog, Event
from dataset.columns import Column
from dataset.maintenance.shard_check import Expected, Finding, Report, check_shard, run_checks
from dataset.snapshots.protection import pinned_by
from pipelines.building.dataset_status import Standing, load_standing
from pipelines.building.decide import STATES, Decider
from pipelines.building.progress import Display
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.pack import (
    PACK,
    SAMPLE,
    SAMPLE_PLACE,
    SHARD,
    SHARD_SHA256,
    broken_shard,
)
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.render import RENDER
from pipelines.building.stages.stage import Stage

__all__ = ["companion_stages", "verify"]


@dataclass(kw_only=True)
class _Places:
    """What the catalog and the protected snapshots say of the files, and whose they are."""

    shards: dict[str, Expected]
    companions: list[tuple[Stage, str]]
    """The companion files of all objects, with the stage that makes them."""
    decider: Decider
    owners: dict[str, dict[str, ObjectState]]
    """Per file and sample (its key; empty for a companion file), the object that it belongs to."""
    pinned: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Per file, the protected snapshots that read it."""

    @cached_property
    def stage_of(self) -> dict[str, Stage]:
        """The stage that makes each companion file, by path."""
        return {path: stage for stage, path in self.companions}


def verify(root: Storage, workers: int) -> dict[str, Any]:
    """Check all shards and companion files; the JSON of `lrm verify --json`.

    Damage to objects that count is recorded in the catalog.
    """
    places = _places(root, load_standing(root))
    checks = [partial(check_shard, root, expected) for expected in places.shards.values()]
    checks += [
        partial(stage.file.check, root, path)
        for stage, path in places.companions
        if stage.file is not None and stage.file.check is not None
    ]
    reports = _run(checks, workers)
    damaged = [report for report in reports if report.findings]
    if damaged:
        # A compaction may have moved samples meanwhile: nothing refers to what it deleted.
        now = _places(root, load_standing(root))
        damaged = [r for r in damaged if r.file in now.owners or r.file in now.pinned]
        events = [event for report in damaged for event in _events(report, now)]
        Catalog(root).commit(events, uuid.uuid4().hex, 1)
        places = now
    companions = Counter(stage.name for stage, _ in places.companions)
    return {
        "shards": len(places.shards),
        "samples": sum(report.num_samples for report in reports),
        **{stage.name: companions[stage.name] for stage in companion_stages()},
        "bytes": sum(report.num_bytes for report in reports),
        "damaged": sorted(
            {state.asset_id for report in damaged for state in _struck(report, places)}
        ),
        "findings": [
            _described(finding, report, places) for report in damaged for finding in report.findings
        ],
    }


def companion_stages() -> list[Stage]:
    """Return the stages that make a file per object which can be verified."""
    return [stage for stage in STAGES if stage.file is not None and stage.file.check is not None]


def _run(checks: Sequence[Any], workers: int) -> list[Report]:
    display, counts, reports = Display(), Counter[str](), []
    num_bytes = 0

    def line() -> str:
        return _progress_line(len(checks), counts, num_bytes, time.monotonic() - display.started)

    try:
        for report in run_checks(checks, workers):
            reports.append(report)
            counts["damaged" if report.findings else "good"] += 1
            num_bytes += report.num_bytes
            display.show(line)
        if checks:
            display.end(line())
    finally:
        display.close()
    return sorted(reports, key=lambda report: report.file)


def _places(root: Storage, standing: Standing) -> _Places:
    keys: dict[str, set[str]] = defaultdict(set)
    sums: dict[str, str] = {}
    owners: dict[str, dict[str, ObjectState]] = defaultdict(dict)
    companions, with_files = [], companion_stages()
    decisions, decider = standing.decisions, standing.decider
    rows = np.flatnonzero(~decisions.where("dropped"))
    for row, state in zip(rows, standing.objects.states(rows), strict=True):
        for stage in with_files:
            path = _companion_file(stage, state, decider)
            if path is not None:
                companions.append((stage, path))
                owners[path][""] = state
        place = broken_shard(state, decider.identities)
        if STATES[decisions.state[row]] == "kept":
            place = {column.name: state.require(column) for column in SAMPLE_PLACE}
        if place is not None:
            shard, key = place[SHARD.name], place[SAMPLE.name]
            keys[shard].add(key)
            sums[shard] = place[SHARD_SHA256.name]
            owners[shard][key] = state
    pinned: dict[str, list[str]] = defaultdict(list)
    for snapshot in pinned_by(root):
        if snapshot.is_protected:
            for shard, pinned_keys in snapshot.samples.items():
                keys[shard] |= pinned_keys
                pinned[shard].append(snapshot.snapshot_id)
    expected = {
        shard: Expected(shard=shard, sha256=sums.get(shard, ""), keys=frozenset(keys[shard]))
        for shard in sorted(keys)
    }
    return _Places(
        shards=expected,
        companions=companions,
        decider=decider,
        owners=dict(owners),
        pinned=dict(pinned),
    )


def _companion_file(stage: Stage, state: ObjectState, decider: Decider) -> str | None:
    """Return an object's companion file: a valid one, or one that was found damaged earlier."""
    assert stage.file is not None
    damaged = state.get(stage.events.status) == "failed"
    damaged = damaged and state.get(stage.events.kind) == FailureKind.SAMPLE_DAMAGED
    return state.get(stage.file.path) if damaged or decider.holds(stage, state) else None


def _struck(report: Report, places: _Places) -> Iterable[ObjectState]:
    """Return the objects that the damaged part of a file belongs to."""
    owners = places.owners.get(report.file, {})
    keys = {"", *report.lost, *report.torn}
    return [state for key, state in owners.items() if key in keys]


def _events(report: Report, places: _Places) -> list[Event]:
    """Return the events that make the next build redo the damaged samples of a file."""
    events: list[Event] = []
    for key, state in places.owners.get(report.file, {}).items():
        own = [finding for finding in report.findings if finding.sample in (key or None, None)]
        message = "; ".join(str(finding) for finding in own[:3])
        note = partial(_note, places.decider, state, message)
        if not key:
            stage = places.stage_of[report.file]
            events += note(stage, "failed", stage.file.place if stage.file else ())
        if key in report.lost:
            events += note(RENDER, "failed", ())
        if key in report.lost | report.torn:
            events += note(PACK, CLEARED, SAMPLE_PLACE)
    return events


def _note(
    decider: Decider,
    state: ObjectState,
    message: str,
    stage: Stage,
    status: str,
    columns: Sequence[Column[str]],
) -> list[Event]:
    if state.get(stage.events.status) == status:
        return []  # an earlier verification recorded it
    data = {column.name: state.get(column) for column in columns}
    kind = FailureKind.SAMPLE_DAMAGED
    fields = {"status": status, "kind": kind, "message": message, "data": data}
    return [decider.identities.event(stage, state, **fields)]


def _described(finding: Finding, report: Report, places: _Places) -> dict[str, Any]:
    owners: Mapping[str, ObjectState] = places.owners.get(report.file, {})
    owner = owners.get(finding.sample or "")
    if finding.sample is None and owners:
        companion = places.stage_of.get(report.file)
        again = f"makes it again (with {companion.option})" if companion else "mends it"
        remedy = f"`lrm build` {again}"
    elif owner is not None:
        again = "renders it" if finding.sample in report.lost else "writes its shard"
        remedy = f"`lrm build` {again} again"
    else:
        snapshots = ", ".join(places.pinned.get(report.file, []))
        remedy = f"only snapshot {snapshots} reads it: restore the file, or freeze a new snapshot"
    return asdict(finding) | {
        "asset_id": owner.asset_id if owner else None,
        "remedy": remedy,
        "text": f"{finding}; {remedy}",
    }


def _progress_line(total: int, counts: Mapping[str, int], num_bytes: int, elapsed: float) -> str:
    ended = sum(counts.values())
    left = duration(elapsed / ended * (total - ended) if ended else None)
    damaged = f", {counts['damaged']} damaged" if counts.get("damaged") else ""
    rate = num_bytes / 1e6 / max(elapsed, 1e-9)
    files = f"{ended}/{total} files{damaged}"
    return f"[{duration(elapsed)}] {files} | {rate:.0f} MB/s | {left} to go"
