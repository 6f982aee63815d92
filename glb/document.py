"""A validated glTF document with bounds-checked access to its items and their bytes."""

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any, NoReturn

from core.failures import FailureKind
from glb.container import Container
from glb.glb_error import GlbError, malformed
from glb.schema import DOCUMENT, EXTENSIONS

__all__ = ["Document", "Item", "extension", "read_document"]

Item = dict[str, Any]
"""A JSON object."""

_INLINE = ";base64,"


@dataclass(frozen=True, eq=False)
class Document:
    """A document whose types match glb.schema; its indices are checked when they are used."""

    json: Item
    container: Container
    _buffers: dict[int, memoryview] = field(default_factory=dict, repr=False)

    def items(self, group: str) -> list[Item]:
        """Return one of the document's lists, such as `nodes`; an absent list is empty."""
        return self.json.get(group) or []

    def item(self, group: str, index: int) -> Item:
        """Return one item of a list. Raises GlbError (`malformed`) if it does not exist."""
        items = self.items(group)
        if not 0 <= index < len(items):
            raise malformed(f"{group}: {index} does not exist")
        return items[index]

    def view(self, index: int) -> memoryview:
        """Return the bytes of a buffer view. Raises GlbError (`malformed`) if they are missing."""
        view = self.item("bufferViews", index)
        data = self._buffer(view["buffer"])
        start = view.get("byteOffset") or 0
        if start + view["byteLength"] > len(data):
            raise malformed(f"buffer view {index} ends beyond its buffer")
        return data[start : start + view["byteLength"]]

    def image(self, index: int) -> memoryview:
        """Return the bytes of an encoded image. Raises GlbError (`malformed`) without them."""
        image = self.item("images", index)
        uri, view = image.get("uri"), image.get("bufferView")
        if (uri is None) == (view is None):
            message = f"image {index} must have either a URI or a buffer view"
            raise malformed(message)
        return self.view(view) if view is not None else _decode(str(uri))

    def image_place(self, index: int) -> tuple[str, int]:
        """Return a key that is equal for images that share a buffer view."""
        view = self.item("images", index).get("bufferView")
        return ("image", index) if view is None else ("view", view)

    def store_buffers(self) -> None:
        """Write the bytes of buffers that are data URIs, which may have changed, back to the JSON.

        The bytes of the binary chunk need no such step.
        """
        for index, data in self._buffers.items():
            buffer = self.item("buffers", index)
            if buffer.get("uri"):
                head = buffer["uri"].partition(_INLINE)[0]
                buffer["uri"] = head + _INLINE + base64.b64encode(data).decode()

    def _buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            buffer = self.item("buffers", index)
            if buffer.get("uri"):
                self._buffers[index] = _decode(buffer["uri"])
            elif index == 0 and self.container.binary is not None:
                self._buffers[index] = self.container.binary
            else:
                raise malformed(f"buffer {index} has no data")
        return self._buffers[index]


def read_document(container: Container) -> Document:
    """Parse and validate the JSON of a GLB file, and check that it refers to no other file.

    Raises GlbError (`malformed`, `too_large`, `external_reference`).
    """
    content = _parse(bytes(container.json))
    problem = DOCUMENT(content)
    if problem:
        raise malformed(f"JSON: {problem.lstrip('.: ')}"[:300])
    version = content["asset"]["version"]
    if version != "2.0":
        raise malformed(f"asset version {version[:20]!r} is not 2.0")
    document = Document(content, container)
    _check_references(document)
    return document


def extension(part: Item, name: str) -> Item | None:
    """Return an extension of an item, or None if the item does not have it.

    Raises GlbError (`malformed`) if the types of its known fields are wrong.
    """
    value = (part.get("extensions") or {}).get(name)
    if value is None:
        return None
    problem = EXTENSIONS[name](value)
    if problem:
        raise malformed(f"{name}{problem}")
    return value


def _parse(data: bytes) -> Any:
    try:
        text = data.decode()
        document = json.loads(text, parse_constant=_not_finite, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:
            # Half a surrogate pair is not a character and cannot be stored or printed.
            json.dumps(document, ensure_ascii=False).encode()
    except ValueError as error:
        raise malformed(f"JSON: {error}"[:300]) from None
    except RecursionError:
        raise malformed("JSON: it is nested too deeply") from None
    return document


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not a finite number")


def _check_references(document: Document) -> None:
    buffers = [buffer["uri"] for buffer in document.items("buffers") if buffer.get("uri")]
    images = [image["uri"] for image in document.items("images") if image.get("uri") is not None]
    external = [uri for uri in buffers + images if not uri.startswith("data:")]
    if external:
        names = ", ".join(repr(uri[:80]) for uri in external[:3])
        files = "1 other file" if len(external) == 1 else f"{len(external)} other files"
        message = f"needs {files}: {names}"
        raise GlbError(FailureKind.EXTERNAL_REFERENCE, message)
    # The importer would interpret such a URI as a file name.
    if not all(_INLINE in uri for uri in buffers + images):
        raise malformed("a data URI is not base64-encoded")


def _decode(uri: str) -> memoryview:
    try:
        # A bytearray, because the bytes of a buffer may be changed in place.
        return memoryview(bytearray(base64.b64decode(uri.partition(_INLINE)[2])))
    except (binascii.Error, ValueError):
        raise malformed("a data URI contains invalid base64") from None
