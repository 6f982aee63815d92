"""The catalog: an append-only Delta Lake table of the events of every object.

No row is ever changed: the state of an object is the last event of each of its stages
(dataset.catalog.latest). One committer at a time writes the outcomes of a build; other commands
that add events, such as tombstones or cleared failures, may append concurrently.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, PostCommitHookProperties, Transaction

from core.lock import LockCheck
from dataset.catalog.event_columns import EVENT_SCHEMA
from dataset.catalog.event_files import stated_content, write_events
from dataset.catalog.event_table import EventTable
from dataset.catalog.events import Event, StageRecord, event_row, stage_record
from dataset.catalog.log_check import LATE_VERSIONS
from dataset.catalog.log_commits import BATCH_BITS
from dataset.catalog.log_files import commit_digest
from dataset.catalog.panic_text import without_panic_text
from dataset.columns import Column

__all__ = ["Catalog", "Event", "StageRecord"]

_OUTCOMES = pa.schema(
    [
        ("run", pa.string()),
        ("started", pa.timestamp("us", tz="UTC")),
        ("time", pa.timestamp("us", tz="UTC")),
        ("stage", pa.string()),
        ("status", pa.string()),
        ("objects", pa.int64()),
    ]
)
_STAGE_TOTALS = pa.schema(
    [
        ("stage", pa.string()),
        ("objects", pa.int64()),
        ("seconds", pa.float64()),
        ("bytes", pa.float64()),
    ]
)
_RUN_TOTALS = pa.schema(
    [
        ("run", pa.string()),
        ("stage", pa.string()),
        ("status", pa.string()),
        ("events", pa.int64()),
        ("seconds", pa.float64()),
        ("started", pa.timestamp("us", tz="UTC")),
        ("ended", pa.timestamp("us", tz="UTC")),
    ]
)
_RESULTS = pa.schema([("asset_id", pa.string()), ("content", pa.string()), ("data", pa.string())])
_COMPACT_FILES = 100
"""Every commit adds a file; more files than this are merged when a build ends."""
_SCANNED_ROWS = 16_384
"""Rows of the log in memory at a time."""
_DONE = """
    time >= $since AND status IN ('ok', 'failed')
    AND run NOT IN (SELECT run FROM events WHERE time >= $since AND status = 'cleared')
"""
"""The events of work since a time. A compaction clears the results whose files it deletes, and
repeats the events of their earlier stages, seconds included, without these files; a build clears
nothing.
"""
_RECENT_EVENTS = 100_000
"""Enough events to measure the throughput of a build."""
_HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
"""Old commits are kept, so that every checkpoint can be made again."""


class Catalog(EventTable):
    """The events below `catalog/` in a dataset's root."""

    def commit(
        self, events: Sequence[Event], run: str, batch: int, *lock_checks: LockCheck
    ) -> None:
        """Append one batch of a run atomically, unless it was appended before.

        `lock_checks` are called before every attempt, because locks can expire while the store
        fails. Raises WorkFailed if a lock was lost or every attempt failed.
        """

        def attempt() -> None:
            for check in lock_checks:
                check()
            self._append(events, run, batch)

        if events:
            # Retrying is safe: a commit whose response was lost is detected.
            self._retrying(attempt)

    def _append(self, events: Sequence[Event], run: str, batch: int) -> None:
        table = self._open() or self._create()
        before = table.version()
        if (table.transaction_version(run) or 0) < batch:
            first = (before + 1) << BATCH_BITS
            now = datetime.now(UTC)
            values = [event_row(event, first + i, now, run) for i, event in enumerate(events)]
            rows = pa.Table.from_pylist(values, schema=EVENT_SCHEMA)
            with without_panic_text():
                table.create_write_transaction(
                    [write_events(self._root, rows)],
                    "append",
                    EVENT_SCHEMA,
                    commit_properties=CommitProperties(
                        app_transactions=[Transaction(run, batch)],
                        custom_metadata=stated_content(rows, run),
                    ),
                    post_commithook_properties=_HOOKS,
                )
        self._sync_after(table, before)

    def history(self, asset_id: str) -> list[StageRecord]:
        """Return every event of one object, oldest first."""
        return self.histories([asset_id])[asset_id]

    def histories(self, asset_ids: Sequence[str]) -> dict[str, list[StageRecord]]:
        """Return every event of each of some objects, oldest first, from one pass over the log."""
        parameters = {f"id{number}": asset_id for number, asset_id in enumerate(asset_ids)}
        # Constants, unlike a list, are compared while the files are read.
        ids = ", ".join(f"${name}" for name in parameters)
        query = f"SELECT * FROM events WHERE asset_id IN ({ids}) ORDER BY seq"  # noqa: S608
        records: dict[str, list[StageRecord]] = {asset_id: [] for asset_id in asset_ids}
        for record in self._query(query, parameters) if parameters else ():
            records[record.event.asset_id].append(record)
        return records

    def outcomes(self, last: timedelta | None = None) -> pa.Table:
        """Count the objects that each run finished, by time and by their last stage in that run.

        Columns: run, started (time of their first event), time, stage, status, objects. An object
        that a run only listed has the stage `list`. The number of rows depends on the number of
        commits, not of objects. With `last`, only events of that duration before the last event
        count, or of a shorter one if there are very many, so that the query is fast on a table of
        any size.
        """
        query = f"""
            SELECT run, min(started) AS started, time, stage, status, count(*) AS objects
            FROM (
                SELECT run, min(time) AS started, max(time) AS time,
                    arg_max(stage, seq) AS stage, arg_max(status, seq) AS status
                FROM events WHERE {_DONE} GROUP BY run, asset_id
            )
            GROUP BY run, time, stage, status ORDER BY time, run, stage, status
        """  # noqa: S608 - a condition without parameters
        since = datetime.min.replace(tzinfo=UTC) if last is None else self._near_end(last)
        result = self._select(query, {"since": since})
        return _OUTCOMES.empty_table() if result is None else result.cast(_OUTCOMES)

    def stage_totals(self, since: datetime, sizes: Sequence[Column[int]] = ()) -> pa.Table:
        """Return the number of objects, worker time and bytes of each stage since a point in time.

        Columns: stage, objects (succeeded or failed), seconds (of all workers together), and bytes:
        the sum of those columns in `sizes` that belong to the stage.
        """
        cases = "".join(
            f" WHEN stage = '{column.stage}' THEN CAST(data::JSON->>'$.{column.name}' AS BIGINT)"
            for column in sizes
        )
        num_bytes = f"CASE WHEN status != 'ok' THEN 0{cases} END"
        query = f"""
            SELECT stage, count(*) AS objects, sum(seconds) AS seconds,
                coalesce(sum({num_bytes}), 0)::DOUBLE AS bytes
            FROM events WHERE {_DONE}
            GROUP BY stage ORDER BY stage
        """  # noqa: S608 - names and a condition that the code declares
        result = self._select(query, {"since": since})
        return _STAGE_TOTALS.empty_table() if result is None else result.cast(_STAGE_TOTALS)

    def run_totals(self) -> pa.Table:
        """Return the number of events, their seconds and times, by run, stage and status.

        Columns: run, stage, status, events, seconds, started (first event), ended (last event).
        """
        query = """
            SELECT run, stage, status, count(*) AS events, sum(seconds) AS seconds,
                min(time) AS started, max(time) AS ended
            FROM events GROUP BY run, stage, status ORDER BY started, run, stage, status
        """
        result = self._select(query, {})
        return _RUN_TOTALS.empty_table() if result is None else result.cast(_RUN_TOTALS)

    def newest(self, asset_ids: Sequence[str], stage: str, rig: str) -> dict[str, Event]:
        """Return the last event of a stage and rig for each of some objects, by asset id."""
        query = """
            SELECT unnest(arg_max(e, seq)) FROM (
                SELECT seq, e FROM events e
                WHERE stage = $stage AND rig = $rig AND list_contains($asset_ids, asset_id)
            ) GROUP BY e.asset_id
        """
        parameters = {"stage": stage, "rig": rig, "asset_ids": list(asset_ids)}
        return {record.event.asset_id: record.event for record in self._query(query, parameters)}

    def distinct_results(self, asset_ids: pa.Array, stage: str) -> pa.Table:
        """Return the results that a stage ever had for these objects, each once.

        Columns: asset_id, content, data (JSON). Only events with status `ok` count.
        """
        query = """
            SELECT asset_id, content, any_value(data) AS data
            FROM events SEMI JOIN wanted USING (asset_id)
            WHERE stage = $stage AND status = 'ok' GROUP BY asset_id, content
        """
        wanted = pa.table({"asset_id": asset_ids})
        result = self._select(query, {"stage": stage}, wanted=wanted)
        return _RESULTS.empty_table() if result is None else result.cast(_RESULTS)

    def files(self) -> frozenset[str]:
        """Return the names of the current files of the log."""
        table = self._retrying(self._open)
        return frozenset() if table is None else frozenset(map(_name, table.file_uris()))

    def since(self, seq: int, known: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yield batches of all events after `seq` that are not in the files `known`, unordered.

        Some earlier events may be included, because a concurrent writer may have added them late,
        or because small files were merged into one that is not `known`. `data` is JSON.
        """
        table = self._retrying(self._open)
        if table is not None:
            after = pc.field("seq") > seq - (LATE_VERSIONS << BATCH_BITS)
            dataset = self._events(table)
            for fragment in dataset.get_fragments():
                if _name(fragment.path) not in known:
                    self._require_same(_name(fragment.path))
                    read = partial(
                        fragment.to_batches, dataset.schema, filter=after, batch_size=_SCANNED_ROWS
                    )
                    # A file of an object store is read whole, so that a retry repeats no rows.
                    # Local files are not retried, so they are streamed, which saves memory.
                    local = self._root.is_local
                    with self._explained():
                        yield from read() if local else self._retrying(lambda: list(read()))  # noqa: B023

    def last_seq(self) -> int:
        """Return an upper bound of `seq` of all current events; 0 if there are none."""
        table = self._retrying(self._open)
        return 0 if table is None else (table.version() + 1) << BATCH_BITS

    def digest(self, seq: int) -> str:
        """Return the SHA-256 of the last commit before `seq`; empty if its file is missing."""
        return commit_digest(self._root, (seq >> BATCH_BITS) - 1)

    def compact(self) -> None:
        """Merge small files into large ones if there are many; only the committer may call it."""

        def merge() -> None:
            table = self._open()
            if table is not None and len(table.file_uris()) > _COMPACT_FILES:
                before = table.version()
                table.optimize.compact(post_commithook_properties=_HOOKS)
                self._sync_after(table, before)

        self._retrying(merge)

    def _near_end(self, last: timedelta) -> datetime:
        """Return a time at most `last` before the last event, with not too many events after it.

        It is estimated from the table's statistics, as if the events of a file were evenly spaced.
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
        result = self._select(query, parameters)
        return [] if result is None else [stage_record(row) for row in result.to_pylist()]


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
