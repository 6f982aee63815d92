"""A validated glTF document with bounds-checked access to its items and their bytes."""

import base64
import binascii
import copy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
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
_LONG = b"0" * 19
"""Digits of the shortest integers that may have more than 64 bits."""
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)


@dataclass(frozen=True, eq=False)
class Document:
    """A document whose items are checked when they are used, so that no others can be wrong."""

    json: Item
    container: Container
    limits: GlbLimits
    _bytes: dict[tuple[str, int], memoryview | GlbError] = field(default_factory=dict, repr=False)
    """By group and index, the bytes of buffers, of images that are data URIs and of buffer views
    that were decoded; or why there are none, so that no user tries again."""
    _num_decoded: Counter[str] = field(default_factory=Counter, repr=False)
    """Bytes of all buffer views that were decoded, before and after that."""
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
            raise malformed(f"{group}: {str(index)[:24]} does not exist")
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
        view = self.item("bufferViews", index)
        compressed = [found for name in MESHOPT if (found := extension(view, name)) is not None]
        try:
            return self._range(index, view)
        except GlbError:
            if not compressed:
                raise
        return self._once("bufferViews", index, lambda: self._decode(index, view, compressed[0]))

    def image(self, index: int) -> memoryview:
        """Return the bytes of an encoded image. Raises GlbError (`malformed`) without them."""
        image = self.item("images", index)
        uri, view = image.get("uri"), image.get("bufferView")
        if (uri is None) == (view is None):
            message = f"image {index} must have either a URI or a buffer view"
            raise malformed(message)
        if view is not None:
            return self.view(view)
        return self._once("images", index, lambda: self._inline(str(uri)))

    def image_key(self, index: int) -> tuple[str, int]:
        """Return a key that is equal for images that share a buffer view."""
        view = self.item("images", index).get("bufferView")
        return ("image", index) if view is None else ("view", view)

    def _once(self, group: str, index: int, read: Callable[[], memoryview]) -> memoryview:
        """Return the bytes of an item, or raise the reason against them; `read` is called once."""
        if (group, index) not in self._bytes:
            try:
                self._bytes[group, index] = read()
            except GlbError as error:
                self._bytes[group, index] = error
        result = self._bytes[group, index]
        if isinstance(result, GlbError):
            raise GlbError(result.kind, result.message)
        return result

    def _range(self, index: int, part: Item) -> memoryview:
        """Return the range of a buffer that a buffer view names, or the extension of one."""
        data = self._buffer(part["buffer"])
        start = part.get("byteOffset") or 0
        if start + part["byteLength"] > len(data):
            raise malformed(f"buffer view {index} ends beyond its buffer")
        return data[start : start + part["byteLength"]]

    def _decode(self, index: int, view: Item, compressed: Item) -> memoryview:
        count, stride, size = compressed["count"], compressed["byteStride"], view["byteLength"]
        try:
            if count * stride != size:
                raise malformed(f"{count} elements of {stride} bytes are not its {size} bytes")
            if count > self.limits.max_elements:
                message = f"{count} elements; the limit is {self.limits.max_elements}"
                raise GlbError(FailureKind.TOO_LARGE, message)
            data = self._range(index, compressed)
            self._count_decoded(len(data), size)
            return decode_meshopt(
                data,
                count=count,
                stride=stride,
                mode=compressed["mode"],
                filter_name=compressed.get("filter") or "NONE",
            )
        except GlbError as error:
            raise GlbError(error.kind, f"compressed buffer view {index}: {error}") from None

    def _count_decoded(self, before: int, after: int) -> None:
        """Raise GlbError if the decoded views have too many bytes in total, valid or not."""
        self._num_decoded.update(before=before, after=after)
        # Overlapping views would make decoding them all slower than linear in the file size.
        if self._num_decoded["before"] > 2 * self.container.num_bytes:
            raise malformed("the compressed buffer views overlap in the file")
        # The file is as large as if it had never been compressed.
        total = self._num_decoded["after"]
        if total > self.limits.max_file_bytes:
            message = f"{total} bytes after decoding; the limit is {self.limits.max_file_bytes}"
            raise GlbError(FailureKind.TOO_LARGE, message)

    def _buffer(self, index: int) -> memoryview:
        return self._once("buffers", index, lambda: self._read_buffer(index))

    def _read_buffer(self, index: int) -> memoryview:
        buffer = self.item("buffers", index)
        if buffer.get("uri"):
            return self._inline(buffer["uri"])
        if index == 0 and self.container.binary is not None:
            return self.container.binary
        raise malformed(f"buffer {index} has no data")

    def _inline(self, uri: str) -> memoryview:
        """Return the bytes of a data URI. Raises GlbError for one that names another file."""
        if not uri.startswith("data:"):
            raise GlbError(FailureKind.EXTERNAL_REFERENCE, self._other_files)
        head, separator, data = uri.partition(_INLINE)
        if not separator:
            raise malformed(f"a data URI is not base64-encoded: {head[:40]!r}")
        try:
            return memoryview(base64.b64decode(data))
        except (binascii.Error, ValueError):
            raise malformed("a data URI contains invalid base64") from None

    @cached_property
    def _other_files(self) -> str:
        """The error message of a file that needs other files."""
        items = [*self.items("buffers"), *self.items("images")]
        uris = [item.get("uri") for item in items if type(item) is dict]
        external = [name for name in uris if type(name) is str and name[:5] != "data:"]
        names = ", ".join(repr(name[:80]) for name in external[:3])
        files = "1 other file" if len(external) == 1 else f"{len(external)} other files"
        return f"needs {files}: {names}"


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
        # A call for each integer would be slow, so only files with long ones make it.
        is_long = _LONG in data.translate(_DIGITS)
        parse_int = _integer if is_long else None
        document = json.loads(
            text, parse_constant=_not_finite, parse_float=_finite, parse_int=parse_int
        )
        if "\\ud" in text or "\\uD" in text:
            # Half a surrogate pair is not a character and cannot be stored or printed.
            json.dumps(document, ensure_ascii=False).encode()
    except ValueError as error:
        raise malformed(f"JSON: {error}"[:300]) from None
    except RecursionError:
        raise malformed("JSON: it is nested too deeply") from None
    return document


def _integer(text: str) -> int | float:
    """Return a number without a fraction; numpy has no integers of more than 64 bits."""
    value = int(text) if len(text) <= len(_LONG) + 1 else None
    return value if value is not None and -(2**63) <= value < 2**63 else _finite(text)


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
