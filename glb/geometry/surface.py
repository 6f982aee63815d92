"""The triangles of a scene in one set of arrays, as the renderer draws them."""

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64

__all__ = ["Surface", "grouped_faces"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """The triangles of a scene in world axes (z up); each vertex belongs to one part."""

    positions: Float64[np.ndarray, "v 3"]
    normals: Float32[np.ndarray, "v 3"]
    """Unit vectors; zero where the file has no usable normal."""
    uvs: dict[int, Float32[np.ndarray, "v 2"]]
    """Texture coordinates, v downwards as in glTF, by the numbers that materials give their sets
    (gltf.materials); zero where a primitive has none."""
    colours: Float32[np.ndarray, "v 4"] | None
    """Linear COLOR_0; one where a primitive has none. None if no primitive has any."""
    faces: Int32[np.ndarray, "f 3"]
    """Vertices in counter-clockwise order, seen from the front."""
    materials: Int32[np.ndarray, "f"]
    """Index into the list of the drawn materials."""
    parts: Int32[np.ndarray, "f"]
    """Number of the copy of a primitive that the face belongs to; copies are drawn in this order.
    """
    flat: Bool[np.ndarray, "f"]
    """Faces of primitives without normals: each has its own normal."""

    @property
    def triangles(self) -> Float64[np.ndarray, "f 3 3"]:
        """The corners of every face."""
        return self.positions[self.faces]

    def select(self, mask: Bool[np.ndarray, "f"]) -> Self:
        """Return the surface with only the faces in the mask; its vertices stay."""
        if mask.all():
            return self
        return dataclasses.replace(
            self,
            faces=self.faces[mask],
            materials=self.materials[mask],
            parts=self.parts[mask],
            flat=self.flat[mask],
        )


def grouped_faces(keys: Int[np.ndarray, "f"]) -> list[Int64[np.ndarray, "n"]]:
    """Return the faces of each distinct key, by ascending key: one pass, however many keys."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order])) + 1
    return np.split(order, starts) if len(order) else []
