"""The catalog: append-only, idempotent, and the last event counts."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.catalog import Catalog, Event
from dataset.storage import Storage


def event(asset: str, stage: str = "fetch", key: str = "k", **fields) -> Event:
    return Event(asset_id=f"objaverse:{asset}", stage=stage, key=key, **fields)


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    return Catalog(Storage(str(tmp_path)))


def test_an_empty_root_has_an_empty_catalog(catalog):
    assert catalog.current() == {}
    assert catalog.history("objaverse:a") == []


def test_the_last_event_of_each_stage_and_rig_counts(catalog):
    catalog.commit([event("a", key="1"), event("a", key="2")], "run", 1)
    catalog.commit([event("a", key="3"), event("a", "render", rig="lrm32")], "run", 2)
    catalog.commit([event("a", "render", rig="orbit21", data={"x": [1, None, "ü"]})], "other", 1)
    current = catalog.current()
    assert {place: found.key for place, found in current.items()} == {
        ("objaverse:a", "fetch", ""): "3",
        ("objaverse:a", "render", "lrm32"): "k",
        ("objaverse:a", "render", "orbit21"): "k",
    }
    assert current["objaverse:a", "render", "orbit21"].data == {"x": [1, None, "ü"]}
    assert set(catalog.current(["render"])) == {
        ("objaverse:a", "render", rig) for rig in ("lrm32", "orbit21")
    }
    assert [record.event.key for record in catalog.history("objaverse:a")][:3] == ["1", "2", "3"]


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
