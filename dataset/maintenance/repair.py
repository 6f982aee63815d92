"""Byte-identical repair of damaged shards, so that all snapshots of them stay valid."""

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
    """Restore a shard and its index, and return whether the shard now has the SHA-256.

    If the tar is intact, only its index is written. Otherwise the samples in `donors` (members by
    key) replace those of the shard, and all others are copied from it. If the result is not
    byte-identical to the original, nothing is written.
    """
    if _restore_index(root, shard, sha256):
        return True
    with contextlib.suppress(WorkFailed, OSError, EOFError):
        samples = _samples(root, shard, donors)
        write_shard(root, samples, scratch, name=lambda digest: _require(shard, sha256, digest))
        return True
    return False


def _restore_index(root: Storage, shard: str, sha256: str) -> bool:
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
    """Yield the samples in the order of the index or, without an index, of the donors."""
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


def _require(shard: str, sha256: str, actual: str) -> str:
    if actual != sha256:
        raise WorkFailed(f"{shard}: the restored shard differs from the original")
    return shard
