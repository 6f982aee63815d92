"""Files of a source that is a folder or bucket: checked copies, and errors with its name."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from core.atomic import atomic_file
from core.errors import BadInput, first_line
from core.failures import FailureKind
from core.storage import Storage, storage_errors
from glb.container import glb_problem
from pipelines.transfers.outcome import FetchedFile, FetchFailed, file_sha256
from pipelines.transfers.size_limit import glb_limit

__all__ = ["MISSING", "copy_glb", "read_table_file", "reading", "require_size"]

_BLOCK_BYTES = 1 << 22
MISSING = "missing"
"""The version of a file that is listed but does not exist."""


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn storage errors in the block, except FileNotFoundError, into BadInput with `name`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except storage_errors() as error:
        problem = getattr(error, "strerror", None) or first_line(error)
        raise BadInput(f"{name}: cannot read the source: {problem}") from None


def read_table_file(storage: Storage, path: str, max_bytes: int) -> bytes:
    """Return the content of a table. Raises FileNotFoundError, or BadInput if it is too large."""
    require_size(storage.resolve(path), storage.size(path), max_bytes)
    return storage.read(path)


def require_size(name: str, num_bytes: int, max_bytes: int) -> None:
    """Raise BadInput if a table is too large to be the expected file."""
    if num_bytes > max_bytes:
        limit = f"{num_bytes} bytes, more than the {max_bytes} of a table"
        raise BadInput(f"{name}: has {limit}: is it another file?")


def copy_glb(
    storage: Storage, path: str, version: str, target: Path, max_bytes: int
) -> FetchedFile:
    """Copy a GLB file to `target` atomically, if it has this version.

    Raises FetchFailed, also if it has more than `max_bytes`: before the first byte is copied, or
    when a file that grows reaches the limit.
    """
    limit = glb_limit(path, max_bytes)
    try:
        with atomic_file(target, sync=False) as temporary:
            _require_version(storage, path, version)
            limit.check(storage.size(path))
            with storage.open(path) as source, open(temporary, "wb") as file:
                while block := source.read(_BLOCK_BYTES):
                    file.write(block)
                    if file.tell() > max_bytes:
                        raise limit.exceeded()
            _require_version(storage, path, version)
            problem = glb_problem(temporary)
            if problem:
                raise FetchFailed(FailureKind.MALFORMED, f"{path}: {problem}")
            return FetchedFile(sha256=file_sha256(temporary), num_bytes=temporary.stat().st_size)
    except FileNotFoundError:
        raise FetchFailed(
            FailureKind.MISSING, f"{path}: the source lists this file but does not have it"
        ) from None
    except storage_errors() as error:
        raise FetchFailed(
            FailureKind.DOWNLOAD, f"{path}: cannot copy the file: {first_line(error)}"
        ) from None


def _require_version(storage: Storage, path: str, version: str) -> None:
    current = storage.version(path)
    if current != version:
        text = f"{path}: the file changed after it was listed (version {version}, now {current})"
        raise FetchFailed(FailureKind.CHANGED, f"{text}; the next build fetches the new file")
