"""Layers of triangles at one place: the order in which they are drawn, and their distances."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64, Int32, Int64

from glb.document import Item
from glb.geometry.surface import Surface
from render.blender.surfaces.triangles import area_vectors, squares, unshare

__all__ = ["OPAQUE", "by_material", "drawing_modes", "lift", "longest_side"]

OPAQUE = 0
_MODES = {"MASK": 1, "BLEND": 2}


def by_material(
    materials: Int32[np.ndarray, "n"], value: Callable[[int], int]
) -> Int64[np.ndarray, "n"]:
    """Return a value of the material of each face."""
    indices, faces = np.unique(materials, return_inverse=True)
    return np.array([value(int(index)) for index in indices], dtype=np.int64)[faces]


def drawing_modes(
    indices: Int32[np.ndarray, "n"], materials: Mapping[int, Item]
) -> Int64[np.ndarray, "n"]:
    """Return 0, 1 or 2 for opaque, MASK and BLEND faces, which are drawn in this order."""
    return by_material(
        indices, lambda index: _MODES.get(str(materials[index].get("alphaMode")), OPAQUE)
    )


def longest_side(surface: Surface) -> float:
    """Return the longest side of the bounds of a surface that has faces."""
    corners = surface.positions[surface.faces].reshape(-1, 3)
    return float((corners.max(axis=0) - corners.min(axis=0)).max())


def lift(
    surface: Surface, faces: Int64[np.ndarray, "n"], shifts: Float64[np.ndarray, "n"]
) -> Surface:
    """Return the surface with faces moved along their normals by `shifts` longest sides."""
    faces, shifts = faces[shifts != 0], shifts[shifts != 0]
    if not len(faces):
        return surface
    mask = np.zeros((len(surface.faces), 3), dtype=bool)
    mask[faces] = True
    distances = np.zeros(len(surface.faces))
    distances[faces] = shifts * longest_side(surface)
    moved = np.flatnonzero(mask[:, 0])
    vectors = area_vectors(surface.select(mask[:, 0]))
    vectors *= (distances[moved] / np.sqrt(squares(vectors)))[:, None]
    surface, new = unshare(surface, mask)
    surface.positions[new] += np.repeat(vectors, 3, axis=0)
    return surface
