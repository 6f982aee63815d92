"""The events that a damaged catalog has lost, as far as they are known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dataset.catalog.log_state import CatalogState

__all__ = ["Loss", "loss_of"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The events that were lost with a commit or with a file of events."""

    file: str
    version: int
    time: str = ""
    """Time of the commit, in ISO 8601; empty if it is unknown."""
    run: str = ""
    events: int | None = None
    """The number of events; None if it is unknown."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """The number of events by stage and status."""
    ids: Sequence[str] = ()
    """Some of the objects, all of them if there are few."""

    def __str__(self) -> str:
        number = "an unknown number of" if self.events is None else f"{self.events:,}"
        noun = "event" if self.events == 1 else "events"
        text = f"lost: {number} {noun} of version {self.version}"
        text += f" ({self.time})" if self.time else ""
        text += ": " + ", ".join(f"{n:,} {outcome}" for outcome, n in self.outcomes.items())
        text = text.removesuffix(": ")
        return text + (f" of {', '.join(self.ids)}" if self.ids else "")


def loss_of(state: CatalogState, file: str) -> Loss:
    """Return what is known of the events of a commit, or of a file of events."""
    name = file.rpartition("/")[2]
    owner = next((c for c in state.commits.values() if name in c.adds), None)
    commit = owner or state.commits[int(name.partition(".")[0])]
    stated, info = commit.stated, commit.info
    stats = json.loads(commit.adds[name].get("stats") or "{}") if owner else {}
    metrics = info.get("operationMetrics") or {}
    events = stated.get("events", stats.get("numRecords", metrics.get("num_added_rows")))
    timestamp = info.get("timestamp")
    return Loss(
        file=file,
        version=commit.version,
        time=_iso(timestamp) if isinstance(timestamp, int) else "",
        run=str(stated.get("run", "")),
        events=events if isinstance(events, int) else None,
        outcomes=stated.get("outcomes", {}),
        ids=stated.get("ids", ()),
    )


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
