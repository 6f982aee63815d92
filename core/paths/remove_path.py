"""Removal of whatever is at a path: a folder with its content, a file, a link, a pipe, a socket."""

import shutil
import stat
from pathlib import Path

__all__ = ["remove_path"]


def remove_path(path: str | Path, *, ignore_errors: bool = False) -> None:
    """Remove what is at a path, if there is anything; a link is removed, not its target.

    Nothing but folders is opened: `shutil.rmtree` opens its argument before it checks that it is a
    folder, and would wait forever for the other end of a named pipe. Raises OSError if something
    cannot be removed, unless `ignore_errors`.
    """
    path = Path(path)
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path, ignore_errors=ignore_errors)
        else:
            path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        if not ignore_errors:
            raise
