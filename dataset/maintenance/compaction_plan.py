"""The plan of a compaction: which shards are rewritten, and which files are deleted.

A dataset never grows: a shard is rewritten only if it can be deleted afterwards, and new shards
are not smaller than those they replace, so that there are not more of them.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pyarrow.parquet as pq

from core.storage import Storage
from dataset.format.shards import index_path
from dataset.snapshots.protection import SnapshotFiles

__all__ = ["Compaction", "StoredSample", "files_of", "plan_compaction"]

_READERS = 16
"""Number of threads that read shard indexes."""
_WRONG_INDEX = "its index is missing, torn or of another shard: run `lrm verify`"


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
    lost: Collection[str] = ()
    """Shards without a live sample that do not exist: a killed compaction has deleted them."""
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
    totals = _count_samples(root, {s: sizes[s] for s in sizes if s in live and s not in excluded})
    torn = [shard for shard, total in totals.items() if total is None]
    skipped = {**excluded, **dict.fromkeys(torn, _WRONG_INDEX)}
    taken_down = {sample.shard for sample in stored if sample.removed}
    ratios = {shard: 1 - len(live[shard]) / total for shard, total in totals.items() if total}
    crowded = {shard for shard, ratio in ratios.items() if ratio > max_garbage_ratio}
    crowded |= taken_down & ratios.keys()
    # Once, because a protection may end meanwhile.
    protected = [snapshot for snapshot in pinned if snapshot.is_protected]
    held = crowded.intersection({shard for snapshot in protected for shard in snapshot.samples})
    rewrite = {shard: live[shard] for shard in sorted(crowded - held)}
    used = {*referenced, *files_of({*live, *skipped} - rewrite.keys())}
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
        lost=sorted({sample.shard for sample in stored} - sizes.keys() - live.keys()),
        skipped=skipped,
    )


def files_of(shards: Iterable[str]) -> set[str]:
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
    reads = files_of(snapshot.samples) | snapshot.geometry
    return {path: size for path, size in files.items() if path in reads}


def _count_samples(root: Storage, sizes: Mapping[str, int]) -> dict[str, int | None]:
    """Return the number of samples of each shard, of which `sizes` has the bytes.

    It is None if the index cannot be read, or is that of a shard with another size.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        counts = pool.map(partial(_count, root), sizes, sizes.values())
        return dict(zip(sizes, counts, strict=True))


def _count(root: Storage, shard: str, size: int) -> int | None:
    try:
        with root.open(index_path(shard)) as file:
            index = pq.ParquetFile(file).metadata
    except (OSError, ValueError):
        return None
    described = (index.metadata or {}).get(b"shard_bytes")
    return int(index.num_rows) if described in (None, b"%d" % size) else None
