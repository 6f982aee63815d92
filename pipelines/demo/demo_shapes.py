"""Parametric shapes with normals and texture coordinates, for the demo source.

z is up, and texture coordinates have their origin at the lower left. Text in a texture reads from
left to right when the shape is seen from outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import trimesh
from PIL import Image

__all__ = ["Part", "ball", "block", "export_glb", "lathe", "prism", "tube"]

Vector = tuple[float, float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A piece of an object, with one material."""

    vertices: np.ndarray
    """(n, 3)"""
    normals: np.ndarray
    """(n, 3), of unit length"""
    uv: np.ndarray
    """(n, 2)"""
    faces: np.ndarray
    """(m, 3), counter-clockwise seen from outside"""
    paint: Image.Image | Colour = (128, 128, 128)

    def painted(self, paint: Image.Image | Colour) -> "Part":
        """Return the piece with a texture or a plain sRGB colour."""
        return replace(self, paint=paint)

    def moved(self, x: float = 0, y: float = 0, z: float = 0) -> "Part":
        """Return the piece moved by an offset."""
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def turned(self, degrees: float, axis: Vector) -> "Part":
        """Return the piece rotated around an axis through the origin."""
        matrix = trimesh.transformations.rotation_matrix(np.radians(degrees), axis)[:3, :3]
        return replace(self, vertices=self.vertices @ matrix.T, normals=self.normals @ matrix.T)

    def scaled(self, x: float, y: float, z: float) -> "Part":
        """Return the piece scaled along the axes by positive factors."""
        normals = self.normals / np.array([x, y, z])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return replace(self, vertices=self.vertices * np.array([x, y, z]), normals=normals)


def lathe(profile: Sequence[tuple[float, float]], segments: int = 48) -> Part:
    """Return the surface of revolution of a profile of (radius, z) around the z axis.

    The profile of an outside surface runs upwards; a repeated point makes a sharp edge. u runs once
    around the axis, v along the profile.
    """
    points = np.array(profile, dtype=float)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    along /= along[-1]
    edges = [0, *(np.flatnonzero(steps == 0) + 1), len(points)]
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    parts = []
    for start, end in pairwise(edges):
        if end - start < 2:
            continue
        run, v = points[start:end], along[start:end]
        slope = np.gradient(run, axis=0)
        slope /= np.linalg.norm(slope, axis=1, keepdims=True)
        xyz = np.empty((segments + 1, len(run), 3))
        xyz[..., :2] = ring[:, None] * run[None, :, :1]
        xyz[..., 2] = run[:, 1]
        normal = np.empty_like(xyz)
        normal[..., :2] = ring[:, None] * slope[None, :, 1:]
        normal[..., 2] = -slope[:, 0]
        u = np.broadcast_to(angle[:, None] / (2 * np.pi), xyz.shape[:2])
        parts.append(_grid(xyz, normal, np.stack([u, np.broadcast_to(v, u.shape)], axis=-1)))
    return _join(parts)


def ball(radius: float, segments: int = 40) -> Part:
    """Return a sphere whose texture is an equirectangular map with u = 0.75 towards -y."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    return lathe([(radius * np.cos(a), radius * np.sin(a)) for a in angle], segments)


def tube(
    points: np.ndarray | Sequence[Sequence[float]],
    radius: float | np.ndarray,
    closed: bool = False,
) -> Part:
    """Return a round tube along a path of points (n, 3); u runs around the tube, v along it."""
    path = np.asarray(points, dtype=float)
    if closed:
        path = np.concatenate([path, path[:1]])
        ahead = np.roll(path[:-1], -1, axis=0) - np.roll(path[:-1], 1, axis=0)
        ahead = np.concatenate([ahead, ahead[:1]])
    else:
        ahead = np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    # The normal of the path's plane gives a frame that does not twist.
    plane = np.linalg.svd(path - path.mean(axis=0))[2][2]
    plane *= np.sign(plane[np.abs(plane).argmax()])
    side = np.cross(ahead, plane)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(ahead, side)
    angle = np.linspace(0, 2 * np.pi, 17)[:, None, None]
    normal = np.cos(angle) * side + np.sin(angle) * up
    xyz = path + normal * np.broadcast_to(np.asarray(radius, dtype=float), len(path))[:, None]
    u = np.broadcast_to(angle[..., 0] / (2 * np.pi), xyz.shape[:2])
    v = np.broadcast_to(np.linspace(0, 1, len(path)), xyz.shape[:2])
    return _grid(xyz, normal, np.stack([u, v], axis=-1))


# Per side of a block: its outward direction, and right and up as seen from outside.
_SIDES = (
    ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    ((0, 0, -1), (1, 0, 0), (0, -1, 0)),
)


def block(size: Vector, round_by: float = 0.02, atlas: bool = False) -> Part:
    """Return a box with rounded edges.

    Every side shows the whole texture. With `atlas` it shows its cell of three columns and two
    rows: front (-y), right, back; left, top, bottom.
    """
    half = np.array(size) / 2
    round_by = min(round_by, *half)
    edge = np.linspace(0, 1, 5)
    parts = []
    for number, (outwards, right, up) in enumerate(np.array(_SIDES, dtype=float)):
        # Points lie close together at the edges, where the surface bends.
        length = 2 * np.abs(np.stack([right, up]) @ half)
        lines = [np.unique(np.r_[edge * round_by, n / 2, n - edge * round_by]) / n for n in length]
        u, v = np.meshgrid(*lines, indexing="ij")
        flat = half * (outwards + (2 * u[..., None] - 1) * right + (2 * v[..., None] - 1) * up)
        core = np.clip(flat, -(half - round_by), half - round_by)
        normal = flat - core
        length_of = np.linalg.norm(normal, axis=-1, keepdims=True)
        normal = np.where(length_of > 0, normal / np.maximum(length_of, 1e-12), outwards)
        uv = np.stack([u, v], axis=-1)
        if atlas:
            uv = (uv + np.array([number % 3, 1 - number // 3])) / np.array([3, 2])
        parts.append(_grid(core + round_by * normal, normal, uv))
    return _join(parts)


def prism(outline: Sequence[tuple[float, float]], depth: float) -> tuple[Part, Part]:
    """Extrude a convex outline (x, z), counter-clockwise seen from -y, along y.

    Returns the front and back, whose texture covers the outline's bounding box, and the sides. Each
    side shows the whole texture; it is upright on the right side.
    """
    points = np.array(outline, dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    fan = np.array([[0, i, i + 1] for i in range(1, len(points) - 1)])
    caps = []
    for sign in (-1, 1):
        uv = (points - low) / (high - low)
        if sign > 0:
            uv[:, 0] = 1 - uv[:, 0]
        vertices = np.insert(points, 1, sign * depth / 2, axis=1)
        normals = np.tile([0.0, sign, 0.0], (len(points), 1))
        faces = fan if sign < 0 else fan[:, ::-1]
        caps.append(Part(vertices=vertices, normals=normals, uv=uv, faces=faces))
    ring = np.concatenate([points, points[:1]])
    sides = []
    for (ax, az), (bx, bz) in pairwise(ring):
        near, far = -depth / 2, depth / 2
        corners = [[[ax, near, az], [bx, near, bz]], [[ax, far, az], [bx, far, bz]]]
        normal = np.array([bz - az, 0, ax - bx])
        normals = np.broadcast_to(normal / np.linalg.norm(normal), (2, 2, 3))
        uv = np.array([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]])
        sides.append(_grid(np.array(corners), normals, uv))
    return _join(caps), _join(sides)


def export_glb(parts: Sequence[Part]) -> bytes:
    """Return a GLB, y up, in which each piece is a mesh with its own material."""
    scene = trimesh.Scene()
    for number, part in enumerate(parts):
        material = trimesh.visual.material.PBRMaterial(
            name=f"paint{number}", metallicFactor=0.0, roughnessFactor=0.7
        )
        if isinstance(part.paint, Image.Image):
            material.baseColorTexture = part.paint
        else:
            material.baseColorFactor = [*part.paint, 255]
        mesh = trimesh.Trimesh(
            vertices=_y_up(part.vertices),
            vertex_normals=_y_up(part.normals),
            faces=part.faces,
            visual=trimesh.visual.TextureVisuals(uv=part.uv, material=material),
            process=False,
        )
        scene.add_geometry(mesh, geom_name=f"part{number}", node_name=f"part{number}")
    return bytes(trimesh.exchange.gltf.export_glb(scene, include_normals=True))


def _y_up(vectors: np.ndarray) -> np.ndarray:
    return vectors[:, [0, 2, 1]] * np.array([1, 1, -1])


def _grid(xyz: np.ndarray, normals: np.ndarray, uv: np.ndarray) -> Part:
    """Return the surface through a grid of points (rows, columns, 3).

    Its outside is where the directions of rows and columns turn counter-clockwise.
    """
    rows, columns = xyz.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate(
        [np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, b, c), (a, c, d))]
    )
    vertices = xyz.reshape(-1, 3)
    corners = vertices[faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    return Part(
        vertices=vertices,
        normals=normals.reshape(-1, 3).copy(),
        uv=uv.reshape(-1, 2),
        faces=faces[area > 1e-12],
    )


def _join(parts: Sequence[Part]) -> Part:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return Part(
        vertices=np.concatenate([part.vertices for part in parts]),
        normals=np.concatenate([part.normals for part in parts]),
        uv=np.concatenate([part.uv for part in parts]),
        faces=np.concatenate(
            [part.faces + start for part, start in zip(parts, starts, strict=False)]
        ),
    )
