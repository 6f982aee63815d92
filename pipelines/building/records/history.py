"""The builds of a dataset, oldest first: who, when, with which changes, and what they cost."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.lock import lock_holder
from core.storage import Storage
from dataset.build_records import read_records
from dataset.catalog.event_columns import CLEARED
from dataset.catalog.event_log import Catalog
from pipelines.building.stages.pack import PACK
from pipelines.building.stages.registry import STAGES

__all__ = ["history"]

_FIELDS = ("run", "command", "started", "ended", "user", "host", "pid", "rig", "limit", "error")
_DETAILS = ("settings", "versions", "listing", "accepted", "failures")
"""What a record has beside: None in those of earlier versions."""


def history(root: Storage) -> list[dict[str, Any]]:
    """Return the builds of a dataset, oldest first, as plain values for JSON.

    A build of an earlier version has no record: only the times of its events and its work are
    known.
    """
    records = read_records(root)
    work = _work_by_run(Catalog(root))
    rows = [_row(record, work.pop(record["run"], _Work())) for record in records]
    rows += [_row_without_record(run, done) for run, done in work.items() if done.is_build]
    _mark_running(rows, root)
    return sorted(rows, key=lambda row: row["started"])


class _Work:
    """The work of one run, from its events."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, int]] = {}
        """Number of events by stage and status."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.started: datetime | None = None
        self.ended: datetime | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the events of one stage and status."""
        self.stages.setdefault(row["stage"], {})[row["status"]] = row["events"]
        self.seconds[row["stage"]] += row["seconds"]
        self.started = min(self.started or row["started"], row["started"])
        self.ended = max(self.ended or row["ended"], row["ended"])

    @property
    def is_build(self) -> bool:
        """Whether a build wrote the events.

        Maintenance clears results, or moves packed samples; a build clears nothing.
        """
        of_builds = {stage.name for stage in STAGES} - {PACK.name}
        clears = any(CLEARED in done for done in self.stages.values())
        return not clears and any(
            {"ok", "failed"} & self.stages.get(stage, {}).keys() for stage in ("list", *of_builds)
        )


def _work_by_run(catalog: Catalog) -> dict[str, _Work]:
    work: defaultdict[str, _Work] = defaultdict(_Work)
    for row in catalog.run_totals().to_pylist():
        work[row["run"]].add(row)
    return dict(work)


def _row(record: Mapping[str, Any], work: _Work) -> dict[str, Any]:
    """Return the row of a build with a record."""
    row = {name: record.get(name) for name in _FIELDS}
    spent: dict[str, float] = defaultdict(float)
    for stage, seconds in work.seconds.items():
        for kind, number in record.get("reserves", {}).get(stage, {}).items():
            spent[kind] += seconds / 3600 * number
    estimate = record.get("estimate", {})
    return row | {
        "state": record.get("outcome", "stopped"),
        "objects": record.get("objects"),
        "events": work.stages,
        "spent": {kind: round(spent[kind], 4) for kind in ("core_hours", "gpu_hours")},
        "expected": {kind: estimate.get(kind) for kind in ("core_hours", "gpu_hours")},
        "changes": record.get("changes", []),
        **{name: record.get(name) for name in _DETAILS},
    }


def _row_without_record(run: str, work: _Work) -> dict[str, Any]:
    """Return the row of a build of an earlier version."""
    assert work.started is not None
    assert work.ended is not None
    nothing: dict[str, Any] = dict.fromkeys(_FIELDS)
    unknown = {"core_hours": None, "gpu_hours": None}
    return nothing | {
        "run": run,
        "command": "lrm build",
        "started": work.started.isoformat(),
        "ended": work.ended.isoformat(),
        "state": "unknown",
        "objects": None,
        "events": work.stages,
        "spent": unknown,
        "expected": unknown,
        "changes": [],
        **dict.fromkeys(_DETAILS),
    }


def _mark_running(rows: list[dict[str, Any]], root: Storage) -> None:
    """Set the state of the build that holds the dataset's lock."""
    holder = lock_holder(root)
    if holder is None:
        return
    # The newest one: the process ids of containers repeat.
    own = [row for row in rows if (row["host"], row["pid"]) == (holder.host, holder.pid)]
    if own and own[-1]["ended"] is None:
        own[-1]["state"] = "running"
