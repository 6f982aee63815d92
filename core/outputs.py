"""Checks that a command can write its results, made before work that may take hours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import BadInput, WorkFailed

__all__ = ["check_writable", "writing"]


def check_writable(out: Path) -> None:
    """Raise BadInput if results cannot be written to a folder, which need not exist yet."""
    out = out.absolute()
    nearest = next(path for path in (out, *out.parents) if path.exists())
    if not nearest.is_dir():
        raise BadInput(f"--out {out}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK):
        raise BadInput(f"--out {out}: no permission to write to {nearest}")


@contextmanager
def writing(out: Path | str) -> Iterator[None]:
    """Turn an OSError of the block, which writes results to `out`, into WorkFailed."""
    try:
        yield
    except OSError as error:
        raise WorkFailed(f"--out {out}: cannot write: {error.strerror or error}") from error
