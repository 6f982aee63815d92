"""A builder of GLB files, so that each test adds only the parts that it needs."""

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["GltfBuilder", "encode_image", "png_chunk"]

_COMPONENT_TYPES = {"<f4": 5126, "<u4": 5125, "<u2": 5123, "|u1": 5121}
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def encode_image(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Encode an image of (h, w, 3 or 4) uint8 pixels; `kind` is a format name of Pillow."""
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(out, kind, **options)
    return out.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


class GltfBuilder:
    """A glTF document and its binary chunk. `document` may be edited freely before `save`."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "accessors": [],
            "bufferViews": [],
        }
        self._binary = b""

    def add(self, group: str, item: Any) -> int:
        """Append an item to one of the document's lists; return its index."""
        items: list[Any] = self.document.setdefault(group, [])
        items.append(item)
        return len(items) - 1

    @property
    def binary(self) -> bytes:
        """The bytes that were added to the binary chunk so far."""
        return self._binary

    def view(self, data: bytes) -> int:
        """Add a buffer view with these bytes; return its index."""
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        self._binary += data + b"\0" * (-len(data) % 4)
        return self.add("bufferViews", view)

    def accessor(self, values: Any, dtype: str = "<f4", **more: Any) -> int:
        """Add an accessor for an array (n,) or (n, components); return its index."""
        array = np.asarray(values, dtype=dtype)
        components = 1 if array.ndim == 1 else array.shape[1]
        item = {
            "bufferView": self.view(array.tobytes()),
            "componentType": _COMPONENT_TYPES[array.dtype.str],
            "count": len(array),
            "type": _KINDS[components],
        }
        return self.add("accessors", item | more)

    def texture(self, image: np.ndarray | bytes, mime: str = "image/png") -> int:
        """Add a texture of pixels (h, w, 3 or 4) or of an encoded image; return its index."""
        data = image if isinstance(image, bytes) else encode_image(image)
        source = self.add("images", {"bufferView": self.view(data), "mimeType": mime})
        return self.add("textures", {"source": source})

    def material(self, colour: Sequence[float] = (1, 1, 1, 1), **more: Any) -> int:
        """Add a rough, non-metallic material; `texture` is the index of a base-colour texture."""
        pbr: dict[str, Any] = {
            "baseColorFactor": list(colour),
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0,
        }
        if "texture" in more:
            pbr["baseColorTexture"] = {"index": more.pop("texture")}
        return self.add("materials", {"pbrMetallicRoughness": pbr} | more)

    def quad(
        self,
        material: int | None = None,
        corners: tuple[Sequence[float], Sequence[float]] = ((-1, -1), (1, 1)),
        z: float = 0.0,
        attributes: Mapping[str, int] | None = None,
    ) -> int:
        """Add a mesh: a rectangle in glTF's x and y that faces +z (the world's -y), with UVs.

        The vertices are counter-clockwise, starting at the lower left corner.
        """
        (left, bottom), (right, top) = corners
        x, y = [left, right, right, left], [bottom, bottom, top, top]
        positions = np.stack([x, y, np.full(4, z)], axis=1)
        default_attributes = {
            "POSITION": self.accessor(
                positions, min=positions.min(axis=0).tolist(), max=positions.max(axis=0).tolist()
            ),
            "NORMAL": self.accessor([[0, 0, 1]] * 4),
            "TEXCOORD_0": self.accessor([[0, 1], [1, 1], [1, 0], [0, 0]]),
        }
        primitive: dict[str, Any] = {
            "attributes": default_attributes | dict(attributes or {}),
            "indices": self.accessor([0, 1, 2, 0, 2, 3], "<u2"),
        }
        if material is not None:
            primitive["material"] = material
        return self.add("meshes", {"primitives": [primitive]})

    def node(self, parent: int | None = None, root: bool = True, **values: Any) -> int:
        """Add a node: a child of `parent`, a root of scene 0, or (root=False) in no scene."""
        index = self.add("nodes", values)
        if parent is not None:
            self.document["nodes"][parent].setdefault("children", []).append(index)
        elif root:
            self.document["scenes"][0]["nodes"].append(index)
        return index

    def save(self, path: Path, used: Sequence[str] = (), required: Sequence[str] = ()) -> Path:
        """Write the GLB, which lists `used` and `required` as its extensions."""
        document = self.document | {"buffers": [{"byteLength": len(self._binary)}]}
        if used or required:
            document["extensionsUsed"] = [*used, *required]
        if required:
            document["extensionsRequired"] = list(required)
        text = json.dumps(document).encode()
        text += b" " * (-len(text) % 4)
        chunks = [(b"JSON", text), (b"BIN\0", self._binary)]
        body = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in chunks)
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
        return path
