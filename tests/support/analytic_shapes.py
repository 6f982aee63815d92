"""Boxes and spheres as GLB files, and ray casters that give their exact depth and normals."""

import itertools
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int

from dataset.cameras import Camera, project, rays

__all__ = [
    "Box",
    "PixelTruth",
    "cast_rays_at_boxes",
    "edit_glb",
    "letter_block",
    "write_boxes",
    "write_sphere",
]

_GLTF_FROM_WORLD = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=float)
"""glTF is y up and the world z up, so the world's z becomes glTF's y."""


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in the z-up world."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class PixelTruth:
    """Exact values at the centre of every pixel."""

    depth: Float[np.ndarray, "h w"]
    """Planar depth; 0 for background."""
    normals: Float[np.ndarray, "h w 3"]
    face: Int[np.ndarray, "h w"]
    """Number of the visible face (6 per box); -1 for background."""

    @property
    def inner(self) -> Bool[np.ndarray, "h w"]:
        """Pixels whose eight neighbours show the same face."""
        padded = np.pad(self.face, 1, constant_values=-2)
        height, width = self.face.shape
        around = [padded[j : j + height, i : i + width] for j in range(3) for i in range(3)]
        return (np.stack(around) == self.face).all(axis=0)


def letter_block() -> list[Box]:
    """Return a grey block, about 2 x 1 x 0.6, with a raised red F on the side that faces -y.

    It differs from all its mirror images. Seen from -y with z up, x points to the right, so the
    stem of the F is on the left (low x) and its arms are in the upper half.
    """
    red = (230, 20, 20)
    return [
        Box((-1, -0.45, -0.3), (1, 0.5, 0.3), (150, 150, 150)),
        Box((-0.4, -0.5, -0.25), (-0.25, -0.45, 0.25), red),
        Box((-0.25, -0.5, 0.13), (0.3, -0.45, 0.25), red),
        Box((-0.25, -0.5, -0.06), (0.1, -0.45, 0.06), red),
    ]


def cast_rays_at_boxes(boxes: Sequence[Box], camera: Camera, size: int) -> PixelTruth:
    """Cast a ray through the centre of every pixel, with the slab method."""
    origin, directions = rays(camera, size, size)
    origin, directions = origin.astype(float), directions.astype(float)
    depth = np.full((size, size), np.inf)
    normals, face = np.zeros((size, size, 3)), np.full((size, size), -1)
    with np.errstate(divide="ignore"):
        inverse = 1 / directions
    for number, box in enumerate(boxes):
        window = _window(box, camera, size)
        to_low = (np.array(box.low) - origin) * inverse[window]
        to_high = (np.array(box.high) - origin) * inverse[window]
        entry_times, exit_times = np.minimum(to_low, to_high), np.maximum(to_low, to_high)
        near, axis = entry_times.max(axis=-1), entry_times.argmax(axis=-1)
        nearer = (near < exit_times.min(axis=-1)) & (near > 0) & (near < depth[window])
        axis_direction = np.take_along_axis(directions[window], axis[..., None], axis=-1)[..., 0]
        sign = -np.sign(axis_direction[nearer])
        depth[window][nearer] = near[nearer]
        normals[window][nearer] = np.eye(3)[axis[nearer]] * sign[:, None]
        face[window][nearer] = 6 * number + 2 * axis[nearer] + (sign > 0)
    return PixelTruth(depth=np.where(face >= 0, depth, 0), normals=normals, face=face)


def _window(box: Box, camera: Camera, size: int) -> tuple[slice, slice]:
    """Return rows and columns that contain the box; the whole image if it is partly behind."""
    corners = np.array(list(itertools.product(*zip(box.low, box.high, strict=True))))
    image, depth = project(camera, corners.astype(np.float32))
    if depth.min() < 0.01:
        return slice(0, size), slice(0, size)
    first = np.clip(np.floor(image.min(axis=0) * size) - 1, 0, size).astype(int)
    last = np.clip(np.ceil(image.max(axis=0) * size) + 1, 0, size).astype(int)
    return slice(first[1], last[1]), slice(first[0], last[0])


def write_boxes(path: Path, boxes: Sequence[Box], **transform: Any) -> Path:
    """Write one root node per box; coordinates are multiplied by `scale`, then moved by `shift`."""
    scale, shift = transform.get("scale", 1.0), np.array(transform.get("shift", (0, 0, 0)))
    scene = trimesh.Scene()
    for number, box in enumerate(boxes):
        low, high = np.array(box.low) * scale + shift, np.array(box.high) * scale + shift
        mesh = trimesh.creation.box(bounds=[low, high])
        mesh.unmerge_vertices()  # flat faces, not smoothed corners
        mesh.visual = trimesh.visual.TextureVisuals(
            material=trimesh.visual.material.PBRMaterial(
                baseColorFactor=[*box.colour, 255], metallicFactor=0.0, roughnessFactor=1.0
            )
        )
        mesh.apply_transform(_GLTF_FROM_WORLD)
        scene.add_geometry(mesh, node_name=f"box{number}")
    return _flattened(path, scene)


def write_sphere(
    path: Path,
    radius: float = 1.0,
    centre: Sequence[float] = (0.0, 0.0, 0.0),
    subdivisions: int = 6,
) -> Path:
    """Write a white sphere with smooth normals.

    With 6 subdivisions it has 82,000 triangles and deviates by 4e-5 radii from the true sphere.
    One subdivision fewer gives a quarter of the triangles and four times the deviation.
    """
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    normals = sphere.vertices / radius
    mesh = trimesh.Trimesh(
        sphere.vertices + np.asarray(centre), sphere.faces, vertex_normals=normals, process=False
    )
    mesh.apply_transform(_GLTF_FROM_WORLD)
    return _flattened(path, trimesh.Scene(mesh))


def edit_glb(path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Apply `edit` to the JSON document of a GLB file in place."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    document, rest = json.loads(data[20 : 20 + length]), data[20 + length :]
    edit(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON")
    path.write_bytes(head + text + rest)
    return path


def _flattened(path: Path, scene: trimesh.Scene) -> Path:
    """Write a scene without the root node that trimesh adds: its children become root nodes."""
    path.write_bytes(scene.export(file_type="glb", include_normals=True))

    def remove_root(document: dict[str, Any]) -> None:
        roots = document["scenes"][0]["nodes"]
        document["scenes"][0]["nodes"] = [
            child for root in roots for child in document["nodes"][root].get("children", [root])
        ]

    return edit_glb(path, remove_root)
