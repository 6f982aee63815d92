"""Normals of faces and vertices for which the file has none."""

import dataclasses

import numpy as np

from glb.geometry.surface import Surface
from render.blender.surfaces.triangles import area_vectors, unshare

__all__ = ["complete_normals"]


def complete_normals(surface: Surface) -> Surface:
    """Return the surface with a unit normal at every vertex of a face.

    Flat faces get vertices of their own with the face's normal. A vertex without a normal gets the
    mean of its faces' normals, weighted by area.
    """
    surface = _separate_flat_faces(surface)
    incomplete = surface.select((surface.normals[surface.faces] == 0).all(axis=-1).any(axis=-1))
    if not len(incomplete.faces):
        return surface
    missing = (surface.normals == 0).all(axis=-1)
    order = incomplete.faces.ravel()
    vectors = np.repeat(area_vectors(incomplete), 3, axis=0)
    sums = np.stack([np.bincount(order, part, len(missing)) for part in vectors.T], axis=1)
    # Opposite faces may cancel each other; the normal of any of them is as good.
    last = np.zeros_like(sums)
    last[order] = vectors
    cancelled = np.linalg.norm(sums, axis=1, keepdims=True) < 1e-12
    normals = surface.normals.copy()
    normals[missing] = _unit(np.where(cancelled, last, sums)[missing])
    # A face may have lost its area to rounding when it was normalised.
    normals[(normals == 0).all(axis=-1)] = (0, 0, 1)
    return dataclasses.replace(surface, normals=normals)


def _separate_flat_faces(surface: Surface) -> Surface:
    if not surface.flat.any():
        return surface
    own = _unit(area_vectors(surface)[surface.flat]).astype(np.float32)
    separated, new = unshare(surface, np.tile(surface.flat[:, None], (1, 3)))
    separated.normals[new] = np.repeat(own, 3, axis=0)
    return dataclasses.replace(separated, flat=np.zeros_like(surface.flat))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), 0)
