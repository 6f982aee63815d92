"""Is a shard what was written? The tar is read once, against its index and the catalog's checksum.

What is wrong is named as closely as the bytes allow: the shard, the sample, the member.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import IO, Any

from core.errors import WorkFailed
from core.storage import Storage
from dataset.format.geometry import read_geometry
from dataset.format.shards import SampleEntry, index_path, read_index, scan_tar

__all__ = ["Expected", "Finding", "Report", "check_geometry", "check_shard", "run_checks"]

_UNREADABLE_INDEX = (OSError, ValueError, KeyError, TypeError)
"""What the Parquet reader raises at bytes that are no index. FileNotFoundError is one, too."""
_TORN_TAR = (tarfile.TarError, ValueError, EOFError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the catalog says of a shard."""

    shard: str
    """Path of the tar below the dataset's root."""
    sha256: str
    """Of the tar; empty if only its index knows it."""
    keys: frozenset[str]
    """The samples that count; others may lie in the shard and may rot."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    file: str
    sample: str | None = None
    """Its key; None where the whole file is meant."""
    member: str | None = None
    problem: str

    def __str__(self) -> str:
        member = f".{self.member}" if self.member else ""
        sample = f"{self.sample}{member}: " if self.sample else ""
        return f"{self.file}: {sample}{self.problem}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of checking one file."""

    file: str
    num_bytes: int = 0
    num_samples: int = 0
    findings: tuple[Finding, ...] = ()
    lost: frozenset[str] = frozenset()
    """Samples (keys) whose bytes are damaged or gone: they must be made again."""
    torn: frozenset[str] = frozenset()
    """Samples whose bytes are intact, while the shard or the index around them is not: the file
    can be written again from what is there."""


@dataclass
class _Scan:
    """A tar as it is now."""

    entries: dict[str, SampleEntry] = field(default_factory=dict)
    """As far as its headers can be followed."""
    sha256: str = ""
    num_bytes: int = 0


def check_shard(root: Storage, expected: Expected) -> Report:
    """Read a shard from front to back and compare it with its index and its checksum."""
    shard = expected.shard
    index, metadata, problem = _read_index(root, shard)
    in_index = [Finding(file=index_path(shard), problem=problem)] if problem else []
    try:
        with root.open(shard) as file:
            scan = _scan(file)
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        why = "the shard is missing" if gone else f"the shard cannot be read: {error}"
        findings = [Finding(file=shard, problem=why), *in_index]
        findings += [_of(shard, key, "is lost with its shard") for key in sorted(expected.keys)]
        return Report(file=shard, findings=tuple(findings), lost=expected.keys)
    if scan.sha256 == (expected.sha256 or metadata.get("shard_sha256")):
        in_index += _index_errors(shard, index, metadata, scan) if index is not None else []
        lost = expected.keys - scan.entries.keys()
        findings = in_index + [_of(shard, key, "is not in the shard") for key in sorted(lost)]
        torn = expected.keys - lost if in_index else frozenset()
    elif index is None:
        lost, torn = expected.keys, frozenset[str]()
        findings = [*in_index, Finding(file=shard, problem="differs from its checksum")]
        problem = "cannot be told from damage without the index"
        findings += [_of(shard, key, problem) for key in sorted(lost)]
    else:
        findings, lost, torn = _damage(root, expected, index, metadata, scan)
    return Report(
        file=shard,
        num_bytes=scan.num_bytes,
        num_samples=len(expected.keys),
        findings=tuple(findings),
        lost=lost,
        torn=torn,
    )


def check_geometry(root: Storage, path: str) -> Report:
    """Read a companion file, with all its checksums."""
    try:
        read_geometry(root, path)
        return Report(file=path, num_bytes=root.size(path))
    except WorkFailed as error:
        gone = isinstance(error.__cause__, FileNotFoundError)
        problem = "the file is missing" if gone else f"is damaged: {error.__cause__}"
        return Report(file=path, findings=(Finding(file=path, problem=problem),))


def run_checks(checks: Sequence[Callable[[], Report]], workers: int) -> Iterator[Report]:
    """Do checks on several threads (hashing lets others run); reports as they come."""
    pool = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(check) for check in checks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_index(
    root: Storage, shard: str
) -> tuple[dict[str, SampleEntry] | None, dict[str, str], str]:
    """The index by key, its metadata, and what is wrong with it."""
    try:
        entries, metadata = read_index(root, shard)
    except FileNotFoundError:
        return None, {}, "the index is missing"
    except _UNREADABLE_INDEX as error:
        return None, {}, f"the index is torn: {str(error).splitlines()[0]}"
    return {entry.key: entry for entry in entries}, metadata, ""


class _Hashing:
    """Passes a file through, and knows the SHA-256 of what passed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hasher = hashlib.sha256()
        self.num_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """As a file does."""
        data = self._file.read(size)
        self.hasher.update(data)
        self.num_bytes += len(data)
        return data


def _scan(file: IO[bytes]) -> _Scan:
    scan, reader = _Scan(), _Hashing(file)
    try:
        for entry in scan_tar(reader):
            scan.entries[entry.key] = entry
    except _TORN_TAR:
        pass  # the checksum tells, and the index says what lies behind
    while reader.read(1 << 20):
        pass
    scan.sha256, scan.num_bytes = reader.hasher.hexdigest(), reader.num_bytes
    return scan


def _index_errors(
    shard: str, index: Mapping[str, SampleEntry], metadata: Mapping[str, str], scan: _Scan
) -> list[Finding]:
    """How an index differs from the intact tar beside it."""
    path, findings = index_path(shard), []
    facts = {"shard_sha256": scan.sha256, "shard_bytes": str(scan.num_bytes)}
    for name, value in facts.items():
        if metadata.get(name) != value:
            findings.append(Finding(file=path, problem=f"says {name} {metadata.get(name)}"))
    for key in sorted({*index, *scan.entries}):
        told, found = index.get(key), scan.entries.get(key)
        if told is None or found is None:
            where = "is not in the index" if told is None else "is in the index only"
            findings.append(Finding(file=path, sample=key, problem=where))
        elif _plain(told) != _plain(found):
            member = _first_difference(told, found)
            problem = "the index disagrees with the tar"
            findings.append(Finding(file=path, sample=key, member=member, problem=problem))
    return findings


def _damage(
    root: Storage,
    expected: Expected,
    index: Mapping[str, SampleEntry],
    metadata: Mapping[str, str],
    scan: _Scan,
) -> tuple[list[Finding], frozenset[str], frozenset[str]]:
    """What is wrong with a tar that is not what was written, by its index: findings, lost, torn."""
    shard, findings = expected.shard, []
    lost = {key for key in expected.keys if key not in index}
    findings += [_of(shard, key, "is not in the index") for key in sorted(lost)]
    size = int(metadata.get("shard_bytes") or scan.num_bytes)
    if scan.num_bytes != size:
        what = "is cut off" if scan.num_bytes < size else "is too long"
        problem = f"{what}: {scan.num_bytes} bytes instead of {size}"
        findings.append(Finding(file=shard, problem=problem))
    unreached: list[str] = []
    for key in sorted(expected.keys & index.keys(), key=lambda key: index[key].offsets[0]):
        found = scan.entries.get(key)
        if found is not None and _plain(found) == _plain(index[key]):
            continue
        bad = list(_bad_members(root, shard, index[key], scan.num_bytes))
        findings += bad
        if bad:
            lost.add(key)
        else:
            unreached.append(key)
    if unreached and not lost:
        problem = "a tar header is damaged; the pictures are intact"
        findings.append(_of(shard, unreached[0], problem))
    elif not findings:
        problem = "differs from its checksum outside of all samples that count"
        findings.append(Finding(file=shard, problem=problem))
    # One sample that is packed again restores the whole file.
    torn = frozenset() if lost else frozenset(unreached[:1] or sorted(expected.keys)[:1])
    return findings, frozenset(lost), torn


def _bad_members(
    root: Storage, shard: str, entry: SampleEntry, num_bytes: int
) -> Iterator[Finding]:
    for name, offset, size, crc32 in zip(
        entry.members, entry.offsets, entry.sizes, entry.crc32, strict=True
    ):
        if offset + size > num_bytes:
            yield _of(shard, entry.key, "lies behind the end of the shard", name)
        elif zlib.crc32(root.read_range(shard, offset, offset + size)) != crc32:
            yield _of(shard, entry.key, "fails its checksum", name)


def _of(shard: str, key: str, problem: str, member: str | None = None) -> Finding:
    return Finding(file=shard, sample=key, member=member, problem=problem)


def _plain(entry: SampleEntry) -> list[Any]:
    """For comparison: lists and tuples of equal values are equal."""
    return [list(part) for part in (entry.members, entry.offsets, entry.sizes, entry.crc32)]


def _first_difference(told: SampleEntry, found: SampleEntry) -> str:
    rows = (
        zip(entry.members, entry.offsets, entry.sizes, entry.crc32, strict=False)
        for entry in (told, found)
    )
    different = (one[0] for one, other in zip(*rows, strict=False) if one != other)
    return next(different, (*told.members, *found.members)[-1])
