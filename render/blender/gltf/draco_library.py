"""Decoding of Draco-compressed meshes by the library that Blender's glTF add-on contains."""

import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path

import bpy
import numpy as np

from core.failures import FailureKind
from glb.geometry.vertex_values import DecodedMesh
from glb.glb_error import GlbError

__all__ = ["decode_draco"]

_KINDS = {1: b"SCALAR", 2: b"VEC2", 3: b"VEC3", 4: b"VEC4"}
_COMPONENT_TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
_INDEX = np.dtype("<u4")


def decode_draco(data: memoryview, types: Mapping[int, tuple[np.dtype, int]]) -> DecodedMesh:
    """Return the indices and the attributes of a compressed mesh (`DracoDecoder`).

    Raises GlbError (`import_error`) for data that the library cannot decode.
    """
    library = _library()
    compressed = bytes(data)
    decoder = ctypes.c_void_p(library.decoderCreate())
    try:
        if not library.decoderDecode(decoder, compressed, len(compressed)):
            raise _failure("the data cannot be decoded")
        if not library.decoderReadIndices(decoder, _COMPONENT_TYPES["u4"]):
            raise _failure("the indices cannot be decoded")
        size = library.decoderGetIndicesByteLength(decoder)
        indices = np.empty(size // _INDEX.itemsize, _INDEX)
        library.decoderCopyIndices(decoder, indices.ctypes.data_as(ctypes.c_void_p))
        num_vertices = library.decoderGetVertexCount(decoder)
        attributes = {
            number: _attribute(library, decoder, number, dtype, (num_vertices, width))
            for number, (dtype, width) in types.items()
        }
    finally:
        library.decoderRelease(decoder)
    return DecodedMesh(attributes, indices)


def _attribute(
    library: ctypes.CDLL,
    decoder: ctypes.c_void_p,
    number: int,
    dtype: np.dtype,
    shape: tuple[int, int],
) -> np.ndarray:
    kind = _KINDS.get(shape[1])
    if number >= 1 << 32 or kind is None:
        raise _failure(f"attribute {number} does not exist")
    component_type = _COMPONENT_TYPES[dtype.str[1:]]
    if not library.decoderReadAttribute(decoder, number, component_type, kind):
        raise _failure(f"attribute {number} cannot be decoded")
    values = np.empty(shape, dtype)
    if library.decoderGetAttributeByteLength(decoder, number) != values.nbytes:
        raise _failure(f"attribute {number} has another size than the document states")
    library.decoderCopyAttribute(decoder, number, values.ctypes.data_as(ctypes.c_void_p))
    return values


def _failure(message: str) -> GlbError:
    return GlbError(FailureKind.IMPORT_ERROR, f"Draco: {message}")


@functools.cache
def _library() -> ctypes.CDLL:
    addons = Path(bpy.utils.resource_path("LOCAL")) / "scripts" / "addons_core"
    (path,) = (addons / "io_scene_gltf2").glob("*extern_draco.*")
    library = ctypes.CDLL(str(path))
    handle, number, size = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_size_t
    for name, result, arguments in (
        ("decoderCreate", handle, []),
        ("decoderRelease", None, [handle]),
        ("decoderDecode", ctypes.c_bool, [handle, ctypes.c_char_p, size]),
        ("decoderGetVertexCount", number, [handle]),
        ("decoderReadAttribute", ctypes.c_bool, [handle, number, size, ctypes.c_char_p]),
        ("decoderGetAttributeByteLength", size, [handle, number]),
        ("decoderCopyAttribute", None, [handle, number, ctypes.c_void_p]),
        ("decoderReadIndices", ctypes.c_bool, [handle, size]),
        ("decoderGetIndicesByteLength", size, [handle]),
        ("decoderCopyIndices", None, [handle, ctypes.c_void_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
