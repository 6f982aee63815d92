"""Filters on how an object looks: does it carry a real texture map, and all of its textures?"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from core.config import Config, Fraction
from dataset.columns import Columns
from filters.verdict import Fact, Filter, Judgement

__all__ = ["MISSING_TEXTURE", "TEXTURED", "MissingTextureConfig", "TexturedConfig"]


class TexturedConfig(Config):
    """Objects without texture maps (InstantMesh, arXiv 2404.07191).

    A texture map is a base-colour image that the render will show: it decodes, has more than one
    colour, and a primitive of the scene has texture coordinates for it.
    """

    enabled: bool = True
    """Drop objects without a texture map."""
    min_triangle_share: Fraction = 0.0
    """The least fraction of the drawn triangles under such a map; above 0 in any case."""


class MissingTextureConfig(Config):
    """Objects that name a base-colour image which is not there or cannot be read.

    They would be rendered in a colour that nobody chose.
    """

    enabled: bool = True
    """Drop objects that lack a base-colour image of their own."""
    max_triangle_share: Fraction = 0.0
    """The largest fraction of the drawn triangles that may lack theirs."""


def _share(inspected: Mapping[str, Any], *states: str) -> float:
    """The fraction of the drawn triangles under a base-colour map in one of the states."""
    maps = inspected["base_colour_maps"]
    covered = sum(item["triangles"] for item in maps if item["state"] in states)
    return covered / max(int(inspected["num_triangles"]), 1)


def _states(inspected: Mapping[str, Any]) -> set[str]:
    return {item["state"] for item in inspected["base_colour_maps"]}


_TEXTURE_SHARE: Fact[float] = Fact(
    "inspect",
    "texture_share",
    pa.float64(),
    "share of the drawn triangles under a base-colour map that is a picture",
    of=lambda found: _share(found, "detailed"),
)
_HAS_MAP: Fact[bool] = Fact(
    "inspect",
    "has_map",
    pa.bool_(),
    "whether a drawn material names a base-colour map",
    of=lambda found: bool(_states(found)),
)
_ONLY_FLAT_MAPS: Fact[bool] = Fact(
    "inspect",
    "only_flat_maps",
    pa.bool_(),
    "whether all of its base-colour maps have a single colour",
    of=lambda found: _states(found) == {"flat"},
)
_MISSING_SHARE: Fact[float] = Fact(
    "inspect",
    "missing_share",
    pa.float64(),
    "share of the drawn triangles whose base-colour image is missing or unreadable",
    of=lambda found: _share(found, "missing", "unreadable"),
)


def _textured(facts: Columns, config: TexturedConfig) -> Judgement:
    share = facts.numbers(_TEXTURE_SHARE)
    none = share <= 0
    return Judgement(
        drops={
            "no_texture_map": none & ~facts.flags(_HAS_MAP),
            "flat_texture": none & facts.flags(_ONLY_FLAT_MAPS),
            "unreadable_texture": none,
            "little_texture": share < config.min_triangle_share,
        },
        measured=lambda row: round(float(share[row]), 6),
        limit=config.min_triangle_share,
    )


def _missing_texture(facts: Columns, config: MissingTextureConfig) -> Judgement:
    share = facts.numbers(_MISSING_SHARE)
    return Judgement(
        drops={"missing_texture": share > config.max_triangle_share},
        measured=lambda row: round(float(share[row]), 6),
        limit=config.max_triangle_share,
    )


TEXTURED = Filter(
    name="textured",
    version=1,
    facts=(_TEXTURE_SHARE, _HAS_MAP, _ONLY_FLAT_MAPS),
    judge=_textured,
)
MISSING_TEXTURE = Filter(
    name="missing_texture", version=1, facts=(_MISSING_SHARE,), judge=_missing_texture
)
