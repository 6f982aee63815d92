"""The catalog: append-only, idempotent, and the last event counts."""

import itertools
import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import WorkFailed
from core.lock import exclusive_lock
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event


def event(asset: str, stage: str = "fetch", content: str = "c", **fields) -> Event:
    return Event(asset_id=f"objaverse:{asset}", stage=stage, content=content, **fields)


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    return Catalog(Storage(str(tmp_path)))


def test_an_empty_root_has_an_empty_catalog(catalog):
    assert catalog.history("objaverse:a") == []
    assert list(catalog.since(0)) == []
    assert catalog.files() == frozenset()


def test_every_event_is_kept_in_order(catalog):
    catalog.commit([event("a", content="1"), event("b"), event("a", content="2")], "run", 1)
    catalog.commit([event("a", "render", rig="lrm32", data={"x": [1, None, "ü"]})], "other", 1)
    history = catalog.history("objaverse:a")
    assert [record.event.content for record in history] == ["1", "2", "c"]
    assert history[-1].event.data == {"x": [1, None, "ü"]}
    assert list(catalog.since(0, catalog.files())) == []
    assert sum(batch.num_rows for batch in catalog.since(0)) == 4


def test_events_of_concurrent_writers_are_both_kept(tmp_path):
    """The second writer has opened the table before the first one commits."""
    first, second = Catalog(Storage(str(tmp_path))), Catalog(Storage(str(tmp_path)))
    first.commit([event("a")], "first", 1)
    second.commit([event("b")], "second", 1)
    first.commit([event("c")], "first", 2)
    assert sum(batch.num_rows for batch in second.since(0)) == 3


def test_a_repeated_batch_is_not_appended_twice(catalog, tmp_path):
    for _ in range(2):
        Catalog(Storage(str(tmp_path))).commit([event("a")], "run", 1)
    assert len(catalog.history("objaverse:a")) == 1


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), max_size=4))
def test_seq_grows_over_batches_and_writers(tmp_path_factory, batches):
    folder = str(tmp_path_factory.mktemp("catalog"))
    for number, names in enumerate(batches, start=1):
        Catalog(Storage(folder)).commit([event(name) for name in names], f"run{number % 2}", number)
    catalog = Catalog(Storage(folder))
    seqs = sorted(record.seq for name in "abc" for record in catalog.history(f"objaverse:{name}"))
    assert len(seqs) == sum(map(len, batches))
    assert all(a < b for a, b in itertools.pairwise(seqs))


class Outage(Catalog):
    """A catalog whose store rejects every write during an outage, until `ends` (monotonic time)."""

    ends = 0.0

    def _append(self, events, run, batch):
        if time.monotonic() < self.ends:
            raise OSError("the store is unavailable")
        super()._append(events, run, batch)


def test_a_writer_that_loses_its_lock_during_an_outage_commits_nothing(tmp_path, monkeypatch):
    root, locks = Storage(str(tmp_path)), Storage(f"memory://{uuid.uuid4().hex}")
    catalog = Outage(root)
    catalog.commit([event("a")], "run", 1)
    root.is_local = False  # from here on, its errors are retried
    before = catalog.last_seq()
    with exclusive_lock(locks, "lrm build", lease_seconds=1.5) as check_lock:
        catalog.ends = time.monotonic() + 0.3
        catalog.commit([event("b")], "run", 2, check_lock)
        assert catalog.last_seq() > before
        before = catalog.last_seq()
        # The store of the lease is unavailable as well.
        monkeypatch.setattr(
            Storage, "write", lambda *_: (_ for _ in ()).throw(OSError("unavailable"))
        )
        catalog.ends = time.monotonic() + 8
        with pytest.raises(
            WorkFailed, match=r"could not be renewed in time.*to continue"
        ) as raised:
            catalog.commit([event("c")], "run", 3, check_lock)
        assert "\n" not in str(raised.value)
        monkeypatch.undo()
    assert catalog.last_seq() == before
    assert catalog.history("objaverse:c") == []


def test_the_events_of_several_objects_are_read_at_once(tmp_path):
    catalog = Catalog(Storage(str(tmp_path)))
    assert catalog.histories([]) == {}
    assert catalog.histories(["folder:it's"]) == {"folder:it's": []}
    events = [Event(asset_id=f"folder:{name}", stage="list") for name in ("it's", "b", "c")]
    catalog.commit(events, "run", 1)
    catalog.commit([Event(asset_id="folder:it's", stage="fetch")], "run", 2)
    histories = catalog.histories(["folder:c", "folder:it's", "folder:none"])
    assert {name: [one.event.stage for one in found] for name, found in histories.items()} == {
        "folder:c": ["list"],
        "folder:it's": ["list", "fetch"],
        "folder:none": [],
    }
