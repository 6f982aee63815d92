"""Files whose geometry is compressed by EXT_meshopt_compression or KHR_meshopt_compression."""

import copy
from typing import Any

import meshopt
import numpy as np

__all__ = ["compress_views", "encode_view"]

_SIZES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def encode_view(data: bytes, stride: int, mode: str, version: int = 0) -> bytes:
    """Return the compressed form of a buffer view."""
    dtype = f"<u{stride}" if mode != "ATTRIBUTES" else "u1"
    array = np.frombuffer(data, dtype)
    array = array.reshape(-1, stride) if mode == "ATTRIBUTES" else array.astype("<u4")
    encoded: bytes = meshopt.encode_gltf_buffer(array, mode, version)
    return encoded


def compress_views(
    document: dict[str, Any],
    binary: bytes,
    name: str = "EXT_meshopt_compression",
) -> tuple[dict[str, Any], bytes]:
    """Return a document and its binary chunk with all accessors' buffer views compressed.

    Each accessor must have a buffer view of its own. Buffer 1, that of the plain bytes, is empty.
    """
    document = copy.deepcopy(document)
    parts = [part for mesh in document["meshes"] for part in mesh["primitives"]]
    indices = {part["indices"] for part in parts if "indices" in part}
    marked = {"byteLength": len(binary), "extensions": {name: {"fallback": True}}}
    compressed = binary
    for number, accessor in enumerate(document["accessors"]):
        view = document["bufferViews"][accessor["bufferView"]]
        start = view["byteOffset"]
        plain = binary[start : start + view["byteLength"]]
        stride = _SIZES[accessor["componentType"]] * _WIDTHS[accessor["type"]]
        mode = "TRIANGLES" if number in indices else "ATTRIBUTES"
        encoded = encode_view(plain, stride, mode, int(name.startswith("KHR")))
        view["buffer"] = 1
        view["extensions"] = {
            name: {
                "buffer": 0,
                "byteOffset": len(compressed),
                "byteLength": len(encoded),
                "byteStride": stride,
                "count": len(plain) // stride,
                "mode": mode,
            }
        }
        compressed += encoded + bytes(-len(encoded) % 4)
    document["buffers"] = [{"byteLength": len(compressed)}, marked]
    names = [*document.get("extensionsUsed", []), name]
    document["extensionsUsed"] = names
    document["extensionsRequired"] = names
    return document, compressed
