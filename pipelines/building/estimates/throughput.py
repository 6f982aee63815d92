"""The throughput of builds in objects per hour, from the times at which events were committed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset.catalog.event_columns import LIST, REMOVE
from dataset.catalog.event_log import Catalog
from pipelines.building.stages.pack import PACK

__all__ = [
    "OUTCOMES",
    "BuildThroughput",
    "Timeline",
    "builds",
    "recent_throughput",
    "timeline",
]

_RECENT = timedelta(hours=1)
"""Length of the period, up to the last event, that the recent throughput is measured over."""
OUTCOMES = ("packed", "stopped", "failed")
"""How the work on an object ends: packed into a shard; stopped before, by a filter or because the
build ended; or failed."""
_WIDTHS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 604800]
"""Possible lengths of a timeline's bars, in seconds."""


@dataclass(frozen=True, kw_only=True)
class BuildThroughput:
    """The throughput of a build, or of its recent part."""

    started: datetime
    ended: datetime
    objects: int
    """Number of objects with a finished stage. Objects that a filter drops by their listing alone
    do not count."""

    @property
    def per_hour(self) -> float | None:
        """Objects per hour; None if all were committed at the same time."""
        hours = (self.ended - self.started) / timedelta(hours=1)
        return self.objects / hours if hours > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "started": self.started.isoformat(),
            "ended": self.ended.isoformat(),
            "objects": self.objects,
            "per_hour": None if self.per_hour is None else round(self.per_hour, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The number of objects whose work ended, per bar of time."""

    started: datetime
    bar_seconds: int
    counts: dict[str, Sequence[int]]
    """Number of objects per bar, by outcome."""

    @property
    def num_bars(self) -> int:
        """The number of bars; the work may end within the last one."""
        return len(self.counts[OUTCOMES[0]])


def builds(outcomes: pa.Table) -> list[BuildThroughput]:
    """Return the throughput of every build that did work, oldest first.

    `outcomes` is the table that `Catalog.outcomes` returns.
    """
    throughputs = []
    for run in pc.unique(outcomes["run"]).to_pylist():
        of_build = outcomes.filter(pc.equal(outcomes["run"], run))
        worked = _worked(of_build)
        if worked.num_rows:
            throughputs.append(
                BuildThroughput(
                    started=pc.min(of_build["started"]).as_py(),
                    ended=pc.max(of_build["time"]).as_py(),
                    objects=pc.sum(worked["objects"]).as_py(),
                )
            )
    return sorted(throughputs, key=lambda throughput: throughput.started)


def recent_throughput(catalog: Catalog, pending: int, work: float) -> dict[str, Any]:
    """Return two fields of `lrm status --json`.

    `throughput` is that of the last build, within the hour before the last event. `seconds_to_go`
    is the time until no object is pending, if the workers do as many seconds of work per second as
    in that time; None if that is not known. `work` is the work on the pending objects, in seconds
    of one worker.
    """
    throughputs = builds(catalog.outcomes(_RECENT))
    recent = throughputs[-1] if throughputs else None
    return {
        "throughput": recent and recent.to_dict(),
        "seconds_to_go": _seconds_to_go(catalog, pending, work, recent),
    }


def _seconds_to_go(
    catalog: Catalog, pending: int, work: float, recent: BuildThroughput | None
) -> float | None:
    if not pending:
        return 0.0
    if recent is None:
        return None
    # What was committed when the period starts was done before it.
    totals = catalog.stage_totals(recent.started + timedelta(microseconds=1))
    done = pc.sum(totals["seconds"]).as_py()
    seconds = (recent.ended - recent.started).total_seconds()
    return round(work * seconds / done, 1) if done else None


def timeline(outcomes: pa.Table, max_bars: int = 96) -> Timeline | None:
    """Return when the work on objects ended, in bars of a round length; None without any work.

    `outcomes` is the table that `Catalog.outcomes` returns.
    """
    worked = _worked(outcomes)
    if not worked.num_rows:
        return None
    started, ended = pc.min(outcomes["started"]).as_py(), pc.max(worked["time"]).as_py()
    width = _bar_seconds((ended - started).total_seconds(), max_bars)
    origin = int(started.timestamp()) // width * width
    seconds = worked["time"].cast(pa.int64()).to_numpy() // 1_000_000 - origin
    bars, objects = seconds // width, worked["objects"].to_numpy()
    outcomes = _outcomes(worked)
    counts = {
        name: np.bincount(
            bars[outcomes == i], weights=objects[outcomes == i], minlength=int(bars.max()) + 1
        )
        for i, name in enumerate(OUTCOMES)
    }
    return Timeline(
        started=datetime.fromtimestamp(origin, tz=started.tzinfo),
        bar_seconds=width,
        counts={name: values.astype(int).tolist() for name, values in counts.items()},
    )


def _worked(outcomes: pa.Table) -> pa.Table:
    """Return the rows of stages; events of the listing and removals are no work."""
    not_work = pa.array([LIST.stage, REMOVE.stage])
    return outcomes.filter(pc.invert(pc.is_in(outcomes["stage"], value_set=not_work)))


def _outcomes(worked: pa.Table) -> np.ndarray:
    """Return the index into OUTCOMES of each row."""
    failed = pc.equal(worked["status"], "failed").to_numpy()
    packed = pc.equal(worked["stage"], PACK.name).to_numpy()
    return np.select([failed, packed], [2, 0], default=1)


def _bar_seconds(span: float, max_bars: int) -> int:
    """Return the shortest round bar length in seconds that gives at most `max_bars` bars."""
    for width in _WIDTHS:
        if span / width < max_bars:
            return width
    return _WIDTHS[-1] * -int(-span // (_WIDTHS[-1] * max_bars))
