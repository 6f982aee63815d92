"""A damaged shard becomes again what it was, to the byte, so that every snapshot of it holds."""

import contextlib
import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from core.errors import WorkFailed
from core.storage import Storage
from dataset.format.shards import (
    index_path,
    read_index,
    read_members,
    scan_tar,
    write_index,
    write_shard,
)

__all__ = ["restore_shard"]


def restore_shard(
    root: Storage,
    shard: str,
    sha256: str,
    donors: Mapping[str, Mapping[str, bytes]],
    scratch: Path,
) -> bool:
    """Write a shard and its index again; whether they are now what the SHA-256 says.

    If the tar is intact, only its index is written. Else the samples of `donors` (members by key)
    take the places of the damaged ones, and the others are copied. If that does not give the very
    bytes, nothing is written.
    """
    if _index_again(root, shard, sha256):
        return True
    with contextlib.suppress(WorkFailed, OSError, EOFError):
        samples = _samples(root, shard, donors)
        write_shard(root, samples, scratch, name=lambda found: _require(shard, sha256, found))
        return True
    return False


def _index_again(root: Storage, shard: str, sha256: str) -> bool:
    try:
        with root.open(shard) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:  # type: ignore[arg-type]
                return False
            file.seek(0)
            entries = list(scan_tar(file))
        root.write(index_path(shard), write_index(entries, sha256, root.size(shard)))
    except (OSError, tarfile.TarError):
        return False
    return True


def _samples(
    root: Storage, shard: str, donors: Mapping[str, Mapping[str, bytes]]
) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """In the order of the index; without one, that of the donors."""
    try:
        entries, _ = read_index(root, shard)
    except (OSError, ValueError, KeyError, TypeError):
        yield from donors.items()
        return
    for entry in entries:
        if entry.key in donors:
            yield entry.key, donors[entry.key]
        else:
            yield entry.key, read_members(root, shard, entry, entry.members)


def _require(shard: str, sha256: str, found: str) -> str:
    if found != sha256:
        raise WorkFailed(f"{shard}: the new bytes are not the old ones")
    return shard
