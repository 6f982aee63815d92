"""One event of the catalog, and its row in the table."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from core.config import canonical_json

__all__ = ["Event", "StageRecord", "event_row", "stage_record"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """The outcome of one stage of one object."""

    asset_id: str
    stage: str
    content: str = ""
    """The input: a version of the object's file, or the SHA-256 of its bytes."""
    settings: str = ""
    """Digest of everything else that the result depends on: configuration and versions."""
    rig: str = ""
    """The rig, for stages that depend on it; otherwise empty."""
    status: str = "ok"
    """`ok`, `failed`, `gone` (no longer listed) or `cleared` (earlier results are withdrawn)."""
    kind: str = ""
    """The failure kind, or the reason of a `cleared` event."""
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Measurements and other results, as plain JSON values."""
    seconds: float = 0.0
    """Duration of the stage on one worker."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """An event with the fields that the catalog added when it was committed."""

    event: Event
    seq: int
    time: datetime
    run: str

    def to_dict(self) -> dict[str, Any]:
        """Convert the record to plain values for JSON."""
        values = {"seq": self.seq, "time": self.time.isoformat(), "run": self.run}
        return values | asdict(self.event)


def event_row(event: Event, seq: int, now: datetime, run: str) -> dict[str, Any]:
    """Return the row of an event."""
    row = {name: getattr(event, name) for name in Event.__dataclass_fields__}
    return row | {"seq": seq, "time": now, "run": run, "data": canonical_json(event.data)}


def stage_record(row: dict[str, Any]) -> StageRecord:
    """Return the event of a row, with the fields that the catalog added."""
    seq, time, run = row.pop("seq"), row.pop("time"), row.pop("run")
    event = Event(**row | {"data": json.loads(row["data"])})
    return StageRecord(event=event, seq=seq, time=time, run=run)
