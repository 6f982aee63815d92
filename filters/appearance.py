"""Filters on how an object looks: does it carry a real texture map, and all of its textures?"""

from collections.abc import Mapping
from typing import Annotated, Any

import pyarrow as pa
import pydantic

from core.config import Config
from dataset.columns import Columns
from filters.verdict import Fact, Filter, Judgement

__all__ = ["MISSING_TEXTURE", "TEXTURED", "MissingTextureConfig", "TexturedConfig"]

Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class TexturedConfig(Config):
    """Objects without texture maps (InstantMesh, arXiv 2404.07191).

    A texture map is a base-colour image that the render will show: it decodes, has more than one
    colour, and a primitive of the scene has texture coordinates for it.
    """

    enabled: bool = True
    """Drop objects without a texture map."""
    min_triangle_share: Share = 0.0
    """The least fraction of the drawn triangles under such a map; above 0 in any case."""


class MissingTextureConfig(Config):
    """Objects that name a base-colour image which is not there or cannot be read.

    They would be rendered in a colour that nobody chose.
    """

    enabled: bool = True
    """Drop objects that lack a base-colour image of their own."""
    max_triangle_share: Share = 0.0
    """The largest fraction of the drawn triangles that may lack theirs."""


def _share(inspected: Mapping[str, Any], *states: str) -> float:
    """The fraction of the drawn triangles under a base-colour map in one of the states."""
    maps = inspected["base_colour_maps"]
    covered = sum(item["triangles"] for item in maps if item["state"] in states)
    return covered / max(int(inspected["num_triangles"]), 1)


def _states(inspected: Mapping[str, Any]) -> set[str]:
    return {item["state"] for item in inspected["base_colour_maps"]}


def _textured(facts: Columns, config: TexturedConfig) -> Judgement:
    share = facts.numbers("inspect.texture_share")
    none = share <= 0
    return Judgement(
        drops={
            "no_texture_map": none & ~facts.flags("inspect.has_map"),
            "flat_texture": none & facts.flags("inspect.only_flat_maps"),
            "unreadable_texture": none,
            "little_texture": share < config.min_triangle_share,
        },
        measured=lambda row: round(float(share[row]), 6),
        limit=config.min_triangle_share,
    )


def _missing_texture(facts: Columns, config: MissingTextureConfig) -> Judgement:
    share = facts.numbers("inspect.missing_share")
    return Judgement(
        drops={"missing_texture": share > config.max_triangle_share},
        measured=lambda row: round(float(share[row]), 6),
        limit=config.max_triangle_share,
    )


TEXTURED = Filter(
    name="textured",
    needs="inspect",
    version=1,
    facts=(
        Fact(name="texture_share", type=pa.float64(), of=lambda found: _share(found, "detailed")),
        Fact(name="has_map", type=pa.bool_(), of=lambda found: bool(_states(found))),
        Fact(name="only_flat_maps", type=pa.bool_(), of=lambda found: _states(found) == {"flat"}),
    ),
    judge=_textured,
)
MISSING_TEXTURE = Filter(
    name="missing_texture",
    needs="inspect",
    version=1,
    facts=(
        Fact(
            name="missing_share",
            type=pa.float64(),
            of=lambda found: _share(found, "missing", "unreadable"),
        ),
    ),
    judge=_missing_texture,
)
