"""The companion geometry of an object: its mesh, and surface points with normals."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from core.errors import WorkFailed
from core.storage import Storage

__all__ = [
    "GEOMETRY_FOLDER",
    "SurfaceGeometry",
    "geometry_path",
    "read_geometry",
    "surface_from_arrays",
    "write_geometry",
]

GEOMETRY_FOLDER = "geometry"
_NORMAL_TOLERANCE = 1e-2
"""Largest deviation of a stored normal's length from 1; normals have half precision."""
_DAMAGE = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
"""Errors that the zip and array readers raise for damaged files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceGeometry:
    """The surface of an object, in the normalised frame (docs/reference/conventions.md)."""

    points: Float32[np.ndarray, "n 3"]
    """Uniformly distributed over the area in random order, so that any slice is uniform too."""
    normals: Float32[np.ndarray, "n 3"]
    """Unit normals of the triangles that contain the points; the winding gives their direction."""
    vertices: Float32[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]
    """Vertex indices, counter-clockwise seen from outside."""


def geometry_path(normalise: str, key: str) -> str:
    """Return the path below the dataset's root of the geometry with a key."""
    return f"{GEOMETRY_FOLDER}/{normalise}/{key[:2]}/{key}.npz"


def surface_from_arrays(arrays: Mapping[str, np.ndarray]) -> SurfaceGeometry:
    """Create a surface from validated arrays, and normalise its normals.

    Raises ValueError if shapes are inconsistent or values invalid, KeyError if an array is missing.
    """
    points, normals, vertices = (
        np.asarray(arrays[name], dtype=np.float32) for name in ("points", "normals", "vertices")
    )
    faces = np.asarray(arrays["faces"])
    shapes = {array.shape[1:] for array in (points, normals, vertices, faces)}
    if shapes != {(3,)} or len(points) != len(normals) or not len(points) or not len(faces):
        raise ValueError(f"{points.shape} points, {normals.shape} normals, {faces.shape} faces")
    if not all(np.isfinite(array).all() for array in (points, normals, vertices)):
        raise ValueError("coordinates are not finite")
    if faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError("a face index matches no vertex")
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    if np.abs(lengths - 1).max() > _NORMAL_TOLERANCE:
        raise ValueError("normals are not of unit length")
    return SurfaceGeometry(
        points=points, normals=normals / lengths, vertices=vertices, faces=faces.astype(np.int32)
    )


def write_geometry(root: Storage, path: str, surface: SurfaceGeometry) -> int:
    """Write a surface as a compressed .npz, and return the size of the file in bytes.

    Normals are stored in half precision. Equal surfaces give equal bytes.
    """
    out = io.BytesIO()
    np.savez_compressed(
        out,
        points=surface.points,
        normals=surface.normals.astype(np.float16),
        vertices=surface.vertices,
        faces=surface.faces,
    )
    root.write(path, out.getvalue())
    return out.getbuffer().nbytes


def read_geometry(root: Storage, path: str) -> SurfaceGeometry:
    """Read a surface from a file. Raises WorkFailed if the file is missing or damaged."""
    try:
        return surface_from_arrays(_arrays(root.read(path)))
    except _DAMAGE as error:
        raise WorkFailed(
            f"{path}: cannot read the geometry: {error}; "
            "run `lrm verify`, then `lrm build --geometry`"
        ) from error


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, after verifying the checksums of all of them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return {
        name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(member), allow_pickle=False)
        for name, member in members.items()
    }
