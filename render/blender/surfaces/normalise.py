"""Placement of a surface in the normalised frame, in double precision."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from core.failures import FailureKind
from glb.geometry.surface import Surface
from render.blender.failure import SceneFailure

__all__ = ["MAX_DISTANCE", "Normalised", "normalise"]

MAX_DISTANCE = 1e11
"""Distance from the origin in sizes of the object. At this limit double precision keeps the shape
to 1e-5 of the size; farther away it is lost."""


@dataclasses.dataclass(frozen=True, eq=False)
class Normalised:
    """A surface in the normalised frame: (world - centre) * scale."""

    surface: Surface
    scale: float
    centre: tuple[float, float, float]


def normalise(surface: Surface, reach: Float64[np.ndarray, "p"], how: str) -> Normalised:
    """Return the surface in the cube [-1, 1]^3 (`cube`) or in the unit sphere (`sphere`).

    Only vertices of faces count. `reach` is that of `SceneSurface`. Raises SceneFailure: `empty` if
    they are at one point, `refused` if the object is too far from the origin for double precision.
    """
    used = np.zeros(len(surface.positions), dtype=bool)
    used[surface.faces] = True
    points = surface.positions[used]
    low, high = points.min(axis=0), points.max(axis=0)
    centre = low / 2 + high / 2
    if how == "sphere":
        size = 2 * float(np.linalg.norm(points - centre, axis=1).max())
    else:
        size = float((high - low).max())
    if not size > 0:
        raise SceneFailure(FailureKind.EMPTY, "all vertices of the object are at one point")
    if not np.isfinite(size) or not np.isfinite(2 / size):
        raise SceneFailure(FailureKind.REFUSED, "the object's size exceeds double precision")
    farthest = float(reach[np.unique(surface.parts)].max())
    if farthest > MAX_DISTANCE * size:
        message = (
            f"the object is too far from the origin: {farthest / size:.0e} times its size; beyond "
            f"{MAX_DISTANCE:.0e} double precision does not keep its shape"
        )
        raise SceneFailure(FailureKind.REFUSED, message)
    positions = (surface.positions - centre) * (2 / size)
    # Vertices that no face uses may be anywhere.
    positions[~used] = 0
    moved = dataclasses.replace(surface, positions=positions)
    return Normalised(moved, 2 / size, (float(centre[0]), float(centre[1]), float(centre[2])))
