"""The records of the builds of a dataset: one file for each in builds/."""

import contextlib
import json
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
from dataset.root import BUILDS_FOLDER

__all__ = ["read_records", "recorded"]

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
    """Return the records of all builds, oldest first, without those that cannot be read.

    `last` limits the number of records to the newest ones.
    """
    names = sorted(name for name in root.list_files(BUILDS_FOLDER) if name.endswith(".json"))
    names = names if last is None else names[-last:]
    with ThreadPoolExecutor(_READERS) as readers:
        records = readers.map(lambda name: _read(root, name), names)
        found = [record for record in records if record is not None]
    return sorted(found, key=lambda record: record["started"])


def _ending(error: BaseException) -> dict[str, str]:
    """Return how a build ended that raised an error."""
    is_interrupt = isinstance(error, KeyboardInterrupt)
    message = "interrupted" if is_interrupt else first_line(error)
    return {"outcome": outcome_of(error), "error": message}


def _complete(root: Storage, path: str, record: Mapping[str, Any]) -> None:
    ended = {"ended": datetime.now(UTC).isoformat()}
    root.write(path, canonical_json({**record, **ended}).encode())


def _read(root: Storage, name: str) -> dict[str, Any] | None:
    """Return a record; None if it was damaged or deleted."""
    try:
        record = json.loads(root.read(f"{BUILDS_FOLDER}/{name}"))
        return {"run": "", "command": "", **record} if "started" in record else None
    except (FileNotFoundError, ValueError, TypeError):
        return None
