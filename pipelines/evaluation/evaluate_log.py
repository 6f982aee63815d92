"""The log of evaluated objects, so that an interrupted evaluation can be resumed."""

import json
from pathlib import Path
from typing import Any, Self

from core.config import digest

__all__ = ["RowLog", "state_of"]

_FILE = "rows.jsonl"


class RowLog:
    """The rows of evaluated objects, each with a digest of its whole input (its identity)."""

    def __init__(self, folder: Path) -> None:
        """Read the log in a folder, and open it to append rows."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _FILE
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
                self._rows[entry["row"]["object"], entry["identity"]] = entry["row"]
            except (ValueError, KeyError, TypeError):
                continue  # a line cut off by a kill: this object is evaluated again
        self._file = open(path, "a")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def find(self, name: str, identity: Any) -> dict[str, Any] | None:
        """Return an object's row for this identity, if the log has it."""
        return self._rows.get((name, digest(identity)))

    def add(self, identity: Any, row: dict[str, Any]) -> None:
        """Append a row, unless the object failed: failed objects are evaluated again."""
        if row["error"] is None:
            line = json.dumps({"identity": digest(identity), "row": row})
            self._file.write(f"\n{line}")  # the newline ends a line that a kill cut off
            self._file.flush()


def state_of(path: Path) -> Any:
    """Return a fingerprint of a file, or of all files of a folder, to detect changes.

    It consists of paths, sizes and modification times; it is empty if nothing exists at `path`.
    """
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [(str(file), file.stat()) for file in paths if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
