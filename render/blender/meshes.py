"""Blender's meshes, built from a surface: one per material."""

from collections.abc import Sequence
from typing import Any

import bpy
import numpy as np
from jaxtyping import Bool

from glb.geometry.surface import Surface, grouped_faces
from render.blender.gltf.material_file import COLOUR_LAYER, uv_layer_name

__all__ = ["create_meshes"]


def create_meshes(
    surface: Surface, materials: Sequence[Any], shells: Bool[np.ndarray, "f"]
) -> list[Any]:
    """Create the objects of each material; return those that consist of shells.

    `materials` are Blender's. Every vertex of a face must have a normal.
    """
    culled = []
    groups = surface.materials * 2 + shells
    for rows in grouped_faces(groups):
        index, is_shell = divmod(int(groups[rows[0]]), 2)
        mesh = _new_mesh(surface, surface.faces[rows])
        mesh.materials.append(materials[index])
        item = bpy.data.objects.new(mesh.name, mesh)
        bpy.context.scene.collection.objects.link(item)
        if is_shell:
            culled.append(item)
    return culled


def _new_mesh(surface: Surface, faces: np.ndarray) -> Any:
    used, corners = _compact(faces)
    mesh = bpy.data.meshes.new("surface")
    mesh.vertices.add(len(used))
    mesh.vertices.foreach_set("co", _flat(surface.positions[used]))
    mesh.loops.add(len(corners))
    mesh.loops.foreach_set("vertex_index", corners)
    mesh.polygons.add(len(faces))
    mesh.polygons.foreach_set("loop_start", np.arange(0, len(corners), 3, dtype=np.int32))
    for number, uvs in surface.uvs.items():
        if not uvs[used].any():
            continue  # without the set, a normal map has no effect
        layer = mesh.uv_layers.new(name=uv_layer_name(number), do_init=False)
        bottom_up = uvs[used][corners] * (1, -1) + (0, 1)
        layer.uv.foreach_set("vector", _flat(bottom_up))
    if surface.colours is not None:
        layer = mesh.color_attributes.new(COLOUR_LAYER, "FLOAT_COLOR", "POINT")
        layer.data.foreach_set("color", _flat(surface.colours[used]))
    # Unlike split normals, which Blender stores with 16 bits, this layer keeps them as they are.
    layer = mesh.attributes.new("custom_normal", "FLOAT_VECTOR", "POINT")
    layer.data.foreach_set("vector", _flat(surface.normals[used]))
    mesh.update(calc_edges=True)
    return mesh


def _compact(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices (n,) of faces (f, 3), ascending, and the corners (3 f,) among them."""
    first, num = int(faces.min()), int(np.ptp(faces)) + 1
    if num > 30 * faces.size:  # a few faces here and there
        used, corners = np.unique(faces, return_inverse=True)
        return used, corners.ravel().astype(np.int32)
    mask = np.zeros(num, dtype=bool)
    mask[faces - first] = True
    corners = (np.cumsum(mask) - 1).astype(np.int32)[faces - first]
    return np.flatnonzero(mask) + first, corners.ravel()


def _flat(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32).ravel()
