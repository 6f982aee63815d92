"""Vertex normals that contradict the faces."""

import bpy
import numpy as np

__all__ = ["flip_inverted_normals"]


def flip_inverted_normals() -> None:
    """Flip the normals of each mesh that point to the back of most of its faces.

    Cycles takes a face's front from the order of its corners, and shades by the normals. Such a
    mesh would be rendered black, with the normals of its inside.
    """
    for mesh in bpy.data.meshes:
        if not mesh.has_custom_normals or not len(mesh.polygons):
            continue
        normals = np.empty(len(mesh.loops) * 3, dtype=np.float32)
        mesh.corner_normals.foreach_get("vector", normals)
        vertices = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
        mesh.vertices.foreach_get("co", vertices)
        corners = np.empty(len(mesh.loops), dtype=np.int32)
        mesh.loops.foreach_get("vertex_index", corners)
        starts = np.empty(len(mesh.polygons), dtype=np.int32)
        mesh.polygons.foreach_get("loop_start", starts)
        normals, vertices = normals.reshape(-1, 3), vertices.reshape(-1, 3)
        first, second, third = (vertices[corners[starts + corner]] for corner in range(3))
        facing = np.cross(second - first, third - first)
        if ((facing * normals[starts]).sum(axis=-1) < 0).mean() > 0.5:
            mesh.normals_split_custom_set((-normals).tolist())
