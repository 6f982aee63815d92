"""Compaction: what counts is copied out of shards that are mostly dead, and they are deleted.

The order makes it safe to kill at any moment: new shards are written, the catalog is told, and
only then something is deleted. What is there twice or belongs to nobody goes at the next time.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from core.errors import WorkFailed
from core.storage import Storage
from dataset.format.shards import SampleEntry, index_path, read_index, read_members, write_shard
from dataset.snapshots.protection import Pinned, mark_compacted

__all__ = ["Compaction", "Ledger", "Placed", "compact", "plan_compaction"]

_READERS = 16
"""Indexes that are read at the same time."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A sample that the catalog knows, and where it lies."""

    asset_id: str
    rig: str
    shard: str
    key: str
    live: bool
    """Whether it counts, or is dropped, removed or superseded."""
    removed: bool
    """Taken down: its bytes must go, whatever the share of dead samples around it."""


class Ledger(Protocol):
    """Whoever tells the catalog what has moved."""

    def moved(self, sample: Placed, shard: str, sha256: str) -> None:
        """A sample lies in a new shard, of that SHA-256."""

    def gone(self, paths: Collection[str]) -> None:
        """These shards and companion files are about to be deleted."""

    def flush(self) -> None:
        """Everything that was told is in the catalog when this returns."""


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """What is to be done."""

    rewrite: Mapping[str, Sequence[Placed]]
    """The live samples of each shard that they are to leave."""
    delete: Mapping[str, int]
    """Shards that nothing counts on then, their indexes, and files that belong to nobody: sizes."""
    held: Mapping[str, Mapping[str, int]]
    """Per protected snapshot, the files that would go but for it: sizes."""
    outlived: Mapping[str, Collection[str]]
    """Per snapshot whose protection has ended, the files to delete that it reads."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Shards that cannot be judged or read, and why."""
    copied: Counter[str] = field(default_factory=Counter)
    """What was done: `shards`, `samples`, `bytes` that were written."""
    written: set[str] = field(default_factory=set)
    """The new shards. One may be there already, of a compaction that was killed."""


def plan_compaction(
    root: Storage,
    placed: Sequence[Placed],
    pinned: Sequence[Pinned],
    referenced: Collection[str],
    untouchable: Mapping[str, str],
    folders: Collection[str],
    dead_share: float,
) -> Compaction:
    """Judge every file of the dataset.

    `referenced` are the companion, staged and raw files that count, `untouchable` the shards that
    must stay as they are, with the reason; `folders` hold all of these files. Shards with more
    than `dead_share` (0 to 1) of dead samples are rewritten, and those with a sample that was taken
    down.
    """
    files = {path: size for folder in folders for path, size in root.find_files(folder).items()}
    live: dict[str, list[Placed]] = defaultdict(list)
    stained = {sample.shard for sample in placed if sample.removed}
    for sample in placed:
        if sample.live:
            live[sample.shard].append(sample)
    skipped = dict(untouchable)
    totals = _count_samples(root, [s for s in files if s in live and s not in skipped])
    rewrite: dict[str, list[Placed]] = {}
    free: set[str] = set()
    for path in files:
        if path.startswith("shards/"):
            shard = path.removesuffix(".parquet").removesuffix(".tar") + ".tar"
            if shard in skipped:
                continue
            if shard not in live:
                free.add(path)
            elif path == shard and totals[shard] is None:
                skipped[shard] = "its index is missing or torn: run `lrm verify`"
            elif path == shard and totals[shard]:
                dead = 1 - len(live[shard]) / (totals[shard] or 1)
                if dead > dead_share or shard in stained:
                    rewrite[shard] = live[shard]
                    free |= {path, index_path(path)}
        elif path not in referenced:
            free.add(path)
    return _spare(
        Compaction(rewrite=rewrite, delete={}, held={}, outlived={}, skipped=skipped),
        {path: files[path] for path in sorted(free & files.keys())},
        pinned,
    )


def _spare(plan: Compaction, free: Mapping[str, int], pinned: Sequence[Pinned]) -> Compaction:
    """The plan, which deletes what is free and what no protected snapshot reads."""
    held: dict[str, dict[str, int]] = {}
    outlived: dict[str, list[str]] = {}
    for snapshot in pinned:
        reads = {*snapshot.samples, *map(index_path, snapshot.samples), *snapshot.geometry}
        struck = {path: size for path, size in free.items() if path in reads}
        if struck and snapshot.is_protected:
            held[snapshot.snapshot_id] = struck
        elif struck:
            outlived[snapshot.snapshot_id] = list(struck)
    spared = {path for files in held.values() for path in files}
    delete = {path: size for path, size in free.items() if path not in spared}
    outlived = {name: [p for p in paths if p in delete] for name, paths in outlived.items()}
    return Compaction(
        rewrite=plan.rewrite,
        delete=delete,
        held=held,
        outlived={name: paths for name, paths in outlived.items() if paths},
        skipped=plan.skipped,
    )


def compact(
    root: Storage, plan: Compaction, samples_per_shard: int, ledger: Ledger, scratch: Path
) -> dict[str, int]:
    """Copy what counts, tell the ledger, then delete; the files that were deleted, with sizes."""
    _copy(root, plan, samples_per_shard, ledger, scratch)
    ledger.flush()
    stay = {path for shard in {*plan.skipped, *plan.written} for path in (shard, index_path(shard))}
    delete = {path: size for path, size in plan.delete.items() if path not in stay}
    outlived = [name for name, paths in plan.outlived.items() if not stay.issuperset(paths)]
    mark_compacted(root, outlived)
    ledger.gone(delete.keys())
    ledger.flush()
    for path in delete:
        root.delete(path)
    return delete


def _count_samples(root: Storage, shards: Sequence[str]) -> dict[str, int | None]:
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(shards, pool.map(partial(_count, root), shards), strict=True))


def _count(root: Storage, shard: str) -> int | None:
    """The samples of a shard; None if its index cannot be read."""
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
    """Copy the live samples of all shards to rewrite; a shard that is damaged stays as it is."""
    by_rig: dict[str, deque[Placed]] = defaultdict(deque)
    for shard in sorted(plan.rewrite):
        for sample in sorted(plan.rewrite[shard], key=lambda sample: sample.key):
            by_rig[sample.rig].append(sample)
    for rig, queue in by_rig.items():
        while queue:
            group = [queue.popleft() for _ in range(min(samples_per_shard, len(queue)))]
            try:
                _copy_group(root, rig, group, plan, ledger, scratch)
            except _Unreadable as error:
                plan.skipped[error.shard] = f"{error}: run `lrm verify`, then `lrm build`"
                left = [sample for sample in (*group, *queue) if sample.shard != error.shard]
                queue = deque(left)


def _copy_group(
    root: Storage,
    rig: str,
    group: Sequence[Placed],
    plan: Compaction,
    ledger: Ledger,
    scratch: Path,
) -> None:
    sources: dict[str, SampleEntry] = {}
    samples = _read(root, group, sources)
    # Named by its bytes: a shard of that name is this very shard.
    shard, sha256, entries = write_shard(
        root, samples, scratch, name=lambda found: f"shards/{rig}/{found[:16]}.tar"
    )
    for entry in entries:
        if dict(zip(entry.members, entry.crc32, strict=True)) != _checksums(sources[entry.key]):
            raise WorkFailed(f"{shard}: {entry.key} is not what it was; nothing was deleted")
    plan.written.add(shard)
    for sample in group:
        ledger.moved(sample, shard, sha256)
    plan.copied.update(
        shards=1, samples=len(group), bytes=sum(entry.num_bytes for entry in entries)
    )


def _read(
    root: Storage, group: Sequence[Placed], sources: dict[str, SampleEntry]
) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """The samples with their bytes, checked; notes where they come from. Raises _Unreadable."""
    shard, index = "", dict[str, SampleEntry]()
    for sample in group:
        try:
            if sample.shard != shard:
                shard, index = sample.shard, {e.key: e for e in read_index(root, sample.shard)[0]}
            entry = sources[sample.key] = index[sample.key]
            members = read_members(root, shard, entry, entry.members)
        except KeyError:
            raise _Unreadable(sample.shard, KeyError(f"{sample.key} is not there")) from None
        except (WorkFailed, OSError, EOFError, ValueError) as error:
            raise _Unreadable(sample.shard, error) from error
        yield sample.key, members


def _checksums(entry: SampleEntry) -> dict[str, int]:
    return dict(zip(entry.members, entry.crc32, strict=True))
