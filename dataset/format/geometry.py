"""The companion geometry of an object: its mesh, and surface points with normals."""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from core.errors import Damaged, WorkFailed
from core.storage import Storage, storage_errors

__all__ = [
    "GEOMETRY_FOLDER",
    "SurfaceGeometry",
    "SurfacePoints",
    "geometry_path",
    "read_geometry",
    "read_surface_points",
    "surface_from_arrays",
    "write_geometry",
]

GEOMETRY_FOLDER = "geometry"
_NORMAL_TOLERANCE = 1e-2
"""Largest deviation of a stored normal's length from 1; normals have half precision."""
_DAMAGE = (
    *(OSError, ValueError, KeyError, RuntimeError, EOFError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""Errors that the reader of zip files raises for damaged bytes in memory, and those below."""
_MAX_BYTES = 2 << 30
"""Maximum size of the unpacked arrays: that of 100 million points, the most that a build writes."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The methods of numpy; others may allocate gigabytes for their tables."""
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)({'descr': '([<|](?:f[248]|[iu][1248]))', "
    rb"'fortran_order': (True|False), 'shape': \((\d{1,10}), 3\), } *\n)",
    re.DOTALL,
)
"""The header that numpy writes for an array of numbers with three columns: its length, text, type,
order and number of rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfacePoints:
    """Points on the surface of an object, in the normalised frame."""

    points: Float32[np.ndarray, "n 3"]
    """Uniformly distributed over the area in random order, so that any slice is uniform too."""
    normals: Float32[np.ndarray, "n 3"]
    """Unit normals of the triangles that contain the points; the winding gives their direction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceGeometry(SurfacePoints):
    """The surface of an object, in the normalised frame (docs/reference/conventions.md)."""

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
    surface, vertices = _points(arrays), _coordinates(arrays, "vertices")
    faces = np.asarray(arrays["faces"])
    if faces.shape[1:] != (3,) or not len(faces):
        raise ValueError(f"{faces.shape} faces")
    if faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError("a face index matches no vertex")
    return SurfaceGeometry(
        points=surface.points,
        normals=surface.normals,
        vertices=vertices,
        faces=faces.astype(np.int32),
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
    """Read a surface from a file, and verify the checksums of all its arrays.

    Raises WorkFailed if the file cannot be read, and Damaged if its content is not a surface.
    """
    try:
        data = root.read(path)
    except storage_errors() as error:
        raise WorkFailed(_problem(path, error)) from error
    try:
        return surface_from_arrays(_arrays(data))
    except _DAMAGE as error:
        raise Damaged(_problem(path, error)) from error


def read_surface_points(root: Storage, path: str) -> SurfacePoints:
    """Read only the points and normals of a file, in the normalised frame.

    Raises Damaged if the content is not a surface, also when it is read again. An error of the
    storage is raised unchanged, such as FileNotFoundError.
    """
    try:
        return _points_of_file(root.read_immutable(path), path)
    except Damaged:
        # The damage may be in the transfer or in a cache.
        return _points_of_file(root.read_immutable(path, cached=False), path)


def _points_of_file(data: bytes, path: str) -> SurfacePoints:
    try:
        return _points(_arrays(data, ("points", "normals")))
    except _DAMAGE as error:
        raise Damaged(_problem(path, error)) from error


def _problem(path: str, error: Exception) -> str:
    return (
        f"{path}: cannot read the geometry: {error}; run `lrm verify`, then `lrm build --geometry`"
    )


def _points(arrays: Mapping[str, np.ndarray]) -> SurfacePoints:
    """Return validated points, and normals of unit length. Raises ValueError or KeyError."""
    points, normals = (_coordinates(arrays, name) for name in ("points", "normals"))
    if points.shape != normals.shape or not len(points):
        raise ValueError(f"{points.shape} points, {normals.shape} normals")
    with np.errstate(over="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None]
    if np.abs(lengths - 1).max() > _NORMAL_TOLERANCE:
        raise ValueError("normals are not of unit length")
    return SurfacePoints(points=points, normals=normals / lengths)


def _coordinates(arrays: Mapping[str, np.ndarray], name: str) -> Float32[np.ndarray, "n 3"]:
    """Return an array of finite coordinates. Raises ValueError, or KeyError if it is missing."""
    stored = np.asarray(arrays[name])
    if stored.shape[1:] != (3,) or stored.dtype.kind not in "fiu":
        raise ValueError(f"{stored.shape} {name} of type {stored.dtype}")
    with np.errstate(over="ignore"):
        values = stored.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"coordinates of {name} are not finite")
    return values


def _arrays(data: bytes, wanted: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, all or the wanted ones, after verifying their checksums.

    Raises ValueError before anything is unpacked if they state more than `_MAX_BYTES`.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist() if wanted is None else [f"{name}.npy" for name in wanted]
        members = [archive.getinfo(name) for name in names]
        size = sum(member.file_size for member in members)
        if size > _MAX_BYTES:
            raise ValueError(f"it unpacks to {size} bytes; the limit is {_MAX_BYTES}")
        if any(member.compress_type not in _COMPRESSIONS for member in members):
            raise ValueError("it is compressed by another method than deflate")
        return {name.removesuffix(".npy"): _array(archive.read(name)) for name in names}


def _array(member: bytes) -> np.ndarray:
    """Return the array of an .npy file. Raises ValueError, also if it has not the stated size.

    numpy's own reader would evaluate the header, and allocate the stated size first.
    """
    header = _HEADER.match(member)
    if header is None:
        raise ValueError("an array has no header of three columns of numbers; no pickle is read")
    start = header.start(2) + int.from_bytes(header[1], "little")
    dtype, rows = np.dtype(header[3].decode()), int(header[5])
    if 3 * rows * dtype.itemsize != len(member) - start:
        raise ValueError(f"an array of {rows} rows has {len(member) - start} bytes")
    values = np.frombuffer(member, dtype, offset=start)
    return values.reshape(3, rows).T if header[4] == b"True" else values.reshape(rows, 3)
