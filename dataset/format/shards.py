"""Shards: WebDataset tars, each with a Parquet index of byte ranges, and reads of such ranges.

The bytes of a shard depend only on its samples: equal samples give equal files.
"""

import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import Damaged, WorkFailed
from core.storage import Storage

__all__ = [
    "SampleEntry",
    "SupportsRead",
    "index_path",
    "read_index",
    "read_members",
    "read_sample_tar",
    "scan_tar",
    "write_index",
    "write_sample_tar",
    "write_shard",
    "write_tar",
]

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("members", pa.list_(pa.string())),
        ("offsets", pa.list_(pa.int64())),
        ("sizes", pa.list_(pa.int64())),
        ("crc32", pa.list_(pa.uint32())),
    ]
)


class SupportsRead(Protocol):
    """A source of bytes that is read sequentially."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, or none at the end."""


@dataclass(frozen=True, kw_only=True)
class SampleEntry:
    """The byte ranges of the members of one sample in its shard: a row of the index."""

    key: str
    members: Sequence[str]
    offsets: Sequence[int]
    sizes: Sequence[int]
    crc32: Sequence[int]

    @property
    def num_bytes(self) -> int:
        """Size of all members in bytes, without tar headers."""
        return sum(self.sizes)


def write_tar(file: IO[bytes], samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
    """Write samples (key, members) as a WebDataset tar; members are sorted by name."""
    # webdataset imports torch, which takes seconds, so it is imported only to write a shard.
    import webdataset

    with webdataset.TarWriter(
        file, mtime=0, encoder=False, compress=False, format="PAX_FORMAT"
    ) as writer:
        for key, members in samples:
            writer.write({"__key__": key, **members})


def write_sample_tar(key: str, members: Mapping[str, bytes]) -> bytes:
    """Return a tar of one sample, which a worker stages for packing."""
    file = io.BytesIO()
    write_tar(file, [(key, members)])
    return file.getvalue()


def read_sample_tar(data: bytes) -> tuple[str, dict[str, bytes]]:
    """Return key and members of a one-sample tar. Raises WorkFailed if it is torn or empty."""
    members: dict[str, bytes] = {}
    key = ""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for info in tar:
                key, _, member = info.name.partition(".")
                content = tar.extractfile(info)
                members[member] = content.read() if content else b""
    except tarfile.TarError as error:
        raise WorkFailed(f"a staged sample is torn: {error}") from error
    if not members:
        raise WorkFailed("a staged sample is empty")
    return key, members


def scan_tar(file: SupportsRead) -> Iterator[SampleEntry]:
    """Yield the index entries of a tar, computed from its headers and contents.

    The file is read once, sequentially, with one member at a time in memory.
    """
    with tarfile.open(fileobj=file, mode="r|", bufsize=1 << 20) as tar:  # type: ignore[call-overload]
        key = ""
        rows: list[tuple[str, int, int, int]] = []
        for info in tar:
            sample, _, member = info.name.partition(".")
            if rows and sample != key:
                yield _entry(key, rows)
                rows = []
            key = sample
            content = tar.extractfile(info)
            checksum = zlib.crc32(content.read() if content else b"")
            rows.append((member, info.offset_data, info.size, checksum))
        if rows:
            yield _entry(key, rows)


def _entry(key: str, rows: list[tuple[str, int, int, int]]) -> SampleEntry:
    members, offsets, sizes, checksums = zip(*rows, strict=True)
    return SampleEntry(key=key, members=members, offsets=offsets, sizes=sizes, crc32=checksums)


def write_shard(
    root: Storage,
    samples: Iterable[tuple[str, Mapping[str, bytes]]],
    scratch: Path,
    name: Callable[[str], str],
) -> tuple[str, str, list[SampleEntry]]:
    """Write samples as a shard with its index, through the local file `scratch`.

    `name` returns the shard's path for its SHA-256. Returns path, SHA-256 and the index entries,
    which are read back from the written tar. Raises WorkFailed if they differ from the samples.
    """
    expected: list[tuple[str, list[str]]] = []

    def recorded() -> Iterator[tuple[str, Mapping[str, bytes]]]:
        for key, members in samples:
            expected.append((key, sorted(members)))
            yield key, members

    with open(scratch, "wb") as file:
        write_tar(file, recorded())
    with open(scratch, "rb") as written:
        entries = list(scan_tar(written))
        written.seek(0)
        sha256 = hashlib.file_digest(written, "sha256").hexdigest()
    shard = name(sha256)
    if [(entry.key, sorted(entry.members)) for entry in entries] != expected:
        raise WorkFailed(f"{shard}: the shard does not contain the samples that were written to it")
    root.put(shard, scratch)
    # The index is written last, because a shard is complete once it has one.
    root.write(index_path(shard), write_index(entries, sha256, scratch.stat().st_size))
    return shard, sha256, entries


def index_path(shard: str) -> str:
    """Return the path of a shard's index: `a/b.tar` -> `a/b.parquet`."""
    return shard.removesuffix(".tar") + ".parquet"


def write_index(entries: Sequence[SampleEntry], sha256: str, num_bytes: int) -> bytes:
    """Return the Parquet index of a shard; its metadata has the shard's size and SHA-256."""
    columns = [[getattr(entry, name) for entry in entries] for name in INDEX_SCHEMA.names]
    metadata = {"shard_sha256": sha256, "shard_bytes": str(num_bytes)}
    table = pa.table(columns, schema=INDEX_SCHEMA.with_metadata(metadata))
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def read_index(storage: Storage, shard: str) -> tuple[list[SampleEntry], dict[str, str]]:
    """Read the entries of a shard's index, and the index's metadata."""
    table = pq.read_table(io.BytesIO(storage.read(index_path(shard))))
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    return [SampleEntry(**row) for row in table.to_pylist()], metadata


def read_members(
    storage: Storage, shard: str, entry: SampleEntry, wanted: Iterable[str]
) -> dict[str, bytes]:
    """Read the wanted members of one sample with as few range reads as possible.

    Raises Damaged if a member is not in the sample, or its bytes fail their CRC-32 twice.
    """
    numbers = {name: i for i, name in enumerate(entry.members)}
    try:
        rows = sorted((numbers[name] for name in set(wanted)), key=lambda i: entry.offsets[i])
    except KeyError as error:
        raise Damaged(f"{shard}: sample {entry.key} has no member {error}") from None
    ranges = [(entry.offsets[i], entry.offsets[i] + entry.sizes[i]) for i in rows]
    contents: dict[str, bytes] = {}
    for i, span, data in zip(rows, ranges, storage.read_ranges(shard, ranges), strict=True):
        if zlib.crc32(data) != entry.crc32[i]:
            # The damage may be in the transfer or in a cache, so the range is read again.
            (data,) = storage.read_spans(shard, [span])
            if zlib.crc32(data) != entry.crc32[i]:
                raise Damaged(f"{shard}: {entry.key}.{entry.members[i]} fails its checksum")
        contents[entry.members[i]] = data
    return contents
