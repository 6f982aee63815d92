"""Surfaces of triangles with known fronts, for the rules on a scene's triangles."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from glb.geometry.surface import Surface

__all__ = [
    "corner_sets",
    "cube",
    "join",
    "material",
    "quad",
    "reorder",
    "reverse",
    "rotation",
    "sphere",
    "surface_of",
    "torus",
]


def surface_of(
    positions: Any, faces: Any, *, normals: Any = None, uvs: Any = None, colours: Any = None
) -> Surface:
    """Return a surface of one part and the first material."""
    positions = np.array(positions, dtype=np.float64)
    faces = np.array(faces, dtype=np.int32).reshape(-1, 3)
    zeros = np.zeros(len(faces), dtype=np.int32)
    return Surface(
        positions=positions,
        normals=np.array(
            np.zeros_like(positions) if normals is None else normals, dtype=np.float32
        ),
        uvs={0: np.array(np.zeros((len(positions), 2)) if uvs is None else uvs, dtype=np.float32)},
        colours=None if colours is None else np.array(colours, dtype=np.float32),
        faces=faces,
        materials=zeros,
        parts=zeros,
        flat=np.full(len(faces), normals is None),
    )


def material(**fields: Any) -> dict[str, Any]:
    """Return a material as `shown_material` does."""
    return {"extensions": {}} | fields


def quad(size: float = 1) -> Surface:
    """Return a square around the origin that faces +z, in two triangles."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * size / 2
    return surface_of(
        corners,
        [[0, 1, 2], [0, 2, 3]],
        normals=np.tile([0, 0, 1], (4, 1)),
        uvs=corners[:, :2] / size + 0.5,
    )


def cube(size: float = 1, centre: Sequence[float] = (0, 0, 0)) -> Surface:
    """Return a cube whose six sides have their own vertices and normals, facing outward."""
    sides = []
    for axis in range(3):
        for sign in (-1, 1):
            side = quad(size)
            turn = np.roll(np.eye(3), axis + 1, axis=0).T @ np.diag([1, sign, sign])
            positions = (side.positions + np.array([0, 0, size / 2])) @ turn.T + centre
            normals = (side.normals @ turn.T).astype(np.float32)
            sides.append(replace(side, positions=positions, normals=normals))
    return replace(join(*sides), parts=np.zeros(12, dtype=np.int32))


def sphere(radius: float = 1, centre: Sequence[float] = (0, 0, 0), rings: int = 12) -> Surface:
    """Return a sphere with shared vertices and smooth normals, facing outward."""
    columns = 2 * rings
    polar = np.pi * np.arange(1, rings) / rings
    around = 2 * np.pi * np.arange(columns) / columns
    middle = np.stack(
        [
            np.outer(np.sin(polar), np.cos(around)),
            np.outer(np.sin(polar), np.sin(around)),
            np.outer(np.cos(polar), np.ones(columns)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    normals = np.concatenate([middle, [[0, 0, 1], [0, 0, -1]]])
    grid = np.arange(len(middle)).reshape(rings - 1, columns)
    beside = np.roll(grid, -1, axis=1)
    upper, lower = (grid[:-1], beside[:-1]), (grid[1:], beside[1:])
    top, bottom = np.full(columns, len(middle)), np.full(columns, len(middle) + 1)
    faces = np.concatenate(
        [
            np.stack([upper[0], lower[0], lower[1]], axis=-1).reshape(-1, 3),
            np.stack([upper[0], lower[1], upper[1]], axis=-1).reshape(-1, 3),
            np.stack([top, grid[0], beside[0]], axis=-1),
            np.stack([bottom, beside[-1], grid[-1]], axis=-1),
        ]
    )
    return surface_of(normals * radius + np.array(centre), faces, normals=normals)


def torus(thickness: float = 0.4, rings: int = 12) -> Surface:
    """Return a torus of radius 1 in the plane of x and y, without normals, facing outward."""
    angle = 2 * np.pi * np.arange(rings) / rings
    around, along = np.meshgrid(angle, angle, indexing="ij")
    radius = 1 + thickness * np.cos(along)
    points = np.stack(
        [radius * np.cos(around), radius * np.sin(around), thickness * np.sin(along)], -1
    )
    grid = np.arange(rings**2).reshape(rings, rings)
    right, up = np.roll(grid, -1, axis=0), np.roll(grid, -1, axis=1)
    far = np.roll(right, -1, axis=1)
    first = np.stack([grid, right, far], axis=-1).reshape(-1, 3)
    second = np.stack([grid, far, up], axis=-1).reshape(-1, 3)
    return surface_of(points.reshape(-1, 3), np.concatenate([first, second]))


def reverse(surface: Surface) -> Surface:
    """Return the surface with the other side as its front, by winding and normals."""
    return replace(surface, faces=surface.faces[:, [0, 2, 1]], normals=-surface.normals)


def reorder(surface: Surface, order: np.ndarray) -> Surface:
    """Return the surface with its triangles in another order."""
    return replace(
        surface,
        faces=surface.faces[order],
        materials=surface.materials[order],
        parts=surface.parts[order],
        flat=surface.flat[order],
    )


def rotation(quaternion: Sequence[float]) -> np.ndarray:
    """Return the matrix (3, 3) of a quaternion of any length but 0."""
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def join(*surfaces: Surface) -> Surface:
    """Return one surface of several; each is a part of its own."""
    starts = np.cumsum([0, *(len(item.positions) for item in surfaces)])
    coloured = any(item.colours is not None for item in surfaces)
    white = [np.ones((len(item.positions), 4), dtype=np.float32) for item in surfaces]
    return Surface(
        positions=np.concatenate([item.positions for item in surfaces]),
        normals=np.concatenate([item.normals for item in surfaces]),
        uvs={0: np.concatenate([item.uvs[0] for item in surfaces])},
        colours=np.concatenate(
            [
                default if item.colours is None else item.colours
                for item, default in zip(surfaces, white, strict=True)
            ]
        )
        if coloured
        else None,
        faces=np.concatenate(
            [item.faces + start for item, start in zip(surfaces, starts[:-1], strict=True)]
        ).astype(np.int32),
        materials=np.concatenate([item.materials for item in surfaces]),
        parts=np.repeat(np.arange(len(surfaces)), [len(item.faces) for item in surfaces]).astype(
            np.int32
        ),
        flat=np.concatenate([item.flat for item in surfaces]),
    )


def corner_sets(surface: Surface) -> np.ndarray:
    """Return the corners (f, 3, 3) of the triangles, in an order that depends on winding alone.

    Each triangle starts at its lowest corner, and triangles are sorted.
    """
    corners = np.round(surface.positions[surface.faces], 5) + 0.0
    order = [min(range(3), key=lambda start: tuple(triangle[start])) for triangle in corners]
    turned = [
        np.roll(triangle, -start, axis=0) for triangle, start in zip(corners, order, strict=True)
    ]
    return np.array(sorted(turned, key=lambda triangle: tuple(triangle.ravel()))).reshape(-1, 3, 3)
