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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.atomic import atomic_write
from core.errors import Damaged
from core.paths.regular_file import open_regular, read_regular
from train.monitoring.log_lines import METRICS, REPLACED, SKIPPED, VALIDATION, parse_line

__all__ = [
    "METRICS",
    "REPLACED",
    "SKIPPED",
    "VALIDATION",
    "LogLines",
    "MetricsLog",
    "last_metrics",
    "read_log",
    "read_metrics",
]

_log = logging.getLogger(__name__)

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


@dataclass(frozen=True, kw_only=True)
class LogLines:
    """The lines of a log."""

    rows: list[dict[str, Any]]
    """The values of each line that is not damaged."""
    damaged: int
    """Number of the other lines."""


def read_metrics(out: Path, name: str = METRICS) -> list[dict[str, Any]]:
    """Return the lines of a log that are not damaged, as `read_log` does."""
    return read_log(out, name).rows


def read_log(out: Path, name: str) -> LogLines:
    """Return the lines of a log; an incomplete last line, left by a kill, is ignored.

    Damaged lines, also those of another file, are a warning. Raises Damaged if the log is no
    readable file.
    """
    path = out / name
    try:
        lines = read_regular(path).split(b"\n")
    except FileNotFoundError:
        return LogLines(rows=[], damaged=0)
    except OSError as error:
        raise Damaged(
            f"{path}: cannot be read: {error.strerror}; delete it (rm -r {shlex.quote(str(path))}) "
            "and run the same command again: the log begins anew"
        ) from None
    # Behind the last line break is nothing, or a line that a kill has cut off.
    ended, last = lines[:-1], lines[-1]
    if last and not ended and not last.startswith(b"{"):
        ended = [last]  # of another file, because a kill leaves the start of a line
    rows = [row for row in (parse_line(name, line) for line in ended) if row is not None]
    damaged = len(ended) - len(rows)
    if damaged:
        _log.warning("warning: %s: damaged: %d of its lines are left out", path, damaged)
    return LogLines(rows=rows, damaged=damaged)


def last_metrics(out: Path) -> dict[str, Any] | None:
    """Return the last whole line of the metrics without reading the rest; None without one."""
    try:
        with open_regular(out / METRICS, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    return next(filter(None, (parse_line(METRICS, line) for line in reversed(lines))), None)
