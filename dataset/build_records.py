"""The records of the builds of a dataset: one file for each in builds/."""

import contextlib
import json
import logging
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from core.config import canonical_json
from core.errors import first_line
from core.monitoring.notify import outcome_of
from core.process_identity import user_name
from core.storage import Storage, storage_errors
from dataset.record_schema import check_record

__all__ = ["BUILDS_FOLDER", "read_records", "recorded"]

_log = logging.getLogger(__name__)

BUILDS_FOLDER = "builds"

_READERS = 16
"""Threads that read records: an object store answers one request in about 30 ms."""


@contextlib.contextmanager
def recorded(
    root: Storage, command: str, values: Mapping[str, Any], run: str | None = None
) -> Iterator[dict[str, Any]]:
    """Write the record of a build when a block starts, and complete it when the block ends.

    `run` is the id of the build's events, if it writes any. The block may add to the yielded
    mapping, also an `error`: then the build did not complete its work. Without an end, the process
    was killed.
    """
    run = run or uuid.uuid4().hex
    started = datetime.now(UTC)
    path = f"{BUILDS_FOLDER}/{started:%Y%m%dT%H%M%SZ}-{run}.json"
    record = {
        "run": run,
        "command": command,
        "started": started.isoformat(),
        "user": user_name(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **values,
    }
    root.write(path, canonical_json(record).encode())
    try:
        yield record
        ending = {"outcome": "incomplete" if record.get("error") else "done"}
    except BaseException as error:
        ending = _ending(error)
        # The error itself may be a storage that cannot be written.
        with contextlib.suppress(*storage_errors()):
            _complete(root, path, record | ending)
        raise
    _complete(root, path, record | ending)


def read_records(root: Storage, last: int | None = None) -> list[dict[str, Any]]:
    """Return the records of all builds, oldest first, and warn of those that cannot be read.

    `last` limits the number of records to the newest ones.
    """
    names = sorted(name for name in root.list_files(BUILDS_FOLDER) if name.endswith(".json"))
    names = names if last is None else names[-last:]
    with ThreadPoolExecutor(_READERS) as readers:
        read = [*readers.map(lambda name: _read(root, name), names)]
    if problems := [record for record in read if isinstance(record, str)]:
        more = f" and {len(problems) - 1:,} more" if len(problems) > 1 else ""
        _log.warning("warning: %s%s: left out; restore or delete such files", problems[0], more)
    records = [record for record in read if isinstance(record, dict)]
    return sorted(records, key=lambda record: record["started"])


def _ending(error: BaseException) -> dict[str, str]:
    """Return how a build ended that raised an error."""
    is_interrupt = isinstance(error, KeyboardInterrupt)
    message = "interrupted" if is_interrupt else first_line(error)
    return {"outcome": outcome_of(error), "error": message}


def _complete(root: Storage, path: str, record: Mapping[str, Any]) -> None:
    ended = {"ended": datetime.now(UTC).isoformat()}
    root.write(path, canonical_json({**record, **ended}).encode())


def _read(root: Storage, name: str) -> dict[str, Any] | str | None:
    """Return a record; why it cannot be read if it is damaged; None if it was deleted."""
    path = f"{BUILDS_FOLDER}/{name}"
    try:
        record = json.loads(root.read(path))
        check_record(record)
        return {"run": "", "command": "", **record}
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        return f"{root.uri}/{path} is damaged ({first_line(error)})"
