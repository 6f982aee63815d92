"""Whether a command's results can be written, asked before the work: hours would be lost after."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import BadInput, WorkFailed

__all__ = ["check_writable", "writing"]


def check_writable(out: Path) -> None:
    """Of a folder that is there or will be made. Raises BadInput."""
    out = out.absolute()
    place = next(folder for folder in (out, *out.parents) if folder.exists())
    if not place.is_dir():
        raise BadInput(f"--out {out}: {place} is no folder")
    if not os.access(place, os.W_OK):
        raise BadInput(f"--out {out}: may not write to {place}")


@contextmanager
def writing(out: Path | str) -> Iterator[None]:
    """While results are written. Raises WorkFailed naming the folder, and what the system says."""
    try:
        yield
    except OSError as error:
        raise WorkFailed(f"--out {out}: cannot write: {error.strerror or error}") from error
