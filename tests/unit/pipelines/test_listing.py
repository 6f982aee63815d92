"""What a refresh learns of a source, and which annotations it reads for that."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.object_record import ObjectRecord
from pipelines.building.build_config import BuildConfig
from pipelines.building.listing import Listing, read_listing, read_parts, write_parts
from pipelines.building.object_table import latest_of
from pipelines.sources import SourceObject

PLACE = ("list", "")


@dataclass
class Shelf:
    """A source in memory: objects by part, as name -> (version, tags, categories)."""

    content: dict[str, dict[str, tuple[str, str, str]]]
    prefix: str = "objaverse"
    has_captions: bool = False
    is_local: bool = True
    read: list[str] = field(default_factory=list)
    """The parts whose annotations were read."""

    def parts(self) -> Mapping[str, str]:
        return {part: str([v[1:] for v in items.values()]) for part, items in self.content.items()}

    def files(self, part: str, lvis: bool) -> Mapping[str, str]:
        items = sorted(self.content[part].items())
        return {f"{self.prefix}:{k}": v[0] for k, v in items if v[2] or not lvis}

    def read_part(self, name: str) -> list[SourceObject]:
        self.read.append(name)
        return [
            SourceObject(record=self.record(key, *value[1:]), version=value[0])
            for key, value in sorted(self.content[name].items())
        ]

    def record(self, key: str, tag: str, category: str) -> ObjectRecord:
        return ObjectRecord(
            asset_id=f"{self.prefix}:{key}",
            path=f"{key}.glb",
            name=key,
            licence="by",
            author=None,
            tags=(tag,) if tag else (),
            categories=(category,) if category else (),
            caption="its own" if self.has_captions else None,
            age_restricted=False,
        )


@dataclass
class Refresh:
    """A dataset that is told of a source again and again."""

    root: Storage
    source: Shelf
    number: int = 0

    def __call__(self, captions: Mapping[str, str] | None = None, **settings) -> Listing:
        config = BuildConfig(source="s", root=self.root.uri, **settings)
        latest = latest_of(self.root)
        known = latest.tables([PLACE])[PLACE]
        del self.source.read[:]
        found = read_listing(
            self.source, config, captions or {}, known, read_parts(self.root, config)
        )
        self.number += 1
        Catalog(self.root).commit(list(found.events()), "run", self.number)
        write_parts(self.root, config, found)
        return found


@pytest.fixture
def refresh(tmp_path) -> Refresh:
    content = {
        "p1": {"a": ("1", "wood", ""), "b": ("1", "", "chair")},
        "p2": {"c": ("1", "", ""), "d": ("1", "", "")},
    }
    return Refresh(Storage(str(tmp_path)), Shelf(content))


def names(table: pa.Table | pa.Array) -> list[str]:
    ids = table["asset_id"] if isinstance(table, pa.Table) else table
    return sorted(asset_id.partition(":")[2] for asset_id in ids.to_pylist())


def test_the_first_time_all_is_new_and_the_second_nothing(refresh):
    first = refresh()
    assert names(first.listed) == names(first.changed) == names(first.selected) == list("abcd")
    assert refresh.source.read == ["p1", "p2"]
    again = refresh()
    assert names(again.listed) == names(again.selected) == list("abcd")
    assert (again.changed.num_rows, len(again.delisted), refresh.source.read) == (0, 0, [])


def test_other_bytes_are_seen_without_reading_annotations(refresh):
    refresh()
    refresh.source.content["p1"]["a"] = ("2", "wood", "")
    found = refresh()
    assert (names(found.changed), refresh.source.read) == (["a"], [])
    assert found.changed["version"].to_pylist() == ["2"]
    assert found.changed["tags"].to_pylist() == [["wood"]]
    assert refresh().changed.num_rows == 0


def test_other_tags_are_read_where_they_changed(refresh):
    refresh()
    refresh.source.content["p1"]["a"] = ("1", "lowpoly", "")
    found = refresh()
    assert (names(found.changed), refresh.source.read) == (["a"], ["p1"])
    assert found.changed["lowpoly_tags"].to_pylist() == [["lowpoly"]]


def test_captions_come_change_and_go(refresh):
    refresh()
    found = refresh({"a": "a chair"})
    assert (names(found.changed), refresh.source.read) == (["a"], [])
    assert found.changed["caption_characters"].to_pylist() == [7]
    assert refresh({"a": "a chair"}).changed.num_rows == 0
    assert names(refresh({"a": " a stool "}).changed) == ["a"]
    gone = refresh()
    assert (names(gone.changed), gone.changed["caption"].to_pylist()) == (["a"], [None])


def test_what_vanished_is_gone_and_may_come_back(refresh):
    refresh()
    kept = refresh.source.content["p1"].pop("a")
    found = refresh()
    assert (names(found.delisted), names(found.listed)) == (["a"], list("bcd"))
    refresh.source.content["p1"]["a"] = kept
    back = refresh()
    assert (names(back.changed), names(back.listed)) == (["a"], list("abcd"))
    del refresh.source.content["p2"]
    assert names(refresh().delisted) == ["c", "d"]


def test_new_objects_are_read(refresh):
    refresh()
    refresh.source.content["p3"] = {"e": ("1", "", "")}
    found = refresh()
    assert (names(found.changed), refresh.source.read) == (["e"], ["p3"])


def test_an_object_may_move_to_another_part(refresh):
    refresh()
    refresh.source.content["p2"]["a"] = refresh.source.content["p1"].pop("a")
    found = refresh()
    assert (names(found.changed), len(found.delisted)) == (["a"], 0)
    assert found.changed["part"].to_pylist() == ["p2"]


def test_a_limit_takes_the_first_and_leaves_the_others_as_they_are(refresh):
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
    found = refresh(limit=3)
    assert (names(found.selected), names(found.listed)) == (list("abd"), list("abcd"))
    assert (names(found.changed), len(found.delisted)) == (["d"], 0)


def test_only_lvis(refresh):
    found = refresh(lvis=True)
    assert names(found.selected) == names(found.listed) == ["b"]
    assert names(refresh().changed) == ["a", "c", "d"]
    again = refresh(lvis=True)
    assert (names(again.selected), names(again.listed)) == (["b"], list("abcd"))
    assert (again.changed.num_rows, len(again.delisted)) == (0, 0)
    refresh.source.content = {"p2": refresh.source.content["p2"]}
    with pytest.raises(BadInput, match="no object has an LVIS category"):
        refresh(lvis=True)


def test_objects_of_another_source_stay(refresh):
    refresh()
    objaverse, refresh.source = refresh.source, Shelf({"00": {"x": ("1", "", "")}}, "folder", True)
    found = refresh({"x": "not for it"})
    assert (names(found.selected), names(found.listed)) == (["x"], [*"abcd", "x"])
    assert found.changed["caption"].to_pylist() == ["its own"]
    refresh.source = objaverse
    assert (refresh().changed.num_rows, len(refresh().delisted)) == (0, 0)
