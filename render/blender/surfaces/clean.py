"""The rules that turn the triangles of a file into those that are drawn."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from glb.document import Item
from glb.geometry.surface import Surface
from render.blender.surfaces.alpha_texture import AlphaTexture
from render.blender.surfaces.coincident import separate_coincident
from render.blender.surfaces.drawn import drawn_faces
from render.blender.surfaces.orientation import orient
from render.blender.surfaces.overlapping import separate_overlapping
from render.blender.surfaces.shells import inward_shells
from render.blender.surfaces.triangles import unshare

__all__ = ["CleanSurface", "clean"]


@dataclass(frozen=True, eq=False)
class CleanSurface:
    """What is drawn of a surface, and how many triangles the rules left out."""

    surface: Surface
    shells: Bool[np.ndarray, "f"]
    """Faces of shells around the object, which are drawn from their front only."""
    num_invisible: int
    """Triangles without an area or an opacity."""
    num_coincident: int
    """Triangles that others hide, at the same place."""


def clean(
    surface: Surface,
    materials: Mapping[int, Item],
    textures: Mapping[int, AlphaTexture],
    cull_shells: bool,
) -> CleanSurface:
    """Apply the rules of this package to a surface; the result may have no face.

    `materials` and `textures` are those of `drawn_faces`.
    """
    drawn = surface.select(drawn_faces(surface, materials, textures))
    # A shell is culled by its winding, as in glTF, so it is found before faces are turned.
    if cull_shells:
        shells = inward_shells(drawn, materials)
    else:
        shells = np.zeros(len(drawn.faces), dtype=bool)
    # Shells get materials of their own, by which they are known after the next rules.
    first = max(materials, default=0) + 1
    own = {first + index: item for index, item in materials.items()}
    marked = _shift_materials(_flatten(drawn, shells), first * shells)
    everything = {**materials, **own}
    result = separate_overlapping(separate_coincident(orient(marked), everything), everything)
    shells = result.materials >= first
    return CleanSurface(
        _shift_materials(result, -first * shells),
        shells,
        len(surface.faces) - len(drawn.faces),
        len(drawn.faces) - len(result.faces),
    )


def _shift_materials(surface: Surface, by: np.ndarray) -> Surface:
    return dataclasses.replace(surface, materials=(surface.materials + by).astype(np.int32))


def _flatten(surface: Surface, faces: Bool[np.ndarray, "f"]) -> Surface:
    """Return the surface with faces that have no normals but their own, by their winding."""
    if not faces.any():
        return surface
    separated, new = unshare(surface, np.tile(faces[:, None], (1, 3)))
    separated.normals[new] = 0
    return dataclasses.replace(separated, flat=separated.flat | faces)
