"""The catalog: an append-only table of what happened to every object.

A Delta Lake table. Nothing in it is ever changed: the state of an object is the last event of each
of its stages (dataset.catalog.latest). One committer at a time writes the outcomes of a build;
whoever adds a note of another kind (a tombstone, a cleared failure) may append beside it.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from core.config import canonical_json
from core.errors import WorkFailed
from core.lock import Check
from core.retry import Backoff, retry
from core.storage import Storage, storage_errors
from dataset.columns import Column

__all__ = ["Catalog", "Event", "StageRecord"]

T = TypeVar("T")
_log = logging.getLogger(__name__)

_SCHEMA = pa.schema(
    [
        ("seq", pa.int64()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("run", pa.string()),
        ("asset_id", pa.string()),
        ("stage", pa.string()),
        ("rig", pa.string()),
        ("content", pa.string()),
        ("settings", pa.string()),
        ("status", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("data", pa.string()),
        ("seconds", pa.float64()),
    ]
)
_ENDINGS = pa.schema(
    [
        ("run", pa.string()),
        ("started", pa.timestamp("us", tz="UTC")),
        ("time", pa.timestamp("us", tz="UTC")),
        ("stage", pa.string()),
        ("status", pa.string()),
        ("objects", pa.int64()),
    ]
)
_EFFORT = pa.schema(
    [
        ("stage", pa.string()),
        ("objects", pa.int64()),
        ("seconds", pa.float64()),
        ("bytes", pa.float64()),
    ]
)
_BATCH_BITS = 24
"""seq = table version << 24 | place in the batch: grows with every event."""
_LATE_VERSIONS = 64
"""Who appends beside the committer numbers by the version he saw: he may be late by a few."""
_COMPACT_FILES = 100
"""Every commit adds a file: so many small ones are made one when a build ends."""
_ATTEMPTS = 12
_BACKOFF = Backoff(first_seconds=1.0, max_seconds=60.0, jitter=0.5)
"""The waits between all attempts take about five minutes."""
_SILENT = 3
"""This many failures in a row are usual and not logged."""
_SCANNED_ROWS = 16_384
_RECENT_EVENTS = 100_000
"""Enough to tell how fast a build works."""
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
    content: str = ""
    """What of the object it was made from: a version of its file, or the SHA-256 of its bytes."""
    settings: str = ""
    """Digest of all else that the result depends on: configuration and versions."""
    rig: str = ""
    """The rig of the stages that depend on it; empty for the others."""
    status: str = "ok"
    """`ok`, `failed`, `gone` (no longer listed) or `cleared` (as if it had never happened)."""
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
        self._root = root
        self._uri = f"{root.uri}/catalog"
        self._options = _delta_options(root)
        self._table: DeltaTable | None = None

    def commit(self, events: Sequence[Event], run: str, batch: int, *still_ours: Check) -> None:
        """Append one batch of a run, atomically; a batch that is already there is not repeated.

        `still_ours` checks the locks before every attempt, because they can expire while the store
        fails. Raises WorkFailed if a lock was lost or every attempt failed.
        """

        def attempt() -> None:
            for check in still_ours:
                check()
            self._append(events, run, batch)

        if events:
            # Repeating is safe: it detects a commit whose answer was lost.
            self._retrying(attempt)

    def _append(self, events: Sequence[Event], run: str, batch: int) -> None:
        table = self._open()
        if table is None:
            empty = _SCHEMA.empty_table()
            write_deltalake(
                self._uri,
                empty,
                mode="ignore",
                configuration=_CONFIGURATION,
                storage_options=self._options,
            )
            self._table = table = DeltaTable(self._uri, storage_options=self._options)
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

    def history(self, asset_id: str) -> list[StageRecord]:
        """Every event of one object, oldest first."""
        query = "SELECT * FROM events WHERE asset_id = $asset_id ORDER BY seq"
        return self._query(query, {"asset_id": asset_id})

    def endings(self, last: timedelta | None = None) -> pa.Table:
        """How many objects ended their way through a run, and when, by their last stage there.

        Columns: run, started (the first event of any of them), time, stage, status, objects. An
        object that a run only listed has the stage `list`. The rows are as many as there were
        commits, not as there are objects. `last` asks for that much of the end of the table, or
        less where very many events lie in it: so the answer comes at once, however large it is.
        """
        query = """
            SELECT run, min(started) AS started, time, stage, status, count(*) AS objects
            FROM (
                SELECT run, min(time) AS started, max(time) AS time,
                    arg_max(stage, seq) AS stage, arg_max(status, seq) AS status
                FROM events WHERE time >= $since AND status IN ('ok', 'failed')
                GROUP BY run, asset_id
            )
            GROUP BY run, time, stage, status ORDER BY time, run, stage, status
        """
        since = datetime.min.replace(tzinfo=UTC) if last is None else self._near_end(last)
        found = self._select(query, {"since": since})
        return _ENDINGS.empty_table() if found is None else found.cast(_ENDINGS)

    def effort(self, since: datetime, sizes: Sequence[Column[int]] = ()) -> pa.Table:
        """Return what was done since a moment, per stage.

        Columns: stage, objects (ended, well or badly), seconds of workers, and bytes: the sum of
        those of the columns `sizes` that belong to the stage.
        """
        cases = "".join(
            f" WHEN stage = '{column.stage}' THEN CAST(data::JSON->>'$.{column.name}' AS BIGINT)"
            for column in sizes
        )
        num_bytes = f"CASE WHEN status != 'ok' THEN 0{cases} END"
        query = f"""
            SELECT stage, count(*) AS objects, sum(seconds) AS seconds,
                coalesce(sum({num_bytes}), 0)::DOUBLE AS bytes
            FROM events WHERE time >= $since AND status IN ('ok', 'failed')
            GROUP BY stage ORDER BY stage
        """  # noqa: S608 - names that the code declares
        found = self._select(query, {"since": since})
        return _EFFORT.empty_table() if found is None else found.cast(_EFFORT)

    def newest(self, asset_ids: Sequence[str], stage: str, rig: str) -> dict[str, Event]:
        """The last event of a stage and rig of some objects, with all its data."""
        query = """
            SELECT unnest(arg_max(e, seq)) FROM (
                SELECT seq, e FROM events e
                WHERE stage = $stage AND rig = $rig AND list_contains($asset_ids, asset_id)
            ) GROUP BY e.asset_id
        """
        wanted = {"stage": stage, "rig": rig, "asset_ids": list(asset_ids)}
        return {record.event.asset_id: record.event for record in self._query(query, wanted)}

    def files(self) -> frozenset[str]:
        """The names of the files of the log, as it is now."""
        table = self._retrying(self._open)
        return frozenset() if table is None else frozenset(map(_name, table.file_uris()))

    def since(self, seq: int, known: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        """Every event after `seq`, in no order, but those in the files `known`; `data` as JSON.

        A few before it may be among them: those that a second writer might have added late. A file
        that is not known may still hold old events, if small files were made one.
        """
        table = self._retrying(self._open)
        if table is not None:
            after = pc.field("seq") > seq - (_LATE_VERSIONS << _BATCH_BITS)
            dataset = table.to_pyarrow_dataset()
            for fragment in dataset.get_fragments():
                if _name(fragment.path) not in known:
                    read = partial(
                        fragment.to_batches, dataset.schema, filter=after, batch_size=_SCANNED_ROWS
                    )
                    # A file of a store is read whole, so that a retry repeats no rows. Local files
                    # are not retried and are streamed, which saves memory.
                    local = self._root.is_local
                    yield from read() if local else self._retrying(lambda: list(read()))  # noqa: B023

    def last_seq(self) -> int:
        """At least the number of any event that is there now; 0 if there are none."""
        table = self._retrying(self._open)
        return 0 if table is None else (table.version() + 1) << _BATCH_BITS

    def compact(self) -> None:
        """Make many small files a few large ones, if it is worth it. For the committer."""

        def work() -> None:
            table = self._open()
            if table is not None and len(table.file_uris()) > _COMPACT_FILES:
                table.optimize.compact()

        self._retrying(work)

    def _near_end(self, last: timedelta) -> datetime:
        """A moment at most `last` before the last event, after which not too many events lie.

        By the table's own statistics, as if the events of a file came evenly.
        """
        table = self._retrying(self._open)
        files = [] if table is None else pa.table(table.get_add_actions(flatten=True)).to_pylist()
        files = sorted((f for f in files if f["max.time"]), key=lambda f: f["max.time"])
        if not files:
            return datetime.now(UTC)
        until = since = files[-1]["max.time"]
        events = 0
        while files and events < _RECENT_EVENTS and until - since < last:
            file = files.pop()
            since, events = min(since, file["min.time"]), events + file["num_records"]
        return until - min(last, (until - since) * min(1.0, _RECENT_EVENTS / max(1, events)))

    def _query(self, query: str, parameters: dict[str, Any]) -> list[StageRecord]:
        found = self._select(query, parameters)
        return [] if found is None else [_record(row) for row in found.to_pylist()]

    def _select(self, query: str, parameters: dict[str, Any]) -> pa.Table | None:
        """The answer to a query of the table `events`; None if nothing was ever committed."""
        return self._retrying(lambda: self._answer(query, parameters))

    def _answer(self, query: str, parameters: dict[str, Any]) -> pa.Table | None:
        table = self._open()
        if table is None:
            return None
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("events", table.to_pyarrow_dataset())
            return connection.sql(query, params=parameters).to_arrow_table()

    def _retrying(self, work: Callable[[], T]) -> T:
        """Return what `work` reads or writes, retried while an object store fails.

        Raises WorkFailed after the last attempt. A local table is not retried.
        """
        if self._root.is_local:
            return work()
        try:
            return retry(
                work,
                attempts=_ATTEMPTS,
                wait=_BACKOFF.seconds,
                is_transient=lambda error: isinstance(error, _store_errors()),
                before_wait=self._reset,
            )
        except _store_errors() as error:
            self._table = None
            problem = _one_line(error)
        raise WorkFailed(
            f"{self._uri}: the store failed {_ATTEMPTS} times, last with: {problem}; the same "
            "command goes on"
        )

    def _reset(self, failures: int, error: Exception, seconds: float) -> None:
        """Open the table anew in the next attempt; log failures that are not usual."""
        self._table = None
        if failures > _SILENT:
            _log.warning("%s: %s; asked again", self._uri, _one_line(error))

    def _open(self) -> DeltaTable | None:
        if self._table is None:
            if not DeltaTable.is_deltatable(self._uri, self._options):
                return None
            self._table = DeltaTable(self._uri, storage_options=self._options)
        self._table.update_incremental()
        return self._table


def _delta_options(root: Storage) -> dict[str, str]:
    """What Delta Lake's own client of the store needs to be told beside the environment."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    # A store of one's own, in a network of one's own, may do without TLS.
    plain = not root.is_local and endpoint.startswith("http://")
    return {"AWS_ALLOW_HTTP": "true"} if plain else {}


def _store_errors() -> tuple[type[Exception], ...]:
    return storage_errors(DeltaError, duckdb.Error)


def _one_line(error: Exception) -> str:
    """Return the error's text in one line: Delta Lake prints causes as a coloured tree."""
    plain = re.sub(r"\x1b\[\d+m", "", str(error))
    return ": ".join(filter(None, (line.strip(" \u21b3") for line in plain.splitlines()))) or repr(
        error
    )


def _row(event: Event, seq: int, now: datetime, run: str) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in Event.__dataclass_fields__}
    return row | {"seq": seq, "time": now, "run": run, "data": canonical_json(event.data)}


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _record(row: dict[str, Any]) -> StageRecord:
    seq, time, run = row.pop("seq"), row.pop("time"), row.pop("run")
    event = Event(**row | {"data": json.loads(row["data"])})
    return StageRecord(event=event, seq=seq, time=time, run=run)
