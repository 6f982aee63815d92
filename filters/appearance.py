"""Filters on how an object looks: does it carry a real texture map?"""

from typing import Annotated

import pydantic

from dataset.config import Config
from filters.verdict import PASSED, Facts, Filter, Verdict

__all__ = ["TEXTURED", "TexturedConfig"]


class TexturedConfig(Config):
    """Objects without texture maps (InstantMesh, arXiv 2404.07191).

    A texture map is a base-colour image that the render will show: it decodes, has more than one
    colour, and a primitive of the scene has texture coordinates for it.
    """

    enabled: bool = True
    """Drop objects without a texture map."""
    min_triangle_share: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.0
    """The least fraction of the drawn triangles under such a map; above 0 in any case."""


def _textured(facts: Facts, config: TexturedConfig) -> Verdict:
    assert facts.inspect is not None
    maps = facts.inspect["base_colour_maps"]
    covered = sum(item["triangles"] for item in maps if item["state"] == "detailed")
    share = covered / facts.inspect["num_triangles"]
    keep = covered > 0 and share >= config.min_triangle_share
    return Verdict(
        filter="textured",
        keep=keep,
        reason=PASSED if keep else _reason(covered, {item["state"] for item in maps}),
        measured=round(share, 6),
        limit=config.min_triangle_share,
    )


def _reason(covered: int, states: set[str]) -> str:
    if covered:
        return "little_texture"
    if states == {"flat"}:
        return "flat_texture"
    return "unreadable_texture" if states else "no_texture_map"


TEXTURED = Filter(name="textured", needs="inspect", version=1, judge=_textured)
