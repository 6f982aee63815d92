"""The catalog: an append-only table of what happened to every object, and its current state.

A Delta Lake table, written by one committer at a time. Nothing in it is ever changed: the state of
an object is the last event of each of its stages.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from dataset.config import canonical_json
from dataset.storage import Storage

__all__ = ["Catalog", "Event", "StageRecord"]

_SCHEMA = pa.schema(
    [
        ("seq", pa.int64()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("run", pa.string()),
        ("asset_id", pa.string()),
        ("stage", pa.string()),
        ("rig", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("data", pa.string()),
        ("seconds", pa.float64()),
    ]
)
_BATCH_BITS = 24
"""seq = table version << 24 | place in the batch: grows with every event."""
_CONFIGURATION = {
    # A pinned snapshot outlives the table's own history, so old files may go; but readers that
    # hold an old version for days must not lose its files under them.
    "delta.logRetentionDuration": "interval 365 days",
    "delta.deletedFileRetentionDuration": "interval 60 days",
}


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened: a stage of one object ended, well or badly."""

    asset_id: str
    stage: str
    key: str
    """Digest of everything the result depends on: content, stage, configuration, versions."""
    rig: str = ""
    """The rig of the stages that depend on it; empty for the others."""
    status: str = "ok"
    """`ok` or `failed`."""
    kind: str = ""
    """The kind of a failure."""
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What was measured or made: plain JSON values."""
    seconds: float = 0.0
    """Time of the stage itself, on one worker."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """An event as the catalog returns it."""

    event: Event
    seq: int
    time: datetime
    run: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {"seq": self.seq, "time": self.time.isoformat(), "run": self.run}
        return values | asdict(self.event)


class Catalog:
    """The event table below `catalog/` in a dataset's root."""

    def __init__(self, root: Storage) -> None:
        self._uri = f"{root.uri}/catalog"
        self._table: DeltaTable | None = None

    def commit(self, events: Sequence[Event], run: str, batch: int) -> None:
        """Append one batch of a run, atomically; a batch that is already there is not repeated."""
        if not events:
            return
        table = self._open()
        if table is None:
            empty = _SCHEMA.empty_table()
            write_deltalake(self._uri, empty, mode="ignore", configuration=_CONFIGURATION)
            self._table = table = DeltaTable(self._uri)
        if (table.transaction_version(run) or 0) >= batch:
            return
        first = (table.version() + 1) << _BATCH_BITS
        now = datetime.now(UTC)
        rows = [_row(event, first + i, now, run) for i, event in enumerate(events)]
        write_deltalake(
            table,
            pa.Table.from_pylist(rows, schema=_SCHEMA),
            mode="append",
            commit_properties=CommitProperties(app_transactions=[Transaction(run, batch)]),
        )

    def current(self, stages: Iterable[str] | None = None) -> dict[tuple[str, str, str], Event]:
        """The last event of every (asset id, stage, rig), in the order of the asset ids."""
        where = "" if stages is None else f"WHERE stage IN ({_quoted(stages)})"
        query = f"""
            SELECT unnest(arg_max(e, seq)) FROM (SELECT seq, e FROM events e {where})
            GROUP BY e.asset_id, e.stage, e.rig ORDER BY e.asset_id
        """  # noqa: S608 - the stage names are quoted
        return {
            (record.event.asset_id, record.event.stage, record.event.rig): record.event
            for record in self._query(query)
        }

    def history(self, asset_id: str) -> list[StageRecord]:
        """Every event of one object, oldest first."""
        query = "SELECT * FROM events WHERE asset_id = $asset_id ORDER BY seq"
        return self._query(query, {"asset_id": asset_id})

    def _query(self, query: str, parameters: dict[str, Any] | None = None) -> list[StageRecord]:
        table = self._open()
        if table is None:
            return []
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("events", table.to_pyarrow_dataset())
            rows = connection.sql(query, params=parameters or {}).to_arrow_table().to_pylist()
        return [_record(row) for row in rows]

    def _open(self) -> DeltaTable | None:
        if self._table is None:
            if not DeltaTable.is_deltatable(self._uri):
                return None
            self._table = DeltaTable(self._uri)
        self._table.update_incremental()
        return self._table


def _row(event: Event, seq: int, now: datetime, run: str) -> dict[str, Any]:
    row = asdict(event) | {"seq": seq, "time": now, "run": run}
    return row | {"data": canonical_json(event.data)}


def _record(row: dict[str, Any]) -> StageRecord:
    seq, time, run = row.pop("seq"), row.pop("time"), row.pop("run")
    event = Event(**row | {"data": json.loads(row["data"])})
    return StageRecord(event=event, seq=seq, time=time, run=run)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join("'" + name.replace("'", "''") + "'" for name in names)
