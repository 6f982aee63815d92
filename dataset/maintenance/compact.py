"""Compaction: copy live samples out of shards with much garbage, and delete garbage.

It is safe to kill at any time, because of its order: first new shards are written, then the catalog
records where the samples are, and only then files are deleted. A copy that the catalog does not
record is garbage, which the next compaction deletes.

The catalog needs space for its record. On a disk that is almost full, a few files that nothing
needs are therefore deleted first. If the process is killed then, the next compaction records it.
"""

import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Protocol

from core.errors import WorkFailed
from core.storage import Storage
from dataset.format.shards import SampleEntry, read_index, read_members, write_shard
from dataset.maintenance.compaction_plan import Compaction, StoredSample, files_of
from dataset.snapshots.protection import mark_compacted

__all__ = ["Ledger", "compact"]

_MIN_FREE = 16 << 20
"""Bytes that a commit to the catalog needs at most, with the files of its table."""


class Ledger(Protocol):
    """Recorder of a compaction in the catalog."""

    def record_moved(self, sample: StoredSample, shard: str, sha256: str) -> None:
        """Record that a new shard with this SHA-256 contains a sample."""

    def record_deleted(self, paths: Collection[str]) -> None:
        """Record that these shards and companion files are about to be deleted."""

    def flush(self) -> None:
        """Commit all records."""


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
    keep = files_of({*plan.skipped, *plan.written})
    delete = {path: size for path, size in plan.delete.items() if path not in keep}
    expired = [name for name, paths in plan.read_by_expired.items() if not keep.issuperset(paths)]
    mark_compacted(root, expired)
    ledger.record_deleted([*delete, *plan.lost])
    ledger.flush()
    root.delete(*delete)
    return delete


def _free_space(root: Storage, plan: Compaction) -> None:
    """Delete files that nothing needs until the disk has space for a commit and for a new shard."""
    if not root.is_local:
        return
    unneeded = plan.delete.keys() - files_of(plan.rewrite).union(*plan.read_by_expired.values())
    for path in sorted(unneeded):
        if shutil.disk_usage(root.uri).free >= _MIN_FREE + plan.copied_bytes:
            break
        root.delete(path)


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
