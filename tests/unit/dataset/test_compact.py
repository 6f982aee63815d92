"""Compaction: what counts keeps its bytes, what is protected stays, any step may be the last."""

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
from dataset.maintenance.compact import Compaction, StoredSample, compact, plan_compaction
from dataset.snapshots.protection import SnapshotFiles, files_of_snapshots, release, write_manifest
from dataset.snapshots.snapshot import open_snapshot
from tests.support.small_shards import content, freeze, key, write_small_shard

SHARDS = {"shards/test/a.tar": [1, 2, 3], "shards/test/b.tar": [4, 5, 6], "shards/test/c.tar": [7]}
FOLDERS = ("shards", "geometry", "staging", "raw")


class Books:
    """The catalog of this test: what was flushed lasts, what was not is lost with the process."""

    def __init__(self, shards: Mapping[str, list[int]] = SHARDS) -> None:
        self.places = {number: shard for shard, numbers in shards.items() for number in numbers}
        self.dead: set[int] = set()
        self.removed: set[int] = set()
        self.geometry: set[str] = set()
        self._told: dict[int, str | None] = {}
        self.step: Callable[[], None] = lambda: None
        """Called before anything lasts."""

    def placed(self) -> list[StoredSample]:
        return [
            StoredSample(
                asset_id=str(number),
                rig="test",
                shard=shard,
                key=key(number),
                live=number not in self.dead | self.removed,
                removed=number in self.removed,
            )
            for number, shard in self.places.items()
        ]

    def record_moved(self, sample: StoredSample, shard: str, sha256: str) -> None:
        self._told[int(sample.asset_id)] = shard

    def record_deleted(self, paths) -> None:
        lost = {number: None for number, shard in self.places.items() if shard in paths}
        self._told |= {number: None for number in lost if number not in self._told}

    def flush(self) -> None:
        self.step()
        for number, shard in self._told.items():
            self.places.pop(number)
            if shard is not None:
                self.places[number] = shard
        self._told = {}

    def forget(self) -> None:
        self._told = {}


class Failing(Storage):
    """A storage that fails for good at its n-th change."""

    left = 10**9

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError("the machine is gone")

    @contextmanager
    def writing(self, path: str) -> Iterator:
        with super().writing(path) as file:
            yield file
            self.step()

    def delete(self, path: str) -> None:
        self.step()
        super().delete(path)


@pytest.fixture
def root(tmp_path) -> Storage:
    root = Storage(str(tmp_path / "root"))
    for shard, numbers in SHARDS.items():
        write_small_shard(root, shard, numbers)
    return root


def plan(root: Storage, books: Books, share: float = 0.3, untouchable=None) -> Compaction:
    pinned = list(files_of_snapshots(root))
    return plan_compaction(
        root, books.placed(), pinned, books.geometry, untouchable or {}, FOLDERS, share
    )


def run(root: Storage, books: Books, tmp_path: Path, **options) -> Compaction:
    books.forget()
    todo = plan(root, books, **options)
    compact(root, todo, 2, books, tmp_path / "scratch")
    return todo


def entries(root: Storage) -> list[SampleEntry]:
    return [entry for shard in SHARDS for entry in read_index(root, shard)[0]]


def check_live(root: Storage, books: Books) -> None:
    for sample in books.placed():
        if sample.live:
            index = {entry.key: entry for entry in read_index(root, sample.shard)[0]}
            entry = index[sample.key]
            found = read_members(root, sample.shard, entry, entry.members)
            assert found == content(int(sample.asset_id))


def read_snapshot(root: Storage, snapshot: str) -> list[dict[str, bytes]]:
    return [
        read_members(root, sample.shard, sample.entry, sample.entry.members)
        for sample in open_snapshot(root, snapshot).samples
    ]


def test_nothing_is_done_below_the_share(root, tmp_path):
    books = Books()
    books.dead = {1}
    before = root.find_files("shards")
    assert run(root, books, tmp_path, share=0.4).rewrite == {}
    assert root.find_files("shards") == before


def test_live_samples_move_and_the_rest_is_freed(root, tmp_path):
    books = Books()
    books.dead = {1, 2, 4, 5, 7}
    done = run(root, books, tmp_path)
    # 3 and 6 share a new shard; 7 was alone in its own.
    assert done.copied["samples"] == 2
    assert len(set(books.places.values())) == 1
    assert set(books.places) == {3, 6}
    check_live(root, books)
    (shard,) = set(books.places.values())
    assert set(root.find_files("shards")) == {shard, index_path(shard)}
    assert not plan(root, books).rewrite


def test_a_takedown_is_rewritten_below_the_share(root, tmp_path):
    books = Books()
    books.removed = {2}
    assert set(run(root, books, tmp_path, share=0.9).rewrite) == {"shards/test/a.tar"}
    assert content(2)["json"] not in b"".join(map(root.read, root.find_files("shards")))
    check_live(root, books)


def test_a_protected_snapshot_keeps_its_bytes_until_it_is_released(root, tmp_path):
    books = Books()
    shards = {key(number): shard for number, shard in books.places.items()}
    snapshot = freeze(root, entries(root), shards)
    before = read_snapshot(root, snapshot)
    books.dead, books.removed = {1, 7}, {4}
    for _ in range(3):
        done = run(root, books, tmp_path, share=0.2)
        assert set(done.kept_for_snapshots) == {snapshot}
        assert {path for path in done.kept_for_snapshots[snapshot] if path.endswith(".tar")} == set(
            SHARDS
        )
        check_live(root, books)
    assert read_snapshot(root, snapshot) == before
    release(root, snapshot)
    done = run(root, books, tmp_path, share=0.2)
    assert (done.kept_for_snapshots, set(done.read_by_expired)) == ({}, {snapshot})
    assert not any(root.exists(shard) for shard in SHARDS)
    with pytest.raises(BadInput, match=f"snapshot {snapshot}: shards of it are gone"):
        open_snapshot(root, snapshot)
    check_live(root, books)


def test_an_expired_snapshot_that_loses_nothing_stays_readable(root, tmp_path):
    books = Books()
    shards = {key(number): shard for number, shard in books.places.items()}
    only_a = [entry for entry in entries(root) if shards[entry.key] == "shards/test/a.tar"]
    snapshot = freeze(root, only_a, shards, days=0)
    books.dead = {7}
    run(root, books, tmp_path)
    assert read_snapshot(root, snapshot) == [content(1), content(2), content(3)]


def test_a_damaged_shard_stays_and_is_named(root, tmp_path):
    books = Books()
    books.dead = {1, 4}
    entry = read_index(root, "shards/test/a.tar")[0][1]
    data = bytearray(root.read("shards/test/a.tar"))
    data[entry.offsets[0]] ^= 1
    root.write("shards/test/a.tar", bytes(data))
    done = run(root, books, tmp_path)
    assert "fails its checksum" in done.skipped["shards/test/a.tar"]
    assert root.exists("shards/test/a.tar")
    assert not root.exists("shards/test/b.tar")
    assert books.places[2] == "shards/test/a.tar"


def test_shards_that_cannot_be_judged_stay(root, tmp_path):
    books = Books()
    books.dead = {1, 2, 4, 5}
    root.delete(index_path("shards/test/a.tar"))
    done = run(root, books, tmp_path, untouchable={"shards/test/b.tar": "it is damaged"})
    assert "lrm verify" in done.skipped["shards/test/a.tar"]
    assert done.skipped["shards/test/b.tar"] == "it is damaged"
    assert root.exists("shards/test/a.tar")
    assert root.exists("shards/test/b.tar")


def test_what_belongs_to_nobody_goes(root, tmp_path):
    books = Books()
    books.geometry = {"geometry/cube/ab/live.npz", "raw/ab/live.glb", "staging/live.tar"}
    orphans = {
        "geometry/cube/ab/dead.npz",
        "raw/ab/dead.glb",
        "staging/dead.tar",
        "shards/test/.0123.tmp",
        "shards/test/.a.tar.tmp-0123abcd",
        "shards/test/.folder.tmp/a.tar",
        "shards/test/killed.tar",
        "shards/test/alone.parquet",
    }
    for path in (*books.geometry, *orphans):
        root.write(path, b"x")
    before = set(root.find_files(""))
    assert set(plan(root, books).delete) == orphans
    run(root, books, tmp_path)
    assert set(root.find_files("")) == before - orphans


@pytest.mark.parametrize("is_pinned", [False, True], ids=["free", "pinned"])
def test_it_may_be_killed_at_every_step(tmp_path, is_pinned):
    steps = 0
    while True:
        folder = tmp_path / str(steps)
        root = Failing(str(folder))
        for shard, numbers in SHARDS.items():
            write_small_shard(root, shard, numbers)
        books = Books()
        shards = {key(number): shard for number, shard in books.places.items()}
        snapshot = freeze(root, entries(root), shards, days=90 if is_pinned else 0)
        books.dead, books.removed = {1, 2, 7}, {4}
        root.left, books.step = steps, root.step
        try:
            run(root, books, tmp_path)
            break
        except OSError:
            pass
        root.left = 10**9
        check_live(root, books)
        run(root, books, tmp_path)
        run(root, books, tmp_path)
        check_live(root, books)
        assert set(books.places) - books.dead - books.removed == {3, 5, 6}
        if is_pinned:
            assert read_snapshot(root, snapshot) == [content(n) for n in range(1, 8)]
        else:
            kept = {path for s in set(books.places.values()) for path in (s, index_path(s))}
            assert set(root.find_files("shards")) == kept
        steps += 1
    assert steps >= (6 if is_pinned else 12)


COMPANIONS = [f"geometry/cube/{number}.npz" for number in range(4)]
STATES = st.sampled_from(["live", "live", "dead", "removed"])


@st.composite
def datasets(draw) -> dict:
    """Up to 4 shards of up to 3 samples, with snapshots, companion files and shards to leave."""
    shards: dict[str, list[int]] = {}
    for number, size in enumerate(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))):
        first = sum(map(len, shards.values())) + 1
        shards[f"shards/test/{number}.tar"] = list(range(first, first + size))
    numbers = [number for found in shards.values() for number in found]
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
    """What the case's snapshots read; the first of the three says whether they are protected."""
    return [
        SnapshotFiles(
            snapshot_id=str(number),
            protected_until=datetime.now(UTC) + timedelta(days=1 if protects else -1),
            samples={shard: set(map(key, case["shards"][shard])) for shard in found},
            geometry=geometry,
        )
        for number, (protects, found, geometry) in enumerate(case["pinned"])
    ]


@settings(max_examples=25, deadline=None)
@given(case=datasets())
def test_nothing_in_use_is_lost_and_nothing_taken_down_stays(case):
    with tempfile.TemporaryDirectory() as folder:
        root, books, pinned = Storage(folder), Books(case["shards"]), pinned_of(case)
        for shard, numbers in case["shards"].items():
            write_small_shard(root, shard, numbers)
        for path in COMPANIONS:
            root.write(path, b"x")
        for snapshot in pinned:
            write_manifest(root, {"snapshot": snapshot.snapshot_id})
        books.geometry = case["geometry"]
        books.dead = {number for number, state in case["states"].items() if state == "dead"}
        books.removed = {number for number, state in case["states"].items() if state == "removed"}
        before = {path: root.read(path) for path in root.find_files("")}

        def compact_once() -> Compaction:
            reasons = dict.fromkeys(case["untouchable"], "it is damaged")
            placed, ratio = books.placed(), case["ratio"]
            todo = plan_compaction(root, placed, pinned, books.geometry, reasons, FOLDERS, ratio)
            with tempfile.TemporaryDirectory() as scratch:
                compact(root, todo, 2, books, Path(scratch) / "shard.tar")
            return todo

        deleted = set(compact_once().delete)
        after = root.find_files("")
        # Every live sample has its bytes in the one shard that the catalog knows.
        live = {number for number, state in case["states"].items() if state == "live"}
        assert {int(sample.asset_id) for sample in books.placed() if sample.live} == live
        check_live(root, books)
        # What a protected snapshot reads, or must not be touched, has its bytes.
        protected = [snapshot for snapshot in pinned if snapshot.is_protected]
        shards = case["untouchable"].union(*(snapshot.samples for snapshot in protected))
        companions = case["geometry"].union(*(snapshot.geometry for snapshot in protected))
        kept = {path for shard in shards for path in (shard, index_path(shard))} | companions
        assert {path: root.read(path) for path in kept} == {path: before[path] for path in kept}
        # Nothing else holds what was taken down, and no other companion file stays.
        others = b"".join(root.read(path) for path in after.keys() - kept)
        assert [number for number in books.removed if key(number).encode() in others] == []
        assert {path for path in after if path.startswith("geometry/")} == companions
        assert before.keys() - after.keys() == deleted
        # A second run finds nothing to do.
        again = compact_once()
        assert (again.rewrite, again.delete) == ({}, {})
