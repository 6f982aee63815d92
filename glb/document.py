"""A validated glTF document with bounds-checked access to its items and their bytes."""

import base64
import binascii
import copy
import json
from dataclasses import dataclass, field
from typing import Any, NoReturn

from core.failures import FailureKind
from glb.container import Container
from glb.decoders.meshopt import decode_meshopt
from glb.extensions import MESHOPT
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits
from glb.schema import DOCUMENT, EMPTY_ITEMS, EXTENSIONS, ITEMS
from glb.type_checks import ANYTHING, Items, Object

__all__ = ["Document", "Item", "extension", "read_document"]

Item = dict[str, Any]
"""A JSON object."""

_INLINE = ";base64,"


@dataclass(frozen=True, eq=False)
class Document:
    """A document whose items are checked when they are used, so that no others can be wrong."""

    json: Item
    container: Container
    limits: GlbLimits
    _buffers: dict[int, memoryview] = field(default_factory=dict, repr=False)
    _images: dict[int, memoryview] = field(default_factory=dict, repr=False)
    """Bytes of the images that are data URIs, by index."""
    _decoded: dict[int, memoryview] = field(default_factory=dict, repr=False)
    """Bytes of the buffer views that were decoded, by index."""
    _used: set[tuple[str, int]] = field(default_factory=set, repr=False)
    """Group and index of the items that were used, and therefore checked."""

    def items(self, group: str) -> list[Any]:
        """Return one of the document's lists, such as `nodes`, without a check of its items."""
        items = self.json.get(group)
        return items if type(items) is list else []

    def item(self, group: str, index: int) -> Item:
        """Return one item of a list.

        Raises GlbError (`malformed`) if it does not exist or its fields have wrong types.
        """
        items = self.items(group)
        if type(index) is not int or not 0 <= index < len(items):
            raise malformed(f"{group}: {str(index)[:20]} does not exist")
        item: Item = items[index]
        if (group, index) not in self._used:
            problem = ITEMS[group](item)
            if problem:
                raise malformed(f"JSON: {group}.{index}{problem}"[:300])
            self._used.add((group, index))
        return item

    def drop_unused(self) -> None:
        """Make items that nothing used empty, and drop fields that were not checked, in place.

        What remains is valid and names no other file. The items keep their indices.
        """
        for group, check in ITEMS.items():
            items = self.items(group)
            self.json.pop(group, None)
            if items:
                self.json[group] = [
                    _checked_fields(check, item)
                    if (group, index) in self._used
                    else copy.deepcopy(EMPTY_ITEMS[group])
                    for index, item in enumerate(items)
                ]

    def view(self, index: int) -> memoryview:
        """Return the bytes of a buffer view, decoded if the file has them only compressed.

        Raises GlbError: `malformed` if they are missing, `too_large` for decoded bytes beyond the
        limits.
        """
        if index in self._decoded:
            return self._decoded[index]
        view = self.item("bufferViews", index)
        compressed = [found for name in MESHOPT if (found := extension(view, name)) is not None]
        try:
            return self._range(index, view)
        except GlbError:
            if not compressed:
                raise
        try:
            self._decoded[index] = self._decode(index, view, compressed[0])
        except GlbError as error:
            raise GlbError(error.kind, f"compressed buffer view {index}: {error}") from None
        return self._decoded[index]

    def image(self, index: int) -> memoryview:
        """Return the bytes of an encoded image. Raises GlbError (`malformed`) without them."""
        image = self.item("images", index)
        uri, view = image.get("uri"), image.get("bufferView")
        if (uri is None) == (view is None):
            message = f"image {index} must have either a URI or a buffer view"
            raise malformed(message)
        if view is not None:
            return self.view(view)
        if index not in self._images:
            self._images[index] = self._inline(str(uri))
        return self._images[index]

    def image_key(self, index: int) -> tuple[str, int]:
        """Return a key that is equal for images that share a buffer view."""
        view = self.item("images", index).get("bufferView")
        return ("image", index) if view is None else ("view", view)

    def _range(self, index: int, part: Item) -> memoryview:
        """Return the range of a buffer that a buffer view names, or the extension of one."""
        data = self._buffer(part["buffer"])
        start = part.get("byteOffset") or 0
        if start + part["byteLength"] > len(data):
            raise malformed(f"buffer view {index} ends beyond its buffer")
        return data[start : start + part["byteLength"]]

    def _decode(self, index: int, view: Item, compressed: Item) -> memoryview:
        count, stride, size = compressed["count"], compressed["byteStride"], view["byteLength"]
        if count * stride != size:
            raise malformed(f"{count} elements of {stride} bytes are not its {size} bytes")
        if count > self.limits.max_elements:
            message = f"{count} elements; the limit is {self.limits.max_elements}"
            raise GlbError(FailureKind.TOO_LARGE, message)
        # The file is as large as if it had never been compressed.
        total = size + sum(len(data) for data in self._decoded.values())
        if total > self.limits.max_file_bytes:
            message = f"{total} bytes after decoding; the limit is {self.limits.max_file_bytes}"
            raise GlbError(FailureKind.TOO_LARGE, message)
        return decode_meshopt(
            self._range(index, compressed),
            count=count,
            stride=stride,
            mode=compressed["mode"],
            filter_name=compressed.get("filter") or "NONE",
        )

    def _buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            buffer = self.item("buffers", index)
            if buffer.get("uri"):
                self._buffers[index] = self._inline(buffer["uri"])
            elif index == 0 and self.container.binary is not None:
                self._buffers[index] = self.container.binary
            else:
                raise malformed(f"buffer {index} has no data")
        return self._buffers[index]

    def _inline(self, uri: str) -> memoryview:
        """Return the bytes of a data URI. Raises GlbError for one that names another file."""
        if not uri.startswith("data:"):
            items = [*self.items("buffers"), *self.items("images")]
            uris = [item.get("uri") for item in items if type(item) is dict]
            external = [name for name in uris if type(name) is str and name[:5] != "data:"]
            names = ", ".join(repr(name[:80]) for name in external[:3])
            files = "1 other file" if len(external) == 1 else f"{len(external)} other files"
            raise GlbError(FailureKind.EXTERNAL_REFERENCE, f"needs {files}: {names}")
        head, separator, data = uri.partition(_INLINE)
        if not separator:
            raise malformed(f"a data URI is not base64-encoded: {head[:40]!r}")
        try:
            return memoryview(base64.b64decode(data))
        except (binascii.Error, ValueError):
            raise malformed("a data URI contains invalid base64") from None


def read_document(container: Container, limits: GlbLimits) -> Document:
    """Parse the JSON of a GLB file. Raises GlbError (`malformed`, `too_large`)."""
    content = _parse(bytes(container.json))
    problem = DOCUMENT(content)
    if problem:
        raise malformed(f"JSON: {problem.lstrip('.: ')}"[:300])
    version = content["asset"]["version"]
    if version != "2.0":
        raise malformed(f"asset version {version[:20]!r} is not 2.0")
    if "extensionsUsed" in content:
        used = content["extensionsUsed"]
        names = used if type(used) is list else []
        content["extensionsUsed"] = [name for name in names if type(name) is str]
    document = Document(content, container, limits)
    for group in ITEMS:
        Items(ANYTHING)(document.items(group))  # raises GlbError for a list that is too long
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


def _checked_fields(check: Object, item: Item) -> Item:
    fields = check.pick(item)
    if not fields.get("uri", "data:").startswith("data:"):
        del fields["uri"]
    extensions = fields.get("extensions")
    if extensions:
        known = {name: value for name, value in extensions.items() if type(value) is dict}
        fields["extensions"] = known
    return fields
