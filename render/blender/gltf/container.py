"""The GLB container, read and written without Blender: its document and the bytes behind it.

glTF 2.0 specification, section 4.4.
"""

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import NoReturn

from render.blender.failure import SceneFailure
from render.blender.gltf.document import Item, item, items

__all__ = ["Container", "read_container"]

_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")
_INLINE = ";base64,"
_TOO_DEEP = "the GLB's JSON nests too deeply"


class Container:
    """A GLB whose `document` and bytes may be changed before it is written again."""

    def __init__(self, document: Item, rest: bytearray) -> None:
        self.document = document
        self._rest = rest
        """The chunks after the document."""
        self._buffers: dict[int, memoryview] = {}

    def external_files(self) -> list[str]:
        """The URIs of other files that the document refers to; the importer would read them."""
        references = items(self.document, "buffers") + items(self.document, "images")
        uris = [part["uri"] for part in references if isinstance(part.get("uri"), str)]
        return [uri for uri in uris if not (uri.startswith("data:") and _INLINE in uri)]

    def view(self, index: object) -> memoryview:
        """The bytes of a buffer view. Raises SceneFailure (`import_error`) if they are missing."""
        found = item(self.document, "bufferViews", index)
        buffer = self._buffer(found.get("buffer"))
        start, length = found.get("byteOffset") or 0, found.get("byteLength")
        if type(start) is not int or type(length) is not int or start < 0 or length < 0:
            raise SceneFailure("import_error", f"buffer view {index} has no place in its buffer")
        if start + length > len(buffer):
            raise SceneFailure("import_error", f"buffer view {index} ends beyond its buffer")
        return buffer[start : start + length]

    def image(self, index: object) -> memoryview:
        """The bytes of an encoded image. Raises SceneFailure (`import_error`) if there are none."""
        found = item(self.document, "images", index)
        if isinstance(found.get("uri"), str):
            return _decode(found["uri"])
        if found.get("bufferView") is None:
            raise SceneFailure("import_error", f"image {index} has no bytes")
        return self.view(found["bufferView"])

    def write(self, path: Path) -> None:
        """Write the GLB with its document as it is now."""
        try:
            text = json.dumps(self.document).encode()
        except RecursionError:
            raise SceneFailure("import_error", _TOO_DEEP) from None
        text += b" " * (-len(text) % 4)
        with open(path, "wb") as file:
            length = _HEADER.size + _CHUNK.size + len(text) + len(self._rest)
            file.write(_HEADER.pack(b"glTF", 2, length))
            file.write(_CHUNK.pack(len(text), b"JSON") + text)
            file.write(self._rest)

    def _buffer(self, index: object) -> memoryview:
        buffer = item(self.document, "buffers", index)
        assert isinstance(index, int)
        if index not in self._buffers:
            self._buffers[index] = self._read_buffer(index, buffer.get("uri"))
        return self._buffers[index]

    def _read_buffer(self, index: int, uri: object) -> memoryview:
        if isinstance(uri, str) and uri:
            return _decode(uri)
        if index == 0 and len(self._rest) >= _CHUNK.size:
            length, kind = _CHUNK.unpack_from(self._rest)
            if kind == b"BIN\0":
                return memoryview(self._rest)[_CHUNK.size : _CHUNK.size + length]
        raise SceneFailure("import_error", f"buffer {index} has no bytes")


def read_container(path: Path) -> Container:
    """Read a GLB. Raises SceneFailure: `import_error` if it is none, `refused` for odd numbers."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneFailure("import_error", f"cannot read the file: {error.strerror}") from None
    try:
        magic, version, length = _HEADER.unpack_from(data)
        size, kind = _CHUNK.unpack_from(data, _HEADER.size)
    except struct.error:
        raise SceneFailure("import_error", "this file is no GLB: it is too short") from None
    if magic != b"glTF":
        raise SceneFailure("import_error", "this file is no GLB: it does not begin with 'glTF'")
    if version != 2:
        raise SceneFailure("import_error", f"the GLB is of version {version}, not 2")
    if length != len(data) or kind != b"JSON":
        raise SceneFailure("import_error", "the GLB is cut off, or its chunks are out of order")
    start = _HEADER.size + _CHUNK.size
    return Container(_parse(data[start : start + size]), bytearray(data[start + size :]))


def _parse(text: bytes) -> Item:
    try:
        document = json.loads(text.decode(), parse_constant=_not_finite, parse_float=_finite)
    except ValueError as error:
        raise SceneFailure("import_error", f"the GLB's JSON is broken: {error}"[:300]) from None
    except RecursionError:
        raise SceneFailure("import_error", _TOO_DEEP) from None
    if not isinstance(document, dict):
        raise SceneFailure("import_error", "the GLB's JSON is no object")
    return document


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise SceneFailure("refused", f"the document holds a number that is not finite: {text[:20]}")


def _decode(uri: str) -> memoryview:
    _, _, data = uri.partition(_INLINE)
    try:
        return memoryview(bytearray(base64.b64decode(data)))
    except binascii.Error:
        raise SceneFailure("import_error", "a data URI is no base64") from None
