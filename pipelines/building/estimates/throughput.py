"""How many objects per hour builds got done, from when their events were committed."""

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
    "Pace",
    "Timeline",
    "builds",
    "recent_throughput",
    "seconds_to_go",
    "timeline",
]

RECENT = timedelta(hours=1)
OUTCOMES = ("packed", "stopped", "failed")
"""How an object ends its way through a build: in a shard; before it, by a filter or because the
build ended; by a failure."""
_WIDTHS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 604800]
"""Seconds of a timeline's bars."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a build, or the end of it, got done."""

    started: datetime
    ended: datetime
    objects: int
    """That were worked on; those that a filter drops by their listing are no work."""

    @property
    def per_hour(self) -> float | None:
        """Objects per hour; None if all were committed at one moment."""
        hours = (self.ended - self.started) / timedelta(hours=1)
        return self.objects / hours if hours > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "started": self.started.isoformat(),
            "ended": self.ended.isoformat(),
            "objects": self.objects,
            "per_hour": None if self.per_hour is None else round(self.per_hour, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Objects that ended, per bar of time."""

    started: datetime
    bar_seconds: int
    counts: dict[str, Sequence[int]]
    """By outcome."""

    @property
    def num_bars(self) -> int:
        """How many bars there are; the last may be cut short by the end of the work."""
        return len(self.counts[OUTCOMES[0]])


def builds(endings: pa.Table) -> list[Pace]:
    """Every build that did work, oldest first. `endings` is what the catalog's method returns."""
    found = []
    for run in pc.unique(endings["run"]).to_pylist():
        own = endings.filter(pc.equal(endings["run"], run))
        worked = _worked(own)
        if worked.num_rows:
            found.append(
                Pace(
                    started=pc.min(own["started"]).as_py(),
                    ended=pc.max(own["time"]).as_py(),
                    objects=pc.sum(worked["objects"]).as_py(),
                )
            )
    return sorted(found, key=lambda pace: pace.started)


def recent_throughput(catalog: Catalog, pending: int) -> dict[str, Any]:
    """Two fields of `lrm status --json`: the pace of the last build in the last hour that anything
    happened, and the seconds until no object is pending at that pace (None if it is not known)."""
    found = builds(catalog.endings(RECENT))
    recent = found[-1] if found else None
    return {
        "throughput": recent and recent.to_dict(),
        "seconds_to_go": seconds_to_go(pending, recent),
    }


def seconds_to_go(pending: int, recent: Pace | None) -> float | None:
    """Until no object is pending, at a recent pace; None if that is not known."""
    if not pending:
        return 0.0
    rate = recent.per_hour if recent else None
    return round(3600 * pending / rate, 1) if rate else None


def timeline(endings: pa.Table, most_bars: int = 96) -> Timeline | None:
    """When objects ended, in bars of a round length; None if nothing was worked on yet."""
    worked = _worked(endings)
    if not worked.num_rows:
        return None
    started, ended = pc.min(endings["started"]).as_py(), pc.max(worked["time"]).as_py()
    width = _bar_seconds((ended - started).total_seconds(), most_bars)
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


def _worked(endings: pa.Table) -> pa.Table:
    notes = pa.array([LIST.stage, REMOVE.stage])
    return endings.filter(pc.invert(pc.is_in(endings["stage"], value_set=notes)))


def _outcomes(worked: pa.Table) -> np.ndarray:
    failed = pc.equal(worked["status"], "failed").to_numpy()
    packed = pc.equal(worked["stage"], PACK.name).to_numpy()
    return np.select([failed, packed], [2, 0], default=1)


def _bar_seconds(span: float, most_bars: int) -> int:
    """The least of the round lengths that makes few enough bars."""
    for width in _WIDTHS:
        if span / width < most_bars:
            return width
    return _WIDTHS[-1] * -int(-span // (_WIDTHS[-1] * most_bars))
