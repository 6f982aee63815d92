"""Objects and parts that sources list."""

from dataset.catalog.event_log import Event
from dataset.object_record import ObjectRecord
from pipelines.building.projection import with_event
from pipelines.building.stages.object_state import ObjectState
from pipelines.sources import Source, SourceObject


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
