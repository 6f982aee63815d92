"""Compaction: live samples keep their bytes, protected files stay, and any step may crash."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadInput
from core.storage import Storage
from dataset.format.shards import SampleEntry, index_path, read_index, read_members
from dataset.maintenance import compact as compact_module
from dataset.maintenance.compact import compact
from dataset.maintenance.compaction_plan import Compaction, StoredSample, plan_compaction
from dataset.snapshots.manifests import write_manifest
from dataset.snapshots.protection import SnapshotFiles, end_protection, files_of_snapshots
from dataset.snapshots.snapshot import open_snapshot
from tests.support.small_shards import content, key, write_small_shard, write_test_snapshot

SHARDS = {"shards/test/a.tar": [1, 2, 3], "shards/test/b.tar": [4, 5, 6], "shards/test/c.tar": [7]}
FOLDERS = ("shards", "geometry", "staging", "raw")


class MemoryLedger:
    """A ledger in memory: flushed records persist, others are lost with the process."""

    def __init__(self, shards: Mapping[str, list[int]] = SHARDS) -> None:
        self.shard_of = {number: shard for shard, numbers in shards.items() for number in numbers}
        self.unused: set[int] = set()
        self.removed: set[int] = set()
        self.geometry: set[str] = set()
        self._pending: dict[int, str | None] = {}
        self.step: Callable[[], None] = lambda: None
        """Called before records are stored."""

    def stored_samples(self) -> list[StoredSample]:
        return [
            StoredSample(
                asset_id=str(number),
                rig="test",
                shard=shard,
                key=key(number),
                live=number not in self.unused | self.removed,
                removed=number in self.removed,
            )
            for number, shard in self.shard_of.items()
        ]

    def record_moved(self, sample: StoredSample, shard: str, sha256: str) -> None:
        self._pending[int(sample.asset_id)] = shard

    def record_deleted(self, paths) -> None:
        deleted = [number for number, shard in self.shard_of.items() if shard in paths]
        self._pending |= {number: None for number in deleted if number not in self._pending}

    def flush(self) -> None:
        self.step()
        for number, shard in self._pending.items():
            self.shard_of.pop(number)
            if shard is not None:
                self.shard_of[number] = shard
        self._pending = {}

    def discard_pending(self) -> None:
        self._pending = {}


class Failing(Storage):
    """A storage that fails permanently after `changes_left` changes."""

    changes_left = 10**9

    def step(self) -> None:
        self.changes_left -= 1
        if self.changes_left < 0:
            raise OSError("the machine is gone")

    @contextmanager
    def writing(self, path: str) -> Iterator:
        with super().writing(path) as file:
            yield file
            self.step()

    def delete(self, *paths: str) -> None:
        for path in paths:
            self.step()
            super().delete(path)


@pytest.fixture
def root(tmp_path) -> Storage:
    root = Storage(str(tmp_path / "root"))
    for shard, numbers in SHARDS.items():
        write_small_shard(root, shard, numbers)
    return root


def plan(root: Storage, ledger: MemoryLedger, ratio: float = 0.3, untouchable=None) -> Compaction:
    pinned = list(files_of_snapshots(root))
    return plan_compaction(
        root, ledger.stored_samples(), pinned, ledger.geometry, untouchable or {}, FOLDERS, ratio
    )


def run(root: Storage, ledger: MemoryLedger, tmp_path: Path, **options) -> Compaction:
    ledger.discard_pending()
    planned = plan(root, ledger, **options)
    compact(root, planned, 2, ledger, tmp_path / "scratch")
    return planned


def entries(root: Storage) -> list[SampleEntry]:
    return [entry for shard in SHARDS for entry in read_index(root, shard)[0]]


def check_live(root: Storage, ledger: MemoryLedger) -> None:
    for sample in ledger.stored_samples():
        if sample.live:
            index = {entry.key: entry for entry in read_index(root, sample.shard)[0]}
            entry = index[sample.key]
            members = read_members(root, sample.shard, entry, entry.members)
            assert members == content(int(sample.asset_id))


def read_snapshot(root: Storage, snapshot: str) -> list[dict[str, bytes]]:
    return [
        read_members(root, sample.shard, sample.entry, sample.entry.members)
        for sample in open_snapshot(root, snapshot).samples
    ]


def test_nothing_is_rewritten_below_the_garbage_ratio(root, tmp_path):
    ledger = MemoryLedger()
    ledger.unused = {1}
    before = root.find_files("shards")
    assert run(root, ledger, tmp_path, ratio=0.4).rewrite == {}
    assert root.find_files("shards") == before


def test_live_samples_are_moved_and_other_bytes_are_freed(root, tmp_path):
    ledger = MemoryLedger()
    ledger.unused = {1, 2, 4, 5, 7}
    compaction = run(root, ledger, tmp_path)
    # 3 and 6 share a new shard; 7 was alone in its own.
    assert compaction.copied["samples"] == 2
    assert len(set(ledger.shard_of.values())) == 1
    assert set(ledger.shard_of) == {3, 6}
    check_live(root, ledger)
    (shard,) = set(ledger.shard_of.values())
    assert set(root.find_files("shards")) == {shard, index_path(shard)}
    assert not plan(root, ledger).rewrite


def test_a_removed_sample_is_erased_even_below_the_garbage_ratio(root, tmp_path):
    ledger = MemoryLedger()
    ledger.removed = {2}
    assert set(run(root, ledger, tmp_path, ratio=0.9).rewrite) == {"shards/test/a.tar"}
    assert content(2)["json"] not in b"".join(map(root.read, root.find_files("shards")))
    check_live(root, ledger)


def test_a_protected_snapshot_keeps_its_bytes_until_it_is_released(root, tmp_path):
    ledger = MemoryLedger()
    shards = {key(number): shard for number, shard in ledger.shard_of.items()}
    snapshot = write_test_snapshot(root, entries(root), shards)
    before = read_snapshot(root, snapshot)
    ledger.unused, ledger.removed = {1, 7}, {4}
    for _ in range(3):
        compaction = run(root, ledger, tmp_path, ratio=0.2)
        assert set(compaction.kept_for_snapshots) == {snapshot}
        assert {
            path for path in compaction.kept_for_snapshots[snapshot] if path.endswith(".tar")
        } == set(SHARDS)
        check_live(root, ledger)
    assert read_snapshot(root, snapshot) == before
    end_protection(root, snapshot)
    compaction = run(root, ledger, tmp_path, ratio=0.2)
    assert (compaction.kept_for_snapshots, set(compaction.read_by_expired)) == ({}, {snapshot})
    assert not any(root.exists(shard) for shard in SHARDS)
    with pytest.raises(BadInput, match=f"snapshot {snapshot}: shards of it are gone"):
        open_snapshot(root, snapshot)
    check_live(root, ledger)


def test_an_expired_snapshot_that_loses_nothing_stays_readable(root, tmp_path):
    ledger = MemoryLedger()
    shards = {key(number): shard for number, shard in ledger.shard_of.items()}
    only_a = [entry for entry in entries(root) if shards[entry.key] == "shards/test/a.tar"]
    snapshot = write_test_snapshot(root, only_a, shards, days=0)
    ledger.unused = {7}
    run(root, ledger, tmp_path)
    assert read_snapshot(root, snapshot) == [content(1), content(2), content(3)]


def test_a_damaged_shard_stays_and_is_reported(root, tmp_path):
    ledger = MemoryLedger()
    ledger.unused = {1, 4}
    entry = read_index(root, "shards/test/a.tar")[0][1]
    data = bytearray(root.read("shards/test/a.tar"))
    data[entry.offsets[0]] ^= 1
    root.write("shards/test/a.tar", bytes(data))
    compaction = run(root, ledger, tmp_path)
    assert "fails its checksum" in compaction.skipped["shards/test/a.tar"]
    assert root.exists("shards/test/a.tar")
    assert not root.exists("shards/test/b.tar")
    assert ledger.shard_of[2] == "shards/test/a.tar"


@pytest.mark.parametrize("damaged", [5, 9])
def test_no_sample_of_a_damaged_shard_is_copied(root, tmp_path, damaged):
    """The live samples 5, 6 and 9 of a shard are divided among two new shards."""
    shards = {**SHARDS, "shards/test/b.tar": [4, 5, 6, 8, 9]}
    write_small_shard(root, "shards/test/b.tar", shards["shards/test/b.tar"])
    ledger = MemoryLedger(shards)
    ledger.unused = {1, 4, 8}
    entry = {entry.key: entry for entry in read_index(root, "shards/test/b.tar")[0]}[key(damaged)]
    data = bytearray(root.read("shards/test/b.tar"))
    data[entry.offsets[0]] ^= 1
    root.write("shards/test/b.tar", bytes(data))
    compaction = run(root, ledger, tmp_path)
    assert set(compaction.skipped) == {"shards/test/b.tar"}
    moved = {number for number, shard in ledger.shard_of.items() if shard in compaction.written}
    assert moved == {2, 3}
    assert {ledger.shard_of[number] for number in (5, 6, 9)} == {"shards/test/b.tar"}


def test_a_shard_of_a_protected_snapshot_is_not_rewritten(root, tmp_path):
    """A copy would add bytes and free none."""
    ledger = MemoryLedger()
    shards = {key(number): shard for number, shard in ledger.shard_of.items()}
    read = [entry for entry in entries(root) if entry.key == key(3)]
    snapshot = write_test_snapshot(root, read, shards)
    ledger.unused, ledger.removed = {1, 2, 4}, {5}
    before = root.find_files("shards")
    compaction = run(root, ledger, tmp_path)
    assert list(compaction.rewrite) == ["shards/test/b.tar"]
    after = root.find_files("shards")
    assert after.keys() >= {"shards/test/a.tar", "shards/test/c.tar"}
    assert sum(after.values()) < sum(before.values())
    # Two thirds of the shard are garbage, which the snapshot keeps.
    held = round(before["shards/test/a.tar"] * 2 / 3)
    assert compaction.kept_for_snapshots == {snapshot: {"shards/test/a.tar": held}}
    end_protection(root, snapshot)
    run(root, ledger, tmp_path)
    assert not root.exists("shards/test/a.tar")
    check_live(root, ledger)


def test_smaller_new_shards_are_not_more_than_the_old_ones(root, tmp_path):
    write_small_shard(root, "shards/test/a.tar", [*range(10, 30)])
    ledger = MemoryLedger({"shards/test/a.tar": [*range(10, 30)]})
    ledger.removed = {10}
    before = root.find_files("shards")
    run(root, ledger, tmp_path)  # with 2 samples per shard
    after = root.find_files("shards")
    assert len(after) < len(before)
    assert sum(after.values()) < sum(before.values())
    check_live(root, ledger)


@pytest.mark.parametrize("kind", ["missing", "torn", "of another shard"])
def test_shards_whose_live_samples_are_unknown_stay(root, tmp_path, kind):
    ledger = MemoryLedger()
    ledger.unused = {1, 2, 4, 5}
    index, other = (root.read(index_path(f"shards/test/{name}.tar")) for name in "ac")
    root.delete(index_path("shards/test/a.tar"))
    if kind != "missing":
        data = other if kind == "of another shard" else index[: len(index) // 2]
        root.write(index_path("shards/test/a.tar"), data)
    compaction = run(root, ledger, tmp_path, untouchable={"shards/test/b.tar": "it is damaged"})
    assert "lrm verify" in compaction.skipped["shards/test/a.tar"]
    assert compaction.skipped["shards/test/b.tar"] == "it is damaged"
    assert root.exists("shards/test/a.tar")
    assert root.exists("shards/test/b.tar")


def test_files_that_nothing_uses_are_deleted(root, tmp_path):
    ledger = MemoryLedger()
    ledger.geometry = {"geometry/cube/ab/live.npz", "raw/ab/live.glb", "staging/live.tar"}
    orphans = {
        "geometry/cube/ab/unused.npz",
        "raw/ab/unused.glb",
        "staging/unused.tar",
        "shards/test/.0123.tmp",
        "shards/test/.a.tar.tmp-0123abcd",
        "shards/test/.folder.tmp/a.tar",
        "shards/test/killed.tar",
        "shards/test/alone.parquet",
    }
    for path in (*ledger.geometry, *orphans):
        root.write(path, b"x")
    before = set(root.find_files(""))
    assert set(plan(root, ledger).delete) == orphans
    run(root, ledger, tmp_path)
    assert set(root.find_files("")) == before - orphans


@pytest.mark.parametrize("kind", ["free", "pinned", "full disk"])
def test_compaction_can_be_killed_at_every_step(tmp_path, monkeypatch, kind):
    is_pinned, is_full = kind == "pinned", kind == "full disk"
    if is_full:  # files that nothing needs are deleted before the first commit
        monkeypatch.setattr(compact_module, "_MIN_FREE", 1 << 60)
    whole = Storage(str(tmp_path / "whole"))
    for shard, numbers in SHARDS.items():
        write_small_shard(whole, shard, numbers)
    shards = {key(number): shard for number, shard in MemoryLedger().shard_of.items()}
    # The protected snapshot reads a and c, so that b can be rewritten.
    read = [e for e in entries(whole) if not is_pinned or shards[e.key] != "shards/test/b.tar"]
    snapshot = "" if is_full else write_test_snapshot(whole, read, shards, is_pinned * 90)
    steps = 0
    while True:
        root, ledger = Failing(shutil.copytree(whole.uri, tmp_path / str(steps))), MemoryLedger()
        ledger.unused, ledger.removed = {1, 2, 7}, {4}
        root.changes_left, ledger.step = steps, root.step
        try:
            run(root, ledger, tmp_path)
            break
        except OSError:
            pass
        root.changes_left = 10**9
        check_live(root, ledger)
        run(root, ledger, tmp_path)
        run(root, ledger, tmp_path)
        check_live(root, ledger)
        assert set(ledger.shard_of) - ledger.unused - ledger.removed == {3, 5, 6}
        if is_pinned:
            assert read_snapshot(root, snapshot) == [content(n) for n in (1, 2, 3, 7)]
        else:
            kept = {path for s in set(ledger.shard_of.values()) for path in (s, index_path(s))}
            assert set(root.find_files("shards")) == kept
        steps += 1
    assert steps >= (6 if is_pinned else 12)


def _stored_bytes(sizes: Mapping[str, int]) -> int:
    return sum(size for path, size in sizes.items() if not path.startswith("snapshots/"))


COMPANIONS = [f"geometry/cube/{number}.npz" for number in range(4)]
STATES = st.sampled_from(["live", "live", "unused", "removed"])


@st.composite
def datasets(draw) -> dict:
    """Draw up to 4 shards of up to 3 samples, with snapshots and companion files."""
    shards: dict[str, list[int]] = {}
    for number, size in enumerate(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))):
        first = sum(map(len, shards.values())) + 1
        shards[f"shards/test/{number}.tar"] = list(range(first, first + size))
    numbers = [number for members in shards.values() for number in members]
    some_shards = st.sets(st.sampled_from(sorted(shards)), max_size=2)
    geometry = st.sets(st.sampled_from(COMPANIONS), max_size=3)
    return {
        "shards": shards,
        "states": {number: draw(STATES) for number in numbers},
        "pinned": draw(st.lists(st.tuples(st.booleans(), some_shards, geometry), max_size=2)),
        "geometry": draw(geometry),
        "untouchable": draw(some_shards),
        "ratio": draw(st.sampled_from([0.0, 0.4, 1.0])),
    }


def pinned_of(case: dict) -> list[SnapshotFiles]:
    """Return the files that each snapshot of the case uses, and whether it is protected."""
    return [
        SnapshotFiles(
            snapshot_id=str(number),
            protected_until=datetime.now(UTC) + timedelta(days=1 if is_protected else -1),
            samples={shard: set(map(key, case["shards"][shard])) for shard in shards},
            geometry=geometry,
        )
        for number, (is_protected, shards, geometry) in enumerate(case["pinned"])
    ]


@settings(max_examples=25, deadline=None)
@given(case=datasets())
def test_files_in_use_survive_and_removed_samples_are_erased(case):
    with tempfile.TemporaryDirectory() as folder:
        root, ledger, pinned = Storage(folder), MemoryLedger(case["shards"]), pinned_of(case)
        for shard, numbers in case["shards"].items():
            write_small_shard(root, shard, numbers)
        for path in COMPANIONS:
            root.write(path, b"x")
        for snapshot in pinned:
            created = {"created": "2026-01-01T00:00:00+00:00", "where": None}
            numbers = {"format": 1, "samples": 1, "bytes": 1}
            write_manifest(root, {"snapshot": snapshot.snapshot_id, **created, **numbers})
        ledger.geometry = case["geometry"]
        ledger.unused = {number for number, state in case["states"].items() if state == "unused"}
        ledger.removed = {number for number, state in case["states"].items() if state == "removed"}
        before = {path: root.read(path) for path in root.find_files("")}

        def compact_once() -> Compaction:
            reasons = dict.fromkeys(case["untouchable"], "it is damaged")
            samples, ratio = ledger.stored_samples(), case["ratio"]
            planned = plan_compaction(
                root, samples, pinned, ledger.geometry, reasons, FOLDERS, ratio
            )
            with tempfile.TemporaryDirectory() as scratch:
                compact(root, planned, 2, ledger, Path(scratch) / "shard.tar")
            return planned

        deleted = set(compact_once().delete)
        after = root.find_files("")
        # The dataset has not grown, except for a few bytes in the manifests.
        sizes = {path: len(data) for path, data in before.items()}
        assert _stored_bytes(after) <= _stored_bytes(sizes)
        # Every live sample is intact in the shard that the ledger names.
        live = {number for number, state in case["states"].items() if state == "live"}
        assert {int(sample.asset_id) for sample in ledger.stored_samples() if sample.live} == live
        check_live(root, ledger)
        # Files of protected snapshots and untouchable shards are unchanged.
        protected = [snapshot for snapshot in pinned if snapshot.is_protected]
        shards = case["untouchable"].union(*(snapshot.samples for snapshot in protected))
        companions = case["geometry"].union(*(snapshot.geometry for snapshot in protected))
        kept = {path for shard in shards for path in (shard, index_path(shard))} | companions
        assert {path: root.read(path) for path in kept} == {path: before[path] for path in kept}
        # No other file contains a removed sample, and no other companion file remains.
        others = b"".join(root.read(path) for path in after.keys() - kept)
        assert [number for number in ledger.removed if key(number).encode() in others] == []
        assert {path for path in after if path.startswith("geometry/")} == companions
        assert before.keys() - after.keys() == deleted
        # A second run finds nothing to do.
        again = compact_once()
        assert (again.rewrite, again.delete) == ({}, {})
