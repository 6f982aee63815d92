"""Filters on an object's textures: it has a real texture map, and none of its maps is missing."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from core.config import Config, Fraction
from dataset.columns import Columns
from filters.verdict import Fact, Filter, FilterResult

__all__ = ["MISSING_TEXTURE", "TEXTURED", "MissingTextureConfig", "TexturedConfig"]


class TexturedConfig(Config):
    """Objects without texture maps (InstantMesh, arXiv 2404.07191).

    A base-colour image counts as a texture map if the render shows it: it can be decoded, has more
    than one colour, and a primitive of the scene has texture coordinates for it.
    """

    enabled: bool = True
    """Drop objects without a texture map."""
    min_triangle_share: Fraction = 0.0
    """Minimum share of the drawn triangles that a texture map covers (0.5 is half of them). With 0
    any share above 0 passes."""


class MissingTextureConfig(Config):
    """Objects with a base-colour image that is missing or cannot be read.

    Blender would render them in an arbitrary colour.
    """

    enabled: bool = True
    """Drop objects with a missing or unreadable base-colour image."""
    max_triangle_share: Fraction = 0.0
    """Maximum share of the drawn triangles whose base-colour image may be missing or unreadable."""


def _share(inspected: Mapping[str, Any], *states: str) -> float:
    """Return the share of the drawn triangles whose base-colour map is in one of the states."""
    maps = inspected["base_colour_maps"]
    covered = sum(item["triangles"] for item in maps if item["state"] in states)
    return covered / max(int(inspected["num_triangles"]), 1)


def _states(inspected: Mapping[str, Any]) -> set[str]:
    return {item["state"] for item in inspected["base_colour_maps"]}


_TEXTURE_SHARE: Fact[float] = Fact(
    "inspect",
    "texture_share",
    pa.float64(),
    "share of the drawn triangles with a base-colour map of more than one colour",
    of=lambda stored: _share(stored, "detailed"),
)
_HAS_MAP: Fact[bool] = Fact(
    "inspect",
    "has_map",
    pa.bool_(),
    "whether a drawn material refers to a base-colour map",
    of=lambda stored: bool(_states(stored)),
)
_ONLY_FLAT_MAPS: Fact[bool] = Fact(
    "inspect",
    "only_flat_maps",
    pa.bool_(),
    "whether every base-colour map has a single colour",
    of=lambda stored: _states(stored) == {"flat"},
)
_MISSING_SHARE: Fact[float] = Fact(
    "inspect",
    "missing_share",
    pa.float64(),
    "share of the drawn triangles whose base-colour image is missing or unreadable",
    of=lambda stored: _share(stored, "missing", "unreadable"),
)


def _textured(facts: Columns, config: TexturedConfig) -> FilterResult:
    share = facts.numbers(_TEXTURE_SHARE)
    untextured = share <= 0
    return FilterResult(
        drops={
            "no_texture_map": untextured & ~facts.flags(_HAS_MAP),
            "flat_texture": untextured & facts.flags(_ONLY_FLAT_MAPS),
            "unreadable_texture": untextured,
            "little_texture": share < config.min_triangle_share,
        },
        measured=lambda row: round(float(share[row]), 6),
        limit=config.min_triangle_share,
    )


def _missing_texture(facts: Columns, config: MissingTextureConfig) -> FilterResult:
    share = facts.numbers(_MISSING_SHARE)
    return FilterResult(
        drops={"missing_texture": share > config.max_triangle_share},
        measured=lambda row: round(float(share[row]), 6),
        limit=config.max_triangle_share,
    )


TEXTURED = Filter(
    name="textured",
    version=1,
    facts=(_TEXTURE_SHARE, _HAS_MAP, _ONLY_FLAT_MAPS),
    evaluate=_textured,
)
MISSING_TEXTURE = Filter(
    name="missing_texture", version=1, facts=(_MISSING_SHARE,), evaluate=_missing_texture
)
