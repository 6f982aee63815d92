"""Files of a folder or bucket: checked copies, and errors that name the source."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from core.atomic import atomic_file
from core.errors import BadInput, first_line
from core.failures import FailureKind
from core.storage import Storage, storage_errors
from glb.container import glb_problem
from pipelines.transfers.outcome import Fetched, FetchFailed, file_sha256

__all__ = ["MISSING", "copy_glb", "reading"]

MISSING = "missing"
"""The version of a file that is listed and does not exist."""


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise BadInput that names the source for every storage error but FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except storage_errors() as error:
        raise BadInput(f"{name}: cannot be read: {first_line(error)}") from None


def copy_glb(storage: Storage, path: str, version: str, target: Path) -> Fetched:
    """Copy a GLB file of this version to `target`, atomically. Raises FetchFailed."""
    try:
        with atomic_file(target, sync=False) as temporary:
            _require_version(storage, path, version)
            with storage.open(path) as source, open(temporary, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 22)
            _require_version(storage, path, version)
            problem = glb_problem(temporary)
            if problem:
                raise FetchFailed(FailureKind.MALFORMED, f"{path}: {problem}")
            return Fetched(sha256=file_sha256(temporary), num_bytes=temporary.stat().st_size)
    except FileNotFoundError:
        raise FetchFailed(FailureKind.MISSING, f"{path} is listed but not in the source") from None
    except storage_errors() as error:
        raise FetchFailed(FailureKind.DOWNLOAD, f"{path}: {first_line(error)}") from None


def _require_version(storage: Storage, path: str, version: str) -> None:
    found = storage.version(path)
    if found != version:
        text = f"{path} changed since it was listed (version {version}, now {found})"
        raise FetchFailed(FailureKind.CHANGED, f"{text}; the next build takes the new file")
