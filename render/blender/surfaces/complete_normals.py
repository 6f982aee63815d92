"""Normals of faces and vertices for which the file has none."""

import dataclasses

import numpy as np

from glb.surface import Surface

__all__ = ["complete_normals", "face_normals"]


def complete_normals(surface: Surface) -> Surface:
    """Return the surface with a unit normal at every vertex of a face.

    Flat faces get vertices of their own with the face's normal. A vertex without a normal gets the
    mean of its faces' normals, weighted by area. No face may be without area.
    """
    surface = _separate_flat_faces(surface)
    corners = surface.faces[(surface.normals[surface.faces] == 0).all(axis=-1).any(axis=-1)]
    if not len(corners):
        return surface
    missing = (surface.normals == 0).all(axis=-1)
    order = corners.ravel()
    vectors = np.repeat(face_normals(surface.positions[corners], unit=False), 3, axis=0)
    sums = np.stack([np.bincount(order, part, len(missing)) for part in vectors.T], axis=1)
    # Opposite faces may cancel each other; the normal of any of them is as good.
    last = np.zeros_like(sums)
    last[order] = vectors
    cancelled = np.linalg.norm(sums, axis=1, keepdims=True) < 1e-12
    normals = surface.normals.copy()
    normals[missing] = _unit(np.where(cancelled, last, sums)[missing])
    return dataclasses.replace(surface, normals=normals)


def face_normals(triangles: np.ndarray, unit: bool = True) -> np.ndarray:
    """Return the normals (f, 3) of triangles (f, 3, 3), or vectors with twice their area."""
    vectors = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return _unit(vectors) if unit else vectors


def _separate_flat_faces(surface: Surface) -> Surface:
    flat = surface.flat
    if not flat.any():
        return surface
    corners = surface.faces[flat].ravel()
    count = len(surface.positions)
    faces = surface.faces.copy()
    faces[flat] = np.arange(count, count + len(corners), dtype=np.int32).reshape(-1, 3)
    own = np.repeat(face_normals(surface.triangles[flat]), 3, axis=0).astype(np.float32)
    return dataclasses.replace(
        surface,
        positions=np.concatenate([surface.positions, surface.positions[corners]]),
        normals=np.concatenate([surface.normals, own]),
        uvs={name: np.concatenate([uvs, uvs[corners]]) for name, uvs in surface.uvs.items()},
        colours=None
        if surface.colours is None
        else np.concatenate([surface.colours, surface.colours[corners]]),
        faces=faces,
        flat=np.zeros_like(flat),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), 0)
