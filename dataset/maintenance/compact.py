"""Compaction: copy live samples out of shards with much garbage, and delete garbage.

A dataset never grows: a shard is rewritten only if it can be deleted afterwards, and new shards
are not smaller than those they replace, so that there are not more of them.

It is safe to kill at any time, because of its order: first new shards are written, then the catalog
records where the samples are, and only then files are deleted. A copy that the catalog does not
record is garbage, which the next compaction deletes.

The catalog needs space for its record. On a disk that is almost full, a few files that nothing
needs are therefore deleted first. If the process is killed then, `lrm verify` records the loss.
"""

import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from core.errors import WorkFailed
from core.storage import Storage
from dataset.format.shards import SampleEntry, index_path, read_index, read_members, write_shard
from dataset.snapshots.protection import SnapshotFiles, mark_compacted

__all__ = ["Compaction", "Ledger", "StoredSample", "compact", "plan_compaction"]

_READERS = 16
"""Number of threads that read shard indexes."""
_MIN_FREE = 16 << 20
"""Bytes that a commit to the catalog needs at most, with the files of its table."""
_TORN_INDEX = "its index is missing or torn: run `lrm verify`"


@dataclass(frozen=True, kw_only=True)
class StoredSample:
    """A sample in the catalog, and the shard that contains it."""

    asset_id: str
    rig: str
    shard: str
    key: str
    live: bool
    """Whether it is part of the dataset: not dropped, removed or superseded."""
    removed: bool
    """Whether it was taken down; then its bytes are deleted whatever its shard's garbage ratio."""


class Ledger(Protocol):
    """Recorder of a compaction in the catalog."""

    def record_moved(self, sample: StoredSample, shard: str, sha256: str) -> None:
        """Record that a new shard with this SHA-256 contains a sample."""

    def record_deleted(self, paths: Collection[str]) -> None:
        """Record that these shards and companion files are about to be deleted."""

    def flush(self) -> None:
        """Commit all records."""


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """The plan of a compaction, and its results."""

    rewrite: Mapping[str, Sequence[StoredSample]]
    """Shards to rewrite, each with its live samples."""
    delete: Mapping[str, int]
    """Files to delete after the rewrite, with their sizes in bytes."""
    kept_for_snapshots: Mapping[str, Mapping[str, int]]
    """Per protected snapshot: the files with garbage that it reads, and the bytes of that garbage.
    They stay as they are: copies of their live samples would only add bytes."""
    read_by_expired: Mapping[str, Collection[str]]
    """Per snapshot whose protection has ended: the files to delete that it reads."""
    copied_bytes: int
    """Expected bytes of the live samples to copy."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Shards that are not changed, and why."""
    copied: Counter[str] = field(default_factory=Counter)
    """Result: the numbers of written `shards`, `samples` and `bytes`."""
    written: set[str] = field(default_factory=set)
    """Result: the new shards. A killed compaction may have written some of them already."""


def plan_compaction(
    root: Storage,
    stored: Sequence[StoredSample],
    pinned: Sequence[SnapshotFiles],
    referenced: Collection[str],
    excluded: Mapping[str, str],
    folders: Collection[str],
    max_garbage_ratio: float,
) -> Compaction:
    """Plan which shards to rewrite and which files to delete.

    A shard is rewritten if more than `max_garbage_ratio` (0 to 1) of its samples are not live, or
    if a sample was taken down; unless a protected snapshot reads it. `referenced` are the
    companion, staged and raw files in use. `excluded` are shards that must not be changed, with the
    reason. Files in `folders` that neither a live sample nor these arguments refer to are deleted.
    """
    sizes = {path: size for folder in folders for path, size in root.find_files(folder).items()}
    live: dict[str, list[StoredSample]] = defaultdict(list)
    for sample in stored:
        if sample.live:
            live[sample.shard].append(sample)
    totals = _count_samples(root, [s for s in sizes if s in live and s not in excluded])
    torn = [shard for shard, total in totals.items() if total is None]
    skipped = {**excluded, **dict.fromkeys(torn, _TORN_INDEX)}
    taken_down = {sample.shard for sample in stored if sample.removed}
    ratios = {shard: 1 - len(live[shard]) / total for shard, total in totals.items() if total}
    crowded = {shard for shard, ratio in ratios.items() if ratio > max_garbage_ratio}
    crowded |= taken_down & ratios.keys()
    # Once, because a protection may end meanwhile.
    protected = [snapshot for snapshot in pinned if snapshot.is_protected]
    held = crowded.intersection({shard for snapshot in protected for shard in snapshot.samples})
    rewrite = {shard: live[shard] for shard in sorted(crowded - held)}
    used = {*referenced, *_files_of({*live, *skipped} - rewrite.keys())}
    garbage = {path: size for path, size in sizes.items() if path not in used}
    garbage |= {shard: round(sizes[shard] * ratios[shard]) for shard in held}
    copied = sum(sizes[shard] - round(sizes[shard] * ratios[shard]) for shard in rewrite)
    delete, kept_for_snapshots, read_by_expired = _apply_protection(garbage, pinned, protected)
    return Compaction(
        rewrite=rewrite,
        delete=delete,
        kept_for_snapshots=kept_for_snapshots,
        read_by_expired=read_by_expired,
        copied_bytes=copied,
        skipped=skipped,
    )


def _files_of(shards: Iterable[str]) -> set[str]:
    """Return the paths of shards and of their indexes."""
    return {path for shard in shards for path in (shard, index_path(shard))}


def _apply_protection(
    garbage: Mapping[str, int],
    pinned: Sequence[SnapshotFiles],
    protected: Sequence[SnapshotFiles],
) -> tuple[dict[str, int], dict[str, dict[str, int]], dict[str, list[str]]]:
    """Divide garbage by the protection of snapshots into the files to delete and those to keep.

    Returns the fields `delete`, `kept_for_snapshots` and `read_by_expired` of `Compaction`.
    """
    read = {snapshot.snapshot_id: _read_by(snapshot, garbage) for snapshot in pinned}
    names = {snapshot.snapshot_id for snapshot in protected}
    kept_for_snapshots = {name: files for name, files in read.items() if files and name in names}
    kept = {path for files in kept_for_snapshots.values() for path in files}
    delete = {path: size for path, size in sorted(garbage.items()) if path not in kept}
    read_by_expired = {
        name: [path for path in files if path in delete]
        for name, files in read.items()
        if name not in names
    }
    read_by_expired = {name: paths for name, paths in read_by_expired.items() if paths}
    return delete, kept_for_snapshots, read_by_expired


def _read_by(snapshot: SnapshotFiles, files: Mapping[str, int]) -> dict[str, int]:
    """Return the files that a snapshot reads."""
    reads = _files_of(snapshot.samples) | snapshot.geometry
    return {path: size for path, size in files.items() if path in reads}


def compact(
    root: Storage, plan: Compaction, samples_per_shard: int, ledger: Ledger, scratch: Path
) -> dict[str, int]:
    """Carry out a plan, and return the deleted files with their sizes in bytes.

    Unreadable shards are kept and added to `plan.skipped`. Raises WorkFailed if a copy differs from
    its original; then nothing is deleted.
    """
    _free_space(root, plan)
    _copy(root, plan, samples_per_shard, ledger, scratch)
    ledger.flush()
    # The plan may count a new shard as garbage, if a killed compaction had already written it.
    keep = _files_of({*plan.skipped, *plan.written})
    delete = {path: size for path, size in plan.delete.items() if path not in keep}
    expired = [name for name, paths in plan.read_by_expired.items() if not keep.issuperset(paths)]
    mark_compacted(root, expired)
    ledger.record_deleted(delete.keys())
    ledger.flush()
    root.delete(*delete)
    return delete


def _free_space(root: Storage, plan: Compaction) -> None:
    """Delete files that nothing needs until the disk has space for a commit and for a new shard."""
    if not root.is_local:
        return
    unneeded = plan.delete.keys() - _files_of(plan.rewrite).union(*plan.read_by_expired.values())
    for path in sorted(unneeded):
        if shutil.disk_usage(root.uri).free >= _MIN_FREE + plan.copied_bytes:
            break
        root.delete(path)


def _count_samples(root: Storage, shards: Sequence[str]) -> dict[str, int | None]:
    """Return the number of samples of each shard, or None if its index cannot be read."""
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(shards, pool.map(partial(_count, root), shards), strict=True))


def _count(root: Storage, shard: str) -> int | None:
    try:
        with root.open(index_path(shard)) as file:
            return int(pq.ParquetFile(file).metadata.num_rows)
    except (OSError, ValueError):
        return None


class _Unreadable(Exception):
    """A shard from which a sample cannot be copied."""

    def __init__(self, shard: str, problem: Exception) -> None:
        super().__init__(str(problem))
        self.shard = shard


def _copy(
    root: Storage, plan: Compaction, samples_per_shard: int, ledger: Ledger, scratch: Path
) -> None:
    """Copy the live samples of the shards to rewrite into full shards, rig by rig.

    No sample of a damaged shard is copied, because the shard is kept.
    """
    by_rig: dict[str, deque[StoredSample]] = defaultdict(deque)
    for shard in sorted(plan.rewrite):
        for sample in sorted(plan.rewrite[shard], key=lambda sample: sample.key):
            by_rig[sample.rig].append(sample)
    for rig, queue in by_rig.items():
        # Smaller shards than the present ones would be more, each with an end and an index.
        size = max(samples_per_shard, *Counter(sample.shard for sample in queue).values())
        while queue:
            group = [queue.popleft() for _ in range(min(size, len(queue)))]
            rest = _first_of_shard(group[-1].shard, queue)
            try:
                _copy_group(root, rig, group, rest, plan, ledger, scratch)
            except _Unreadable as error:
                plan.skipped[error.shard] = f"{error}: run `lrm verify`, then `lrm build`"
                rest = [sample for sample in (*group, *queue) if sample.shard != error.shard]
                queue = deque(rest)


def _first_of_shard(shard: str, samples: Iterable[StoredSample]) -> list[StoredSample]:
    """Return the samples at the beginning that are in a shard."""
    return list(takewhile(lambda sample: sample.shard == shard, samples))


def _copy_group(
    root: Storage,
    rig: str,
    group: Sequence[StoredSample],
    rest: Sequence[StoredSample],
    plan: Compaction,
    ledger: Ledger,
    scratch: Path,
) -> None:
    """Write and record one new shard, if the `rest` of its last source can be read, too.

    Raises _Unreadable, or WorkFailed for a wrong copy.
    """
    sources: dict[str, SampleEntry] = {}
    samples = _read(root, group, rest, sources)
    # The name is a digest of the content, so a repeated compaction writes the same shard.
    shard, sha256, entries = write_shard(
        root, samples, scratch, name=lambda digest: f"shards/{rig}/{digest[:16]}.tar"
    )
    for entry in entries:
        if _checksums(entry) != _checksums(sources[entry.key]):
            raise WorkFailed(
                f"{shard}: the copy of {entry.key} differs from its original; nothing was deleted"
            )
    plan.written.add(shard)
    for sample in group:
        ledger.record_moved(sample, shard, sha256)
    plan.copied.update(
        shards=1, samples=len(group), bytes=sum(entry.num_bytes for entry in entries)
    )


def _read(
    root: Storage,
    group: Sequence[StoredSample],
    rest: Sequence[StoredSample],
    sources: dict[str, SampleEntry],
) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """Yield the key and verified members of each sample of the group, then verify the `rest`.

    Adds the index entries to `sources`. Raises _Unreadable.
    """
    shard, index = "", dict[str, SampleEntry]()
    for number, sample in enumerate([*group, *rest]):
        try:
            if sample.shard != shard:
                shard, index = sample.shard, {e.key: e for e in read_index(root, sample.shard)[0]}
            entry = sources[sample.key] = index[sample.key]
            members = read_members(root, shard, entry, entry.members)
        except KeyError:
            raise _Unreadable(sample.shard, KeyError(f"{sample.key} is not in the index")) from None
        except (WorkFailed, OSError, EOFError, ValueError) as error:
            raise _Unreadable(sample.shard, error) from error
        if number < len(group):
            yield sample.key, members


def _checksums(entry: SampleEntry) -> dict[str, int]:
    """Return the CRC-32 of each member of a sample."""
    return dict(zip(entry.members, entry.crc32, strict=True))
