"""A second name of a folder, for libraries that take a name with `[`, `*` or `?` for a pattern."""

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["plain_name"]


@contextlib.contextmanager
def plain_name(folder: Path) -> Iterator[Path]:
    """Yield a name of an existing folder that `glob` takes literally, valid during the block.

    It is the folder's own name, if possible. Other processes of the user can use it, too.
    """
    if glob.escape(str(folder)) == str(folder):
        yield folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
