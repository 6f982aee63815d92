"""What was judged before an interruption, so that it is not judged again."""

import json
from pathlib import Path
from typing import Any, Self

from core.config import digest

__all__ = ["RowLog", "state_of"]

_FILE = "rows.jsonl"


class RowLog:
    """Rows of objects, each under a digest of everything that it follows from."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _FILE
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                found = json.loads(line)
                self._rows[found["row"]["object"], found["identity"]] = found["row"]
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill: that object is judged again
        self._file = open(path, "a")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def find(self, name: str, identity: Any) -> dict[str, Any] | None:
        """The object's row from this very input."""
        return self._rows.get((name, digest(identity)))

    def add(self, identity: Any, row: dict[str, Any]) -> None:
        """Write a row down. One of a failure is not kept: it is tried again."""
        if row["error"] is None:
            line = json.dumps({"identity": digest(identity), "row": row})
            self._file.write(f"\n{line}")  # what a kill cut off ends here
            self._file.flush()


def state_of(path: Path) -> Any:
    """What tells a file, or a folder's files, from what will lie there after a change.

    Nothing for what is not there: who opens it says so.
    """
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [(str(one), one.stat()) for one in paths if one.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found]
