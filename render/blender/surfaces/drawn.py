"""Which triangles draw something: those with an area, and with an opacity that a picture shows."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from glb.document import Item
from glb.geometry.surface import Surface, grouped_faces
from glb.shown_materials import MIN_OPACITY, base_colour, least_opacity
from render.blender.surfaces.alpha_texture import AlphaTexture, shows_alpha, texture_coordinates
from render.blender.surfaces.triangles import (
    corner_positions,
    cross,
    largest_parts,
    squares,
)

__all__ = ["drawn_faces"]

_MIN_HEIGHT = 1e-6
"""Of a triangle over its longest side, in units of that side: 8 roundings of float32. Nothing
thinner is seen: the longest side is at most the object's diagonal, 1000 pixels or less."""
_ROUNDINGS = 8
"""Heights of this many roundings of the corners' float64 coordinates are no height either."""


def drawn_faces(
    surface: Surface, materials: Mapping[int, Item], textures: Mapping[int, AlphaTexture]
) -> Bool[np.ndarray, "f"]:
    """Return a mask of the triangles that draw something. Positions must be finite.

    A triangle without area, or a needle as thin as the rounding of its corners, covers no pixel,
    but would count in the bounds. Nor does a triangle draw anything if its opacity is everywhere
    below `alphaCutoff` (MASK) or what 8 bits show (BLEND). As in glTF, opacity is the product of
    the factor, the texture and COLOR_0; OPAQUE ignores it.

    `materials` are shown materials by index. `textures` has the alpha of base colour textures by
    material; a material that is not in it may show any alpha.
    """
    drawn = _have_area(surface)
    solid = np.flatnonzero(drawn)
    for rows in grouped_faces(surface.materials[solid]):
        faces = solid[rows]
        index = int(surface.materials[faces[0]])
        limit = least_opacity(materials[index])
        if limit is not None:
            drawn[faces] = _show(surface, faces, materials[index], limit, textures.get(index))
    return drawn


def _have_area(surface: Surface) -> np.ndarray:
    """Return a mask (f,) of the triangles that are higher than the rounding of their corners."""
    first, second, third = corner_positions(surface)
    largest = largest_parts(first)
    for other in (second, third):
        np.maximum(largest, largest_parts(other), out=largest)
        other -= first
    # Scaled, squares of huge and tiny coordinates neither overflow nor vanish.
    scale = np.maximum(largest_parts(second), largest_parts(third))
    scale[scale == 0] = 1
    second /= scale[:, None]
    third /= scale[:, None]
    doubled_area = np.sqrt(squares(cross(second, third)))
    longest = np.maximum(squares(second), squares(third))
    second -= third
    longest = np.sqrt(np.maximum(longest, squares(second)))
    rounding = _ROUNDINGS * np.finfo(np.float64).eps * (largest / scale)
    return doubled_area > longest * np.maximum(_MIN_HEIGHT * longest, rounding)


def _show(
    surface: Surface,
    faces: np.ndarray,
    material: Item,
    limit: float,
    texture: AlphaTexture | None,
) -> np.ndarray:
    """Return which of the faces (n,) may have an opacity of at least `limit` somewhere."""
    factor, slot = base_colour(material)
    opacity = np.full(len(faces), factor[3], dtype=np.float64)
    if surface.colours is not None:
        opacity *= np.minimum(surface.colours[surface.faces[faces], 3].max(axis=1), 1)
    # Factors are written as decimal numbers, colours as bytes: 0.2 and 51/255 are the same.
    shown = opacity >= limit * (1 - 1e-5)
    if slot is None or texture is None or not shown.any():
        return shown
    level = limit / max(opacity.max(), MIN_OPACITY)
    shown[shown] = shows_alpha(texture, texture_coordinates(surface, slot, faces[shown]), level)
    return shown
