"""The changes that a refresh detects in a source, and the annotations that it reads for them."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pytest

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from pipelines.building.build_config import BuildConfig
from pipelines.building.listing import Listing, read_listing, read_parts, write_parts
from pipelines.building.object_table import latest_of
from tests.support.listings import MemorySource

LIST_EVENTS = ("list", "")


@dataclass
class Refresh:
    """A dataset that lists its source again at every call."""

    root: Storage
    source: MemorySource
    number: int = 0

    def __call__(self, captions: Mapping[str, str] | None = None, **settings) -> Listing:
        config = BuildConfig(source="s", root=self.root.uri, **settings)
        latest = latest_of(self.root)
        known = latest.tables([LIST_EVENTS])[LIST_EVENTS]
        del self.source.read[:]
        listing = read_listing(
            self.source, config, captions or {}, known, read_parts(self.root, config)
        )
        self.number += 1
        Catalog(self.root).commit(list(listing.events()), "run", self.number)
        write_parts(self.root, config, listing)
        return listing


@pytest.fixture
def refresh(tmp_path) -> Refresh:
    content = {
        "p1": {"a": ("1", "wood", ""), "b": ("1", "", "chair")},
        "p2": {"c": ("1", "", ""), "d": ("1", "", "")},
    }
    return Refresh(Storage(str(tmp_path)), MemorySource(content))


def names(table: pa.Table | pa.Array) -> list[str]:
    ids = table["asset_id"] if isinstance(table, pa.Table) else table
    return sorted(asset_id.partition(":")[2] for asset_id in ids.to_pylist())


def test_in_the_first_refresh_everything_is_new_and_in_the_second_nothing(refresh):
    first = refresh()
    assert names(first.listed) == names(first.changed) == names(first.selected) == list("abcd")
    assert refresh.source.read == ["p1", "p2"]
    again = refresh()
    assert names(again.listed) == names(again.selected) == list("abcd")
    assert (again.changed.num_rows, len(again.delisted), refresh.source.read) == (0, 0, [])


def test_changed_bytes_are_detected_without_reading_annotations(refresh):
    refresh()
    refresh.source.content["p1"]["a"] = ("2", "wood", "")
    listing = refresh()
    assert (names(listing.changed), refresh.source.read) == (["a"], [])
    assert listing.changed["version"].to_pylist() == ["2"]
    assert listing.changed["tags"].to_pylist() == [["wood"]]
    assert refresh().changed.num_rows == 0


def test_changed_tags_are_read_only_in_the_part_that_changed(refresh):
    refresh()
    refresh.source.content["p1"]["a"] = ("1", "lowpoly", "")
    listing = refresh()
    assert (names(listing.changed), refresh.source.read) == (["a"], ["p1"])
    assert listing.changed["lowpoly_tags"].to_pylist() == [["lowpoly"]]


def test_added_changed_and_removed_captions_are_detected(refresh):
    refresh()
    listing = refresh({"a": "a chair"})
    assert (names(listing.changed), refresh.source.read) == (["a"], [])
    assert listing.changed["caption_characters"].to_pylist() == [7]
    assert refresh({"a": "a chair"}).changed.num_rows == 0
    assert names(refresh({"a": " a stool "}).changed) == ["a"]
    uncaptioned = refresh()
    assert (names(uncaptioned.changed), uncaptioned.changed["caption"].to_pylist()) == (
        ["a"],
        [None],
    )


def test_an_unusable_annotation_is_read_until_it_is_corrected(refresh):
    refresh.source.problems["a"] = "tags is a number, not a list"
    first = refresh()
    events = {event.asset_id: event for event in first.events()}
    failed = events.pop("objaverse:a")
    assert (failed.status, failed.kind) == ("failed", "bad_annotation")
    assert failed.message == "tags is a number, not a list"
    assert {event.status for event in events.values()} == {"ok"}
    again = refresh()
    assert (again.changed.num_rows, refresh.source.read) == (0, ["p1"])
    assert (names(again.listed), again.problems) == (list("abcd"), first.problems)
    assert names(refresh({"a": "a chair"}).changed) == ["a"]
    refresh.source.problems["a"] = "license is a number, not text"
    assert names(refresh({"a": "a chair"}).changed) == ["a"]
    del refresh.source.problems["a"]
    corrected = refresh({"a": "a chair"})
    assert corrected.changed["status"].to_pylist() == ["ok"]
    assert refresh({"a": "a chair"}).changed.num_rows == 0
    assert refresh.source.read == []
    refresh.source.problems["a"] = "unread"
    refresh.source.content["p1"]["c"] = refresh.source.content["p2"].pop("c")
    assert names(refresh({"a": "a chair"}).changed) == ["a", "c"]
    del refresh.source.content["p1"]["a"]
    assert names(refresh().delisted) == ["a"]


def test_vanished_objects_are_delisted_and_can_return(refresh):
    refresh()
    removed = refresh.source.content["p1"].pop("a")
    listing = refresh()
    assert (names(listing.delisted), names(listing.listed)) == (["a"], list("bcd"))
    refresh.source.content["p1"]["a"] = removed
    restored = refresh()
    assert (names(restored.changed), names(restored.listed)) == (["a"], list("abcd"))
    del refresh.source.content["p2"]
    assert names(refresh().delisted) == ["c", "d"]


def test_new_objects_are_read(refresh):
    refresh()
    refresh.source.content["p3"] = {"e": ("1", "", "")}
    listing = refresh()
    assert (names(listing.changed), refresh.source.read) == (["e"], ["p3"])


def test_an_object_may_move_to_another_part(refresh):
    refresh()
    refresh.source.content["p2"]["a"] = refresh.source.content["p1"].pop("a")
    listing = refresh()
    assert (names(listing.changed), len(listing.delisted)) == (["a"], 0)
    assert listing.changed["part"].to_pylist() == ["p2"]


def test_a_limit_selects_the_first_objects_and_leaves_the_others_listed(refresh):
    first = refresh(limit=3)
    assert names(first.selected) == names(first.listed) == list("abc")
    refresh.source.content["p2"]["d"] = ("2", "", "")
    more = refresh()
    assert names(more.changed) == ["d"]
    less = refresh(limit=1)
    assert (names(less.selected), names(less.listed)) == (["a"], list("abcd"))
    assert (less.changed.num_rows, len(less.delisted)) == (0, 0)


def test_an_object_that_moves_out_of_a_part_beyond_the_limit_is_listed_once(refresh):
    refresh()
    refresh.source.content["p1"]["d"] = refresh.source.content["p2"].pop("d")
    listing = refresh(limit=3)
    assert (names(listing.selected), names(listing.listed)) == (list("abd"), list("abcd"))
    assert (names(listing.changed), len(listing.delisted)) == (["d"], 0)


def test_lvis_selects_only_objects_with_a_category(refresh):
    listing = refresh(lvis=True)
    assert names(listing.selected) == names(listing.listed) == ["b"]
    assert names(refresh().changed) == ["a", "c", "d"]
    again = refresh(lvis=True)
    assert (names(again.selected), names(again.listed)) == (["b"], list("abcd"))
    assert (again.changed.num_rows, len(again.delisted)) == (0, 0)
    refresh.source.content = {"p2": refresh.source.content["p2"]}
    with pytest.raises(BadInput, match="no object has an LVIS category"):
        refresh(lvis=True)


def test_objects_of_another_source_stay_listed(refresh):
    refresh()
    objaverse, refresh.source = (
        refresh.source,
        MemorySource({"00": {"x": ("1", "", "")}}, "folder", True),
    )
    listing = refresh({"x": "of another source"})
    assert (names(listing.selected), names(listing.listed)) == (["x"], [*"abcd", "x"])
    assert listing.changed["caption"].to_pylist() == ["own caption"]
    refresh.source = objaverse
    assert (refresh().changed.num_rows, len(refresh().delisted)) == (0, 0)


def test_the_listing_is_read_again_after_the_catalog_was_restored(refresh, tmp_path):
    """Objects that only the newer catalog had would be missing for ever."""
    refresh()
    shutil.copytree(tmp_path / "catalog", tmp_path / "backup")
    refresh.source.content["p2"]["e"] = ("1", "", "")
    assert names(refresh().changed) == ["e"]
    refresh()
    assert refresh.source.read == []
    shutil.rmtree(tmp_path / "catalog")
    (tmp_path / "backup").rename(tmp_path / "catalog")
    refresh.number = 100
    assert names(refresh().changed) == ["e"]
    assert refresh.source.read == ["p1", "p2"]
