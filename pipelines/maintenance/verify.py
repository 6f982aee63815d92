"""`lrm verify`: every shard that counts is read again, and what is damaged is recorded as failed.

The next build then redoes the damaged samples, and nothing else.
"""

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from core.quantities import duration
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.maintenance.shard_check import (
    Expected,
    Finding,
    Report,
    check_geometry,
    check_shard,
    run_checks,
)
from dataset.snapshots.protection import pinned_by
from pipelines.building.dataset_status import Standing, load_standing
from pipelines.building.decide import CLEARED, DAMAGED, STATES, Decider, ObjectState
from pipelines.building.event_columns import SAMPLE_PLACE
from pipelines.building.progress import Display

__all__ = ["verify"]


@dataclass(kw_only=True)
class _Places:
    """What the catalog and the protected snapshots say of the files, and whose they are."""

    expected: dict[str, Expected]
    """By shard."""
    geometry: list[str]
    decider: Decider
    owners: dict[str, dict[str, ObjectState]]
    """Per file and sample (its key; empty for geometry), the object that counts on it."""
    pinned: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Per file, the protected snapshots that read it."""


def verify(root: Storage, workers: int) -> dict[str, Any]:
    """Check all shards and companion files; the JSON of `lrm verify --json`.

    Damage to objects that count is recorded in the catalog.
    """
    places = _places(root, load_standing(root))
    checks = [partial(check_shard, root, expected) for expected in places.expected.values()]
    checks += [partial(check_geometry, root, path) for path in places.geometry]
    reports = _run(checks, workers)
    damaged = [report for report in reports if report.findings]
    if damaged:
        # A compaction may have moved samples meanwhile: what it deleted is missed by nobody.
        now = _places(root, load_standing(root))
        damaged = [r for r in damaged if r.file in now.owners or r.file in now.pinned]
        events = [event for report in damaged for event in _events(report, now)]
        Catalog(root).commit(events, uuid.uuid4().hex, 1)
        places = now
    return {
        "shards": len(places.expected),
        "samples": sum(report.num_samples for report in reports),
        "geometry": len(places.geometry),
        "bytes": sum(report.num_bytes for report in reports),
        "damaged": sorted(
            {state.asset_id for report in damaged for state in _struck(report, places)}
        ),
        "findings": [
            _described(finding, report, places) for report in damaged for finding in report.findings
        ],
    }


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


# Where this reads the standing of the objects: the one place that knows their states.
def _places(root: Storage, standing: Standing) -> _Places:
    keys: dict[str, set[str]] = defaultdict(set)
    sums: dict[str, str] = {}
    owners: dict[str, dict[str, ObjectState]] = defaultdict(dict)
    geometry = []
    decisions = standing.decisions
    rows = np.flatnonzero(~decisions.where("dropped"))
    for row, state in zip(rows, standing.objects.states(rows), strict=True):
        place = standing.decider.broken_shard(state)
        if STATES[decisions.state[row]] == "kept":
            place = {name: state.get("pack", name) for name in SAMPLE_PLACE}
        path = standing.geometry_path(state) or _broken_geometry(state)
        if path is not None:
            geometry.append(path)
            owners[path][""] = state
        if place is not None:
            shard = place["shard"]
            keys[shard].add(place["sample"])
            sums[shard] = place["shard_sha256"]
            owners[shard][place["sample"]] = state
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
        expected=expected,
        geometry=geometry,
        decider=standing.decider,
        owners=dict(owners),
        pinned=dict(pinned),
    )


def _broken_geometry(state: ObjectState) -> str | None:
    """The companion file that an earlier verification found damaged."""
    broken = state.get("geometry", "status") == "failed"
    broken = broken and state.get("geometry", "kind") == DAMAGED
    return state.get("geometry", "path") if broken else None


def _struck(report: Report, places: _Places) -> Iterable[ObjectState]:
    """The objects that count on what is damaged."""
    owners = places.owners.get(report.file, {})
    keys = {"", *report.lost, *report.torn}
    return [state for key, state in owners.items() if key in keys]


def _events(report: Report, places: _Places) -> list[Event]:
    """What makes the next build redo the damaged samples of a file."""
    events: list[Event] = []
    for key, state in places.owners.get(report.file, {}).items():
        own = [finding for finding in report.findings if finding.sample in (key or None, None)]
        message = "; ".join(str(finding) for finding in own[:3])
        note = partial(_note, places.decider, state, message)
        if not key:
            events += note("geometry", "failed", ("path",))
        if key in report.lost:
            events += note("render", "failed", ())
        if key in report.lost | report.torn:
            events += note("pack", CLEARED, SAMPLE_PLACE)
    return events


def _note(
    decider: Decider,
    state: ObjectState,
    message: str,
    stage: str,
    status: str,
    names: Sequence[str],
) -> list[Event]:
    if state.get(stage, "status") == status:
        return []  # an earlier verification said so
    data = {name: state.get(stage, name) for name in names}
    fields = {"status": status, "kind": DAMAGED, "message": message, "data": data}
    return [decider.event(stage, state, **fields)]


def _described(finding: Finding, report: Report, places: _Places) -> dict[str, Any]:
    owners: Mapping[str, ObjectState] = places.owners.get(report.file, {})
    owner = owners.get(finding.sample or "")
    if finding.sample is None and owners:
        again = "makes it again (with --geometry)" if "" in owners else "mends it"
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
