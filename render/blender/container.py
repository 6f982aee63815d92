"""The GLB container before Blender sees it: no other files, no animation."""

import json
import struct
from pathlib import Path
from typing import Any

__all__ = ["external_files", "write_still"]

_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")


def external_files(path: Path) -> list[str]:
    """The URIs of other files that a GLB refers to; the importer would read them."""
    document, _ = _read(path)
    references = [*_dicts(document, "buffers"), *_dicts(document, "images")]
    uris = [item["uri"] for item in references if isinstance(item.get("uri"), str)]
    return [uri for uri in uris if not uri.startswith("data:")]


def write_still(path: Path, folder: Path) -> Path:
    """A copy of a GLB without its animations, or the GLB itself if it has none.

    Importing an animation is slow and moves nodes off the places that the file gives them.
    """
    document, rest = _read(path)
    if not document.pop("animations", None):
        return path
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    copy = folder / "still.glb"
    with open(copy, "wb") as file:
        length = _HEADER.size + _CHUNK.size + len(text) + len(rest)
        file.write(_HEADER.pack(b"glTF", 2, length))
        file.write(_CHUNK.pack(len(text), b"JSON") + text)
        file.write(rest)
    return copy


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The document and all chunks after it; nothing if this is no GLB, as the importer will say."""
    data = path.read_bytes()
    try:
        magic, version, length = _HEADER.unpack_from(data)
        size, kind = _CHUNK.unpack_from(data, _HEADER.size)
        start = _HEADER.size + _CHUNK.size
        if (magic, version, length, kind) != (b"glTF", 2, len(data), b"JSON"):
            return {}, b""
        document = json.loads(data[start : start + size])
    except (struct.error, ValueError, RecursionError):
        return {}, b""
    return (document if isinstance(document, dict) else {}), data[start + size :]


def _dicts(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = document.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
