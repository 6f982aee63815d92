"""The files of events that a commit adds: named by their content, and flushed before the commit.

Delta Lake flushes nothing to disk. On a local disk, the file of events is therefore written and
flushed first, then committed, and the commit is believed only when its own file is flushed.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import AddAction

from core.atomic import flush
from core.storage import Storage
from dataset.catalog.event_columns import EVENT_SCHEMA
from dataset.catalog.log_commits import BATCH_BITS, STATED, read_commit
from dataset.catalog.log_files import (
    CATALOG,
    HINT,
    LOG,
    commit_path,
    file_problem,
    is_named_by_digest,
    list_log,
    record_last_commit,
)
from dataset.catalog.table_uri import delta_options, table_uri

__all__ = [
    "UNREADABLE",
    "add_action",
    "check_events",
    "create_table",
    "stated_content",
    "sync_commits",
    "version_of_events",
    "write_events",
]

UNREADABLE = (OSError, pa.ArrowException, ValueError, KeyError, TypeError, EOFError)
"""Errors of files that are missing, torn or not what their name says."""
_CONFIGURATION = {
    # Snapshots do not need the table's history, so old files may be deleted, but not while a reader
    # may still use an old version, which can take days.
    "delta.logRetentionDuration": "interval 365 days",
    "delta.deletedFileRetentionDuration": "interval 60 days",
}
_MAX_STATED = 32
"""Characters of a text's least and greatest value in the log."""
_MAX_IDS = 20
"""Objects that a commit's information names, so that a lost file of a few events is known."""


def create_table(root: Storage) -> DeltaTable:
    """Create the table without events, unless it exists."""
    uri, options = table_uri(root), delta_options(root)
    write_deltalake(
        uri,
        EVENT_SCHEMA.empty_table(),
        mode="ignore",
        configuration=_CONFIGURATION,
        storage_options=options,
    )
    return DeltaTable(uri, storage_options=options)


def write_events(root: Storage, rows: pa.Table) -> AddAction:
    """Write events as a file of the catalog, named by its SHA-256, and return its entry."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    name = f"{hashlib.sha256(data).hexdigest()}.parquet"
    root.write(f"{CATALOG}/{name}", data)
    return add_action(name, len(data), rows)


def add_action(name: str, size: int, rows: pa.Table) -> AddAction:
    """Return the entry of the log for a file with these events."""
    ranges = {column: pc.min_max(rows[column]).as_py() for column in rows.column_names}
    stats = {
        "numRecords": rows.num_rows,
        "minValues": {name: _stated(ends["min"], "") for name, ends in ranges.items()},
        "maxValues": {name: _stated(ends["max"], "\U0010ffff") for name, ends in ranges.items()},
        "nullCount": {name: rows[name].null_count for name in rows.column_names},
    }
    return AddAction(name, size, {}, int(time() * 1000), True, json.dumps(stats))


def check_events(root: Storage, name: str, add: Mapping[str, Any]) -> tuple[str, int]:
    """Return what is wrong with a file of events, and the number of its events."""
    problem = file_problem(root, name, add)
    if problem:
        return problem, 0
    try:
        data = root.read(f"{CATALOG}/{name}")
        rows = pq.read_table(pa.BufferReader(data), page_checksum_verification=True).num_rows
    except UNREADABLE:
        return "is torn or damaged", 0
    if is_named_by_digest(name) and hashlib.sha256(data).hexdigest() != name.partition(".")[0]:
        return "does not have the SHA-256 of its name", rows
    stated = _stated_rows(add)
    return ("" if stated in (None, rows) else f"has {rows} events instead of {stated}"), rows


def _stated_rows(add: Mapping[str, Any]) -> int | None:
    try:
        return int(json.loads(add["stats"])["numRecords"])
    except (KeyError, TypeError, ValueError):
        return None


def version_of_events(root: Storage, name: str) -> int | None:
    """Return the version that all events of an intact file belong to; None otherwise."""
    problem, num_events = check_events(root, name, {})
    if problem or not num_events:
        return None
    try:
        data = pa.BufferReader(root.read(f"{CATALOG}/{name}"))
        seqs = pq.read_table(data, columns=["seq"])["seq"]
    except UNREADABLE:
        return None
    ends = pc.min_max(seqs).as_py()
    first, last = (int(ends[end]) >> BATCH_BITS for end in ("min", "max"))
    return first if first == last else None


def stated_content(rows: pa.Table, run: str) -> dict[str, Any]:
    """Return the information of a commit about its events: what `lrm repair` says is lost."""
    outcomes = Counter(zip(rows["stage"].to_pylist(), rows["status"].to_pylist(), strict=True))
    content = {
        "run": run,
        "files": 1,
        "events": rows.num_rows,
        "outcomes": {" ".join(outcome): number for outcome, number in sorted(outcomes.items())},
        "ids": pc.unique(rows["asset_id"])[:_MAX_IDS].to_pylist(),
    }
    return {STATED: content}


def sync_commits(root: Storage, first: int, last: int) -> None:
    """Flush these commits of a local table to disk, with their files and checkpoints; record the
    last one as done.

    Object stores need no flush. With the first commit, the folders above are flushed, too.
    """
    if not root.is_local:
        return
    files = [path for version in range(first, last + 1) for path in _files(root, version)]
    checkpoints = list_log(root).checkpoints if _has_checkpoint(first, last) else {}
    for version in set(checkpoints) & set(range(first, last + 1)):
        files += [f"{LOG}/{name}" for name in checkpoints[version]] + [HINT]
    for path in [*files, CATALOG, LOG]:
        with contextlib.suppress(FileNotFoundError):
            flush(Path(root.resolve(path)))
    if first == 0:
        for folder in (Path(root.uri), *Path(root.uri).parents):
            flush(folder)
    record_last_commit(root, last)


def _files(root: Storage, version: int) -> list[str]:
    """Return the paths of a commit and of the files that it adds."""
    # A file that is named by its content was flushed before its commit.
    adds = read_commit(root, version).adds
    added = [f"{CATALOG}/{name}" for name in adds if not is_named_by_digest(name)]
    return [*added, commit_path(version)]


def _has_checkpoint(first: int, last: int) -> bool:
    """Return whether Delta Lake writes a checkpoint after one of these commits."""
    return (last + 1) // _CHECKPOINT_INTERVAL > first // _CHECKPOINT_INTERVAL


_CHECKPOINT_INTERVAL = 100
"""Commits between two checkpoints, the default of Delta Lake."""


def _stated(value: Any, end: str) -> Any:
    """Return an end of a column's range as JSON of the log; a text that is cut gets another end."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, str) and len(value) > _MAX_STATED:
        return value[:_MAX_STATED] + end
    return value
