"""The surface of the open object: evenly spread points, and its mesh."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from core.failures import FailureKind
from glb.geometry.surface import Surface
from render.blender.failure import SceneFailure
from render.job import GeometryRequest

__all__ = ["Places", "sample_places", "sample_surface", "write_surface"]

_MIN_AREA = 1e-14
"""Of a triangle, in the normalised frame; in single precision smaller ones are lines."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Places on triangles."""

    faces: Int64[np.ndarray, "n"]
    u: Float64[np.ndarray, "n 1"]
    """Weight of the second corner; the first has the rest."""
    v: Float64[np.ndarray, "n 1"]
    """Weight of the third corner."""

    def mix(self, corners: Float[np.ndarray, "n 3 c"]) -> Float64[np.ndarray, "n c"]:
        """Interpolate values at the corners of each place's triangle."""
        first, second, third = corners.transpose(1, 0, 2)
        return first + self.u * (second - first) + self.v * (third - first)

    def select(self, mask: Bool[np.ndarray, "n"]) -> Self:
        """Return the places in the mask."""
        return type(self)(faces=self.faces[mask], u=self.u[mask], v=self.v[mask])


def sample_surface(surface: Surface, num_points: int, seed: int) -> Float32[np.ndarray, "n 3"]:
    """Return points in the normalised frame, spread evenly by area.

    Raises SceneFailure (`empty`) if there is no area.
    """
    places = sample_places(surface, num_points, seed)
    return places.mix(surface.triangles[places.faces]).astype(np.float32)


def sample_places(surface: Surface, num_points: int, seed: int) -> Places:
    """Return places on a surface, spread evenly by area.

    Raises SceneFailure (`empty`) if there is no area.
    """
    areas = np.linalg.norm(_area_vectors(surface.triangles), axis=1)
    return _spread(areas, num_points, np.random.default_rng(seed))


def write_surface(surface: Surface, request: GeometryRequest) -> None:
    """Write surface.npz: points with normals, and the mesh without faces that have no area.

    Raises SceneFailure (`empty`) if nothing has an area.
    """
    # In the single precision in which the mesh is stored: it may flatten the thinnest triangles.
    vertices, numbers = _welded(surface.positions.astype(np.float32))
    corners = numbers[surface.faces]
    triangles = vertices[corners].astype(np.float64)
    vectors = _area_vectors(triangles)
    areas = np.linalg.norm(vectors, axis=1)
    solid = areas > 2 * _MIN_AREA
    faces, vectors, areas = corners[solid], vectors[solid], areas[solid]
    rng = np.random.default_rng(request.seed)
    places = _spread(areas, request.num_points, rng)
    points = places.mix(triangles[solid][places.faces]).astype(np.float32)
    normals = (vectors[places.faces] / areas[places.faces, None]).astype(np.float32)
    # Points are ordered by triangle; shuffled, any part of the list covers the whole surface.
    order = rng.permutation(request.num_points)
    used, indices = np.unique(faces, return_inverse=True)
    np.savez(
        Path(request.out) / "surface.npz",
        points=points[order],
        normals=normals[order],
        vertices=vertices[used],
        faces=indices.reshape(-1, 3).astype(np.int32),
    )


def _welded(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct vertices (n, 3), and the number of each given one among them."""
    rows = np.ascontiguousarray(vertices + 0.0).view(f"V{3 * vertices.itemsize}")[:, 0]
    _, first, numbers = np.unique(rows, return_index=True, return_inverse=True)
    return vertices[first], numbers


def _area_vectors(triangles: np.ndarray) -> np.ndarray:
    """Return normals (n, 3) of triangles (n, 3, 3), with twice the area as their length."""
    return np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])


def _spread(areas: np.ndarray, num_points: int, rng: np.random.Generator) -> Places:
    """Return places that are uniform by area. Raises SceneFailure."""
    edges = np.cumsum(areas, dtype=np.float64)
    if not len(edges) or not edges[-1] > 0:
        raise SceneFailure(FailureKind.EMPTY, "the surface has no area")
    # Evenly spaced with one random offset: fewer gaps than independent draws.
    positions = (np.arange(num_points) + rng.random()) / num_points * edges[-1]
    chosen = np.minimum(np.searchsorted(edges, positions, side="right"), len(areas) - 1)
    u, v = rng.random((2, num_points, 1))
    outside = u + v > 1
    return Places(faces=chosen, u=np.where(outside, 1 - u, u), v=np.where(outside, 1 - v, v))
