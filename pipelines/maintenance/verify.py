"""`lrm verify`: reads every shard and companion file in use and records damage in the catalog.

The next build then redoes the damaged samples, and nothing else.
"""

import contextlib
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from core.failures import FailureKind
from core.quantities import duration
from core.storage import Storage
from dataset.catalog.event_columns import CLEARED
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.log_check import check_catalog
from dataset.catalog.log_state import CatalogState
from dataset.columns import Column
from dataset.maintenance.shard_check import (
    CheckReport,
    ExpectedShard,
    Finding,
    check_shard,
    run_checks,
)
from dataset.snapshots.manifests import UnreadableSnapshot, manifests
from dataset.snapshots.protection import SnapshotFiles, files_of_snapshot
from pipelines.building.dataset_status import DatasetState, load_dataset_state
from pipelines.building.decide import STATES, Decider
from pipelines.building.progress import Display
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.pack import (
    PACK,
    SAMPLE,
    SAMPLE_LOCATION,
    SHARD,
    SHARD_SHA256,
    damaged_sample_location,
)
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.render import RENDER
from pipelines.building.stages.stage import Stage
from pipelines.maintenance.catalog_repair import catalog_counts, catalog_problems
from pipelines.maintenance.file_findings import catalog_finding, snapshot_findings

__all__ = ["companion_stages", "verify"]


@dataclass(kw_only=True)
class _FileIndex:
    """The files in use, from the catalog and the protected snapshots, and their objects."""

    shards: dict[str, ExpectedShard]
    """The expected content of each shard, by path."""
    companions: list[tuple[Stage, str]]
    """The companion files of all objects, each with the stage that writes it."""
    decider: Decider
    owners: dict[str, dict[str, ObjectState]]
    """Per file, the object of each sample key; the key of a companion file is empty."""
    pinned: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Per shard, the protected snapshots that read it."""

    @cached_property
    def stage_of(self) -> dict[str, Stage]:
        """The stage that writes each companion file, by path."""
        return {path: stage for stage, path in self.companions}


def verify(root: Storage, workers: int) -> dict[str, Any]:
    """Check all shards and companion files in use and return the JSON of `lrm verify --json`.

    The catalog is checked first; if events of it are lost, nothing else is, because it names the
    files. `workers` files are checked at the same time. Damage to objects is recorded in the
    catalog.
    """
    catalog = check_catalog(root)
    problems = catalog_problems(root, catalog)
    of_catalog = [catalog_finding(root, problem) for problem in problems]
    if any(not problem.is_derived for problem in problems):
        return _result([], Counter(), (), of_catalog, catalog)
    index = _index_files(root, load_dataset_state(root))
    checks = [partial(check_shard, root, expected) for expected in index.shards.values()]
    checks += [
        partial(stage.file.check, root, path)
        for stage, path in index.companions
        if stage.file is not None and stage.file.check is not None
    ]
    reports = _run(checks, workers)
    damaged = [report for report in reports if report.findings]
    if damaged:
        # A compaction may have moved samples meanwhile: ignore files that are no longer in use.
        index = _index_files(root, load_dataset_state(root))
        damaged = [r for r in damaged if r.file in index.owners or r.file in index.pinned]
        events = [event for report in damaged for event in _events(report, index)]
        Catalog(root).commit(events, uuid.uuid4().hex, 1)
    companions = Counter(stage.name for stage, _ in index.companions)
    affected = {state.asset_id for report in damaged for state in _affected_objects(report, index)}
    findings = [_finding_dict(f, report, index) for report in damaged for f in report.findings]
    findings = [*of_catalog, *snapshot_findings(root), *findings]
    return _result(reports, companions | {"shards": len(index.shards)}, affected, findings, catalog)


def _result(
    reports: Sequence[CheckReport],
    counts: Mapping[str, int],
    damaged: Iterable[str],
    findings: Sequence[Mapping[str, Any]],
    catalog: CatalogState,
) -> dict[str, Any]:
    """Return the JSON of `lrm verify --json`."""
    return {
        "shards": counts.get("shards", 0),
        "samples": sum(report.num_samples for report in reports),
        **{stage.name: counts.get(stage.name, 0) for stage in companion_stages()},
        "bytes": sum(report.num_bytes for report in reports),
        "catalog": catalog_counts(catalog),
        "damaged": sorted(damaged),
        "findings": list(findings),
    }


def companion_stages() -> list[Stage]:
    """Return the stages that write one verifiable file per object."""
    return [stage for stage in STAGES if stage.file is not None and stage.file.check is not None]


def _run(checks: Sequence[Any], workers: int) -> list[CheckReport]:
    """Run the checks, show their progress, and return their reports, sorted by file."""
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


def _index_files(root: Storage, dataset_state: DatasetState) -> _FileIndex:
    """Return the files of all objects that are not dropped, and of protected snapshots."""
    keys: dict[str, set[str]] = defaultdict(set)
    checksums: dict[str, str] = {}
    owners: dict[str, dict[str, ObjectState]] = defaultdict(dict)
    companions, with_files = [], companion_stages()
    decisions, decider = dataset_state.decisions, dataset_state.decider
    rows = np.flatnonzero(~decisions.where("dropped"))
    for row, state in zip(rows, dataset_state.objects.states(rows), strict=True):
        for stage in with_files:
            path = _companion_file(stage, state, decider)
            if path is not None:
                companions.append((stage, path))
                owners[path][""] = state
        location = damaged_sample_location(state, decider.identities)
        if STATES[decisions.state[row]] == "kept":
            location = {column.name: state.require(column) for column in SAMPLE_LOCATION}
        if location is not None:
            shard, key = location[SHARD.name], location[SAMPLE.name]
            keys[shard].add(key)
            checksums[shard] = location[SHARD_SHA256.name]
            owners[shard][key] = state
    pinned: dict[str, list[str]] = defaultdict(list)
    for snapshot in _files_of_snapshots(root):
        if snapshot.is_protected:
            for shard, pinned_keys in snapshot.samples.items():
                keys[shard] |= pinned_keys
                pinned[shard].append(snapshot.snapshot_id)
    expected = {
        shard: ExpectedShard(
            shard=shard, sha256=checksums.get(shard, ""), keys=frozenset(keys[shard])
        )
        for shard in sorted(keys)
    }
    return _FileIndex(
        shards=expected,
        companions=companions,
        decider=decider,
        owners=dict(owners),
        pinned=dict(pinned),
    )


def _files_of_snapshots(root: Storage) -> Iterator[SnapshotFiles]:
    """Yield the files of all snapshots that can be read."""
    for manifest in manifests(root):
        if "compacted" not in manifest:
            with contextlib.suppress(UnreadableSnapshot):
                yield files_of_snapshot(root, manifest)


def _companion_file(stage: Stage, state: ObjectState, decider: Decider) -> str | None:
    """Return the path of an object's companion file, if it is valid or was found damaged."""
    assert stage.file is not None
    is_damaged = state.get(stage.events.status) == "failed"
    is_damaged = is_damaged and state.get(stage.events.kind) == FailureKind.SAMPLE_DAMAGED
    return state.get(stage.file.path) if is_damaged or decider.holds(stage, state) else None


def _affected_objects(report: CheckReport, index: _FileIndex) -> Iterable[ObjectState]:
    """Return the objects whose data in a file is damaged."""
    owners = index.owners.get(report.file, {})
    keys = {"", *report.lost, *report.restorable}
    return [state for key, state in owners.items() if key in keys]


def _events(report: CheckReport, index: _FileIndex) -> list[Event]:
    """Return the events that make the next build redo the damaged samples of a file."""
    events: list[Event] = []
    for key, state in index.owners.get(report.file, {}).items():
        own = [finding for finding in report.findings if finding.sample in (key or None, None)]
        message = "; ".join(str(finding) for finding in own[:3])
        damage_events = partial(_damage_events, index.decider, state, message)
        if not key:
            stage = index.stage_of[report.file]
            events += damage_events(stage, "failed", stage.file.location if stage.file else ())
        if key in report.lost:
            events += damage_events(RENDER, "failed", ())
        if key in report.lost | report.restorable:
            events += damage_events(PACK, CLEARED, SAMPLE_LOCATION)
    return events


def _damage_events(
    decider: Decider,
    state: ObjectState,
    message: str,
    stage: Stage,
    status: str,
    columns: Sequence[Column[str]],
) -> list[Event]:
    """Return the event that records an object's damage; none if it is recorded already."""
    if state.get(stage.events.status) == status:
        return []  # an earlier verification recorded it
    data = {column.name: state.get(column) for column in columns}
    kind = FailureKind.SAMPLE_DAMAGED
    fields = {"status": status, "kind": kind, "message": message, "data": data}
    return [decider.identities.event(stage, state, **fields)]


def _finding_dict(finding: Finding, report: CheckReport, index: _FileIndex) -> dict[str, Any]:
    """Return the JSON of a finding, with its object and what to do."""
    owners: Mapping[str, ObjectState] = index.owners.get(report.file, {})
    owner = owners.get(finding.sample or "")
    if finding.sample is None and owners:
        companion = index.stage_of.get(report.file)
        action = f"writes it again (with {companion.option})" if companion else "repairs it"
        remedy = f"`lrm build` {action}"
    elif owner is not None:
        action = "renders it again" if finding.sample in report.lost else "writes its shard again"
        remedy = f"`lrm build` {action}"
    else:
        snapshots = ", ".join(index.pinned.get(report.file, []))
        remedy = f"only snapshot {snapshots} reads it: restore the file, or create a new snapshot"
    return asdict(finding) | {
        "asset_id": owner.asset_id if owner else None,
        "remedy": remedy,
        "text": f"{finding}; {remedy}",
    }


def _progress_line(total: int, counts: Mapping[str, int], num_bytes: int, elapsed: float) -> str:
    """Return one line: elapsed time, files checked and damaged, MB/s, and the time left."""
    checked = sum(counts.values())
    damaged = f", {counts['damaged']:,} damaged" if counts.get("damaged") else ""
    noun = "file" if total == 1 else "files"
    rate = num_bytes / 1e6 / max(elapsed, 1e-9)
    line = f"[{duration(elapsed)}] {checked:,} of {total:,} {noun} checked{damaged}"
    line += f" | {rate:.0f} MB/s"
    if checked == total:
        return line
    left = elapsed / checked * (total - checked) if checked else None
    time_left = "time left unknown" if left is None else f"{duration(left)} left"
    return f"{line} | {time_left}"
