"""Temporary files and folders that killed writers of `core.atomic` left beside their targets."""

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from core.paths.remove_path import remove_path

__all__ = ["LEFTOVER_SECONDS", "old_leftovers", "remove_leftovers"]

LEFTOVER_SECONDS = 3600.0
"""Seconds since the last change of a temporary file after which no process writes it any more."""
_FILE = re.compile(r"\..+\.tmp-[0-9a-f]{8}")
_FOLDER = re.compile(r"\..+\.tmp")


def old_leftovers(
    folder: Path, *, also: re.Pattern[str] | None = None
) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the old temporary files and folders directly in a folder, and their status.

    Names that match `also` count as those of temporary files. Links are not followed.
    """
    limit = time.time() - LEFTOVER_SECONDS
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            is_file = _FILE.fullmatch(entry.name) or (also and also.fullmatch(entry.name))
            if not is_file and not _FOLDER.fullmatch(entry.name):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                is_kind = stat.S_ISREG if is_file else stat.S_ISDIR
                if is_kind(status.st_mode) and status.st_mtime < limit:
                    yield Path(entry.path), status


def remove_leftovers(folder: Path) -> None:
    """Remove the old temporary files and folders directly in a folder, as far as possible."""
    with contextlib.suppress(OSError):
        for path, _ in old_leftovers(folder):
            remove_path(path, ignore_errors=True)
