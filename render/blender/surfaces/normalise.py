"""Placement of a surface in the normalised frame, in double precision."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from core.failures import FailureKind
from glb.geometry.surface import Surface
from render.blender.failure import SceneFailure

__all__ = ["MAX_DISTANCE", "Normalised", "check_distance", "compose", "normalise"]

MAX_DISTANCE = 1e11
"""Distance from the origin in sizes of the object. At this limit double precision keeps the shape
to 1e-5 of the size; farther away it is lost."""
_MIN_SIZE = 1e-290
"""Its inverse is a number, too."""


@dataclasses.dataclass(frozen=True, eq=False)
class Normalised:
    """A surface in a frame of its own: (world - centre) * scale."""

    surface: Surface
    scale: float
    centre: Float64[np.ndarray, "3"]


def normalise(surface: Surface, how: str) -> Normalised:
    """Return the surface in the cube [-1, 1]^3 (`cube`) or in the unit sphere (`sphere`).

    Only vertices of faces count. Raises SceneFailure: `empty` if they are at one point, `refused`
    if the size of the surface exceeds double precision.
    """
    used = np.zeros(len(surface.positions), dtype=bool)
    used[surface.faces] = True
    points = surface.positions[used]
    low, high = points.min(axis=0), points.max(axis=0)
    centre = low / 2 + high / 2
    with np.errstate(over="ignore"):
        size = 2 * _farthest(points - centre) if how == "sphere" else float((high - low).max())
    if not size > 0:
        raise SceneFailure(FailureKind.EMPTY, "all vertices of the object are at one point")
    if not np.isfinite(size) or size < _MIN_SIZE:
        raise SceneFailure(FailureKind.REFUSED, "the object's size exceeds double precision")
    # Vertices that no face uses may be anywhere.
    positions = np.zeros_like(surface.positions)
    positions[used] = (points - centre) * (2 / size)
    moved = dataclasses.replace(surface, positions=positions)
    return Normalised(moved, 2 / size, centre)


def _farthest(points: np.ndarray) -> float:
    """Return the largest length of vectors (n, 3), whose squares may overflow."""
    largest = float(np.abs(points).max(initial=0))
    scaled = points / largest if largest > 0 else points
    return largest * float(np.linalg.norm(scaled, axis=1).max(initial=0))


def compose(first: Normalised, second: Normalised) -> Normalised:
    """Return the second surface, whose frame is relative to that of the first, in the world."""
    return Normalised(
        second.surface,
        second.scale * first.scale,
        first.centre + second.centre / first.scale,
    )


def check_distance(normalised: Normalised, reach: Float64[np.ndarray, "p"]) -> None:
    """Raise SceneFailure (`refused`) if the object is too far from the origin of the file.

    `reach` is that of `SceneSurface`.
    """
    farthest = float(reach[np.unique(normalised.surface.parts)].max())
    sizes = farthest * normalised.scale / 2
    if sizes > MAX_DISTANCE:
        message = (
            f"the object is too far from the origin: {sizes:.0e} times its size; beyond "
            f"{MAX_DISTANCE:.0e} double precision does not keep its shape"
        )
        raise SceneFailure(FailureKind.REFUSED, message)
