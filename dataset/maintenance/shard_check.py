"""Checks of shards: the tar is read once and compared with its index and the catalog's checksum.

A finding names the shard, the sample and the member that are damaged, as far as they are known.
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
"""Errors that the Parquet reader raises for damaged indexes; includes FileNotFoundError."""
_TORN_TAR = (tarfile.TarError, ValueError, EOFError, OverflowError)
"""Errors that the tar reader raises for damaged headers."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected state of a shard, according to the catalog."""

    shard: str
    """Path of the tar below the dataset's root."""
    sha256: str
    """SHA-256 of the tar; empty if only the index has it."""
    keys: frozenset[str]
    """Keys of the samples in use; damage to other samples of the shard is harmless."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem of a file."""

    file: str
    sample: str | None = None
    """Key of the sample; None if the problem concerns the whole file."""
    member: str | None = None
    problem: str

    def __str__(self) -> str:
        member = f".{self.member}" if self.member else ""
        sample = f"{self.sample}{member}: " if self.sample else ""
        return f"{self.file}: {sample}{self.problem}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of the check of one file."""

    file: str
    num_bytes: int = 0
    num_samples: int = 0
    findings: tuple[Finding, ...] = ()
    lost: frozenset[str] = frozenset()
    """Keys of samples whose bytes are damaged or missing: they must be rendered again."""
    torn: frozenset[str] = frozenset()
    """Keys of samples whose bytes are intact in a damaged shard or index: the file can be restored
    from them."""


@dataclass
class _Scan:
    """The actual content of a tar."""

    entries: dict[str, SampleEntry] = field(default_factory=dict)
    """Entries up to the first damaged header."""
    sha256: str = ""
    num_bytes: int = 0


def check_shard(root: Storage, expected: Expected) -> Report:
    """Read a shard sequentially, and compare it with its index and its checksum."""
    shard = expected.shard
    index, metadata, problem = _read_index(root, shard)
    in_index = [Finding(file=index_path(shard), problem=problem)] if problem else []
    try:
        with root.open(shard) as file:
            scan = _scan(file)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        problem = "the shard is missing" if missing else f"the shard cannot be read: {error}"
        findings = [Finding(file=shard, problem=problem), *in_index]
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
        problem = "cannot be checked without the index"
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
    """Read a companion file and verify all its checksums."""
    try:
        read_geometry(root, path)
        return Report(file=path, num_bytes=root.size(path))
    except WorkFailed as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        problem = "the file is missing" if missing else f"is damaged: {error.__cause__}"
        return Report(file=path, findings=(Finding(file=path, problem=problem),))


def run_checks(checks: Sequence[Callable[[], Report]], workers: int) -> Iterator[Report]:
    """Run checks on several threads, and yield reports as they finish; hashing releases the GIL."""
    pool = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(check) for check in checks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_index(
    root: Storage, shard: str
) -> tuple[dict[str, SampleEntry] | None, dict[str, str], str]:
    """Return the index entries by key (or None), the index's metadata, and its problem, if any."""
    try:
        entries, metadata = read_index(root, shard)
    except FileNotFoundError:
        return None, {}, "the index is missing"
    except _UNREADABLE_INDEX as error:
        return None, {}, f"the index is torn: {str(error).splitlines()[0]}"
    return {entry.key: entry for entry in entries}, metadata, ""


class _HashingReader:
    """A reader of a file that computes the SHA-256 of all bytes read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hasher = hashlib.sha256()
        self.num_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, as a file does."""
        data = self._file.read(size)
        self.hasher.update(data)
        self.num_bytes += len(data)
        return data


def _scan(file: IO[bytes]) -> _Scan:
    """Read a whole tar; a damaged header ends the entries, but not the checksum."""
    scan, reader = _Scan(), _HashingReader(file)
    try:
        for entry in scan_tar(reader):
            scan.entries[entry.key] = entry
    except _TORN_TAR:
        pass  # the checksum shows the damage, and the index has the samples that follow it
    while reader.read(1 << 20):
        pass
    scan.sha256, scan.num_bytes = reader.hasher.hexdigest(), reader.num_bytes
    return scan


def _index_errors(
    shard: str, index: Mapping[str, SampleEntry], metadata: Mapping[str, str], scan: _Scan
) -> list[Finding]:
    """Return the differences of an index from its intact tar."""
    path, findings = index_path(shard), []
    facts = {"shard_sha256": scan.sha256, "shard_bytes": str(scan.num_bytes)}
    for name, value in facts.items():
        if metadata.get(name) != value:
            findings.append(Finding(file=path, problem=f"says {name} {metadata.get(name)}"))
    for key in sorted({*index, *scan.entries}):
        listed, actual = index.get(key), scan.entries.get(key)
        if listed is None or actual is None:
            problem = "is not in the index" if listed is None else "is in the index only"
            findings.append(Finding(file=path, sample=key, problem=problem))
        elif _plain(listed) != _plain(actual):
            member = _first_difference(listed, actual)
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
    """Compare a damaged tar with its index, and return the findings and the lost and torn keys."""
    shard, findings = expected.shard, []
    lost = {key for key in expected.keys if key not in index}
    findings += [_of(shard, key, "is not in the index") for key in sorted(lost)]
    size = int(metadata.get("shard_bytes") or scan.num_bytes)
    if scan.num_bytes != size:
        defect = "is cut off" if scan.num_bytes < size else "is too long"
        problem = f"{defect}: {scan.num_bytes} bytes instead of {size}"
        findings.append(Finding(file=shard, problem=problem))
    intact: list[str] = []
    for key in sorted(expected.keys & index.keys(), key=lambda key: index[key].offsets[0]):
        actual = scan.entries.get(key)
        if actual is not None and _plain(actual) == _plain(index[key]):
            continue
        damaged = list(_damaged_members(root, shard, index[key], scan.num_bytes))
        findings += damaged
        if damaged:
            lost.add(key)
        else:
            intact.append(key)
    if intact and not lost:
        problem = "a tar header is damaged; the pictures are intact"
        findings.append(_of(shard, intact[0], problem))
    elif not findings:
        problem = "differs from its checksum, but not in a sample that is in use"
        findings.append(Finding(file=shard, problem=problem))
    # Packing one sample again restores the whole file.
    torn = frozenset() if lost else frozenset(intact[:1] or sorted(expected.keys)[:1])
    return findings, frozenset(lost), torn


def _damaged_members(
    root: Storage, shard: str, entry: SampleEntry, num_bytes: int
) -> Iterator[Finding]:
    """Yield a finding for each member of a sample that is damaged or missing."""
    for name, offset, size, crc32 in zip(
        entry.members, entry.offsets, entry.sizes, entry.crc32, strict=True
    ):
        if offset + size > num_bytes:
            yield _of(shard, entry.key, "is beyond the end of the shard", name)
        elif zlib.crc32(root.read_range(shard, offset, offset + size)) != crc32:
            yield _of(shard, entry.key, "fails its checksum", name)


def _of(shard: str, key: str, problem: str, member: str | None = None) -> Finding:
    return Finding(file=shard, sample=key, member=member, problem=problem)


def _plain(entry: SampleEntry) -> list[Any]:
    """Return an entry as lists, because a list never equals a tuple of the same values."""
    return [list(part) for part in (entry.members, entry.offsets, entry.sizes, entry.crc32)]


def _first_difference(listed: SampleEntry, actual: SampleEntry) -> str:
    """Return the name of the first member in which two entries differ."""
    rows = (
        zip(entry.members, entry.offsets, entry.sizes, entry.crc32, strict=False)
        for entry in (listed, actual)
    )
    different = (one[0] for one, other in zip(*rows, strict=False) if one != other)
    return next(different, (*listed.members, *actual.members)[-1])
