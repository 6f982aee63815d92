"""Measurements of invented objects, and the verdicts of filters on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset.columns import RowColumns
from dataset.object_record import ObjectRecord
from filters.chain import FilterConfig, facts_of, verdicts
from filters.shape import MULTI_OBJECT, MultiObjectConfig
from filters.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The stored measurements of one object; None for a stage that has not run."""

    record: ObjectRecord
    inspect: Mapping[str, Any] | None = None
    measure: Mapping[str, Any] | None = None
    render: Mapping[str, Any] | None = None

    def stages(self) -> dict[str, Mapping[str, Any]]:
        """Return the stored measurements by stage, for the stages that have run."""
        stored_by_stage = {"list": self.record.to_dict(), "inspect": self.inspect}
        stored_by_stage |= {"measure": self.measure, "render": self.render}
        return {stage: stored for stage, stored in stored_by_stage.items() if stored is not None}

    def row(self) -> dict[str, Any]:
        """Return the measurements as columns of the catalog."""
        return {
            fact.key: fact.of(stored)
            for stage, stored in self.stages().items()
            for fact in facts_of(stage)
        }


def evaluate_filters(facts: Facts, config: FilterConfig) -> list[Verdict]:
    """Return the verdicts of all enabled filters whose measurements exist."""
    return verdicts(RowColumns(facts.row()), config, facts.stages().keys())


def count_objects(islands: Mapping[str, Any], config: MultiObjectConfig) -> tuple[str, float]:
    """Return the number of objects in a result of `measure_islands`, and its area share."""
    stored = {"islands": islands}
    row = {fact.key: fact.of(stored) for fact in MULTI_OBJECT.facts}
    measured = MULTI_OBJECT.evaluate(RowColumns(row), config).measured(0)
    return measured["objects"], measured["share"]


def record(**changed: Any) -> ObjectRecord:
    """Return the record of an object that every filter of the list stage keeps."""
    values: dict[str, Any] = {
        "asset_id": "objaverse:" + "0" * 32,
        "path": "glbs/000-000/0.glb",
        "name": "thing",
        "licence": "by",
        "author": "someone",
        "tags": ("wood",),
        "categories": (),
        "caption": "A thing.",
        "age_restricted": False,
    }
    return ObjectRecord(**values | changed)


def level(*shares: float, height: float = 1.0) -> dict[str, Any]:
    """Return the islands after one dilation; each piece is a group of its own."""
    pieces = [{"share": share, "extent": [1.0, 1.0, height], "gap": 0.1} for share in shares]
    groups = [{"share": share, "height": height} for share in shares]
    return {"count": len(shares), "islands": pieces, "groups": groups}


def islands(*shares: float, close: tuple[float, ...] | None = None, above=None) -> dict[str, Any]:
    """Return an islands measurement: area shares after two dilations, and `close` after one.

    `above` is a level above a ground plate; without it there is no plate.
    """
    whole = {"1": level(*(close or shares)), "2": level(*shares), "4": level(1.0)}
    slab = None
    if above is not None:
        slab = {"top": -0.9, "share": 0.5, "cover": 1.0}
        slab |= {"above": {"1": above, "2": above, "4": above}}
    return {"points": 1000, "voxel": 1 / 64, "whole": whole, "slab": slab}


def kept_facts(**changed: Any) -> Facts:
    """Return an object with all measurements that every filter keeps."""
    texture = {"image": 0, "source": "core", "width": 8, "height": 8}
    texture |= {"state": "detailed", "triangles": 100}
    values: dict[str, Any] = {
        "record": record(),
        "inspect": {"num_triangles": 100, "base_colour_maps": [texture]},
        "measure": {"coverage": [0.5, 0.3, 0.4], "islands": islands(1.0), "thickness": 0.4},
        "render": {"coverage": [0.5, 0.3, 0.4]},
    }
    return Facts(**values | changed)
