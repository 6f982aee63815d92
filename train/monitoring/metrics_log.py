"""Logs of a run with one JSON object per line.

| file | a line per |
|---|---|
| metrics.jsonl | optimizer step, exactly one even if the run was killed and resumed |
| validation.jsonl | validation |
| skipped.jsonl | skipped step |
| replaced.jsonl | damaged sample |
"""

import json
import logging
import math
import os
import shlex
from pathlib import Path
from typing import Any

from core.atomic import atomic_write
from core.errors import Damaged
from core.paths.regular_file import open_regular, read_regular

__all__ = [
    "METRICS",
    "REPLACED",
    "SKIPPED",
    "VALIDATION",
    "MetricsLog",
    "last_metrics",
    "read_metrics",
]

_log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
VALIDATION = "validation.jsonl"
SKIPPED = "skipped.jsonl"
REPLACED = "replaced.jsonl"
_TAIL_BYTES = 1 << 16
"""Bytes at the end of a log that contain a whole line."""


class MetricsLog:
    """Writer of one log file, whose lines have a `step`.

    Lines of steps after `first_step`, where the run resumes, are removed first. A line that cannot
    be written (full disk) is buffered until the next write, so a log never ends the training.
    """

    def __init__(self, out: Path, first_step: int, name: str = METRICS) -> None:
        kept = [row for row in read_metrics(out, name) if row["step"] <= first_step]
        atomic_write(out / name, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = open(out / name, "ab", buffering=0)  # noqa: SIM115 - open for the whole run
        self._buffer = bytearray()
        self._failed = False

    def write(self, **values: Any) -> None:
        """Append one line; a number that is not finite becomes null, as JSON has no NaN."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._buffer += json.dumps(finite).encode() + b"\n"
        self._flush()

    def close(self) -> None:
        """Close the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        try:
            while self._buffer:
                del self._buffer[: self._file.write(self._buffer)]
        except OSError as error:
            if not self._failed:
                _log.warning(
                    "%s: cannot write: %s; its lines are buffered until there is free space",
                    *(self._file.name, error),
                )
            self._failed = True
        else:
            self._failed = False


def read_metrics(out: Path, name: str = METRICS) -> list[dict[str, Any]]:
    """Return the lines of a log; an incomplete last line, left by a kill, is ignored.

    Other damaged lines are left out with a warning. Raises Damaged if the log is no readable file.
    """
    path = out / name
    try:
        lines = read_regular(path).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Damaged(
            f"{path}: cannot be read: {error.strerror}; delete it (rm -r {shlex.quote(str(path))}) "
            "and run the same command again: the log begins anew"
        ) from None
    # Behind the last line break is nothing, or a line that a kill has cut off.
    rows = [_parse(line) for line in lines[:-1]]
    whole = [row for row in rows if row is not None]
    if len(whole) < len(rows):
        _log.warning("%s: damaged: %d of its lines are left out", path, len(rows) - len(whole))
    elif lines[-1] and not rows and not lines[-1].startswith(b"{"):
        _log.warning("warning: %s: damaged: it holds no line of a log", path)
    return whole


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line of a log; None if it is damaged or of another file."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return row


def last_metrics(out: Path) -> dict[str, Any] | None:
    """Return the last whole line of the metrics without reading the rest; None without one."""
    try:
        with open_regular(out / METRICS, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    return next(filter(None, (_parse(line) for line in reversed(lines))), None)
