"""Objects and parts that sources list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dataset.catalog.event_log import Event
from dataset.object_record import ObjectRecord
from pipelines.building.projection import with_event
from pipelines.building.stages.object_state import ObjectState
from pipelines.sources import Source, SourceObject
from pipelines.sources.skipped_rows import SkippedRows


def objects_of(source: Source) -> list[SourceObject]:
    """Return all objects of a source, sorted by asset id."""
    objects = [item for part in source.parts() for item in source.read_part(part)]
    return sorted(objects, key=lambda item: item.record.asset_id)


def changed_parts(before, after) -> set[str]:
    """Return the names of parts that were added, removed or changed between two listings."""
    return {name for name in {**before, **after} if before.get(name) != after.get(name)}


RECORD = ObjectRecord(
    asset_id="objaverse:" + "a" * 32,
    path="glbs/000-000/a.glb",
    name="chair",
    licence="by",
    author="me",
    tags=(),
    categories=(),
    caption="a chair",
    age_restricted=False,
).to_dict()


def listed_state(version: str = "1", **changes) -> ObjectState:
    """Return the state of an object after the list stage; `changes` replaces its fields."""
    data = {**RECORD, **changes, "version": version, "part": "000-000"}
    asset_id = data.pop("asset_id")
    event = Event(asset_id=asset_id, stage="list", data=data)
    return with_event(ObjectState(row={"asset_id": asset_id}), event)


@dataclass
class MemorySource:
    """A source in memory: objects by part, as name -> (version, tags, categories)."""

    content: dict[str, dict[str, tuple[str, str, str]]]
    prefix: str = "objaverse"
    has_captions: bool = False
    is_local: bool = True
    problems: dict[str, str] = field(default_factory=dict)
    """Why an object's annotation cannot be used, by name."""
    read: list[str] = field(default_factory=list)
    """The parts whose annotations were read."""

    def parts(self) -> Mapping[str, str]:
        return {part: str([v[1:] for v in items.values()]) for part, items in self.content.items()}

    def files(self, part: str, lvis: bool) -> Mapping[str, str]:
        items = sorted(self.content[part].items())
        return {f"{self.prefix}:{k}": v[0] for k, v in items if v[2] or not lvis}

    def skipped_rows(self) -> Sequence[SkippedRows]:
        return ()

    def read_part(self, name: str) -> list[SourceObject]:
        self.read.append(name)
        return [
            SourceObject(
                record=self.record(key, *value[1:]),
                version=value[0],
                problem=self.problems.get(key, ""),
            )
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
            caption="own caption" if self.has_captions else None,
            age_restricted=False,
        )


_ISLANDS = {"whole": {"1": {"groups": [], "islands": []}, "2": {"groups": []}}, "slab": None}
STAGE_DATA = {
    "fetch": {"sha256": "f" * 64, "bytes": 1, "raw": None},
    "inspect": {"num_triangles": 1, "base_colour_maps": []},
    "measure": {"coverage": [0.2] * 32, "islands": _ISLANDS, "thickness": 0.5},
    "render": {"staging": "staging/x.tar", "bytes": 1, "coverage": [0.2] * 32},
    "geometry": {"path": "geometry/cube/x.npz", "bytes": 1},
    "pack": {"shard": "shards/lrm32/x.tar", "sample": "x", "shard_sha256": ""},
}
"""Data of a successful event of each stage."""
