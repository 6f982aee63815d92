"""Facts about made-up objects, one filter at a time."""

from typing import Any

from dataset.objects import ObjectRecord
from filters.verdict import Facts


def record(**changed: Any) -> ObjectRecord:
    """An object that every filter of the list stage keeps."""
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
    """One dilation of the islands' measurement: each piece its own group."""
    pieces = [{"share": share, "extent": [1.0, 1.0, height], "gap": 0.1} for share in shares]
    groups = [{"share": share, "height": height} for share in shares]
    return {"count": len(shares), "islands": pieces, "groups": groups}


def islands(*shares: float, close: tuple[float, ...] | None = None, above=None) -> dict[str, Any]:
    """A measurement with these shares after two dilations, and `close` after one."""
    whole = {"1": level(*(close or shares)), "2": level(*shares), "4": level(1.0)}
    slab = None
    if above is not None:
        slab = {"top": -0.9, "share": 0.5, "cover": 1.0}
        slab |= {"above": {"1": above, "2": above, "4": above}}
    return {"points": 1000, "voxel": 1 / 64, "whole": whole, "slab": slab}


def kept_facts(**changed: Any) -> Facts:
    """An object that every filter keeps, with all measurements there."""
    texture = {"image": 0, "source": "core", "width": 8, "height": 8}
    texture |= {"state": "detailed", "triangles": 100}
    values: dict[str, Any] = {
        "record": record(),
        "inspect": {"num_triangles": 100, "base_colour_maps": [texture]},
        "measure": {"coverage": [0.5, 0.3, 0.4], "islands": islands(1.0)},
        "render": {},
    }
    return Facts(**values | changed)
