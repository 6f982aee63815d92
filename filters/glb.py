"""A binary glTF file's container and document, read without trusting either.

The container: glTF 2.0 specification, section 4.4.
"""

import base64
import binascii
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import pydantic

from core.config import Config
from core.failures import FailureKind, StageFailed
from filters.gltf import Gltf

__all__ = ["IMPORTABLE_EXTENSIONS", "Glb", "GlbRefused", "InspectLimits", "RefusalKind", "read_glb"]

RefusalKind = Literal[
    "malformed", "external_reference", "unsupported_extension", "too_large", "empty"
]

IMPORTABLE_EXTENSIONS = frozenset(
    {
        "EXT_mesh_gpu_instancing",
        "EXT_texture_webp",
        "KHR_animation_pointer",
        "KHR_draco_mesh_compression",
        "KHR_lights_punctual",
        "KHR_materials_anisotropy",
        "KHR_materials_clearcoat",
        "KHR_materials_emissive_strength",
        "KHR_materials_ior",
        "KHR_materials_pbrSpecularGlossiness",
        "KHR_materials_sheen",
        "KHR_materials_specular",
        "KHR_materials_transmission",
        "KHR_materials_unlit",
        "KHR_materials_variants",
        "KHR_materials_volume",
        "KHR_mesh_quantization",
        "KHR_node_visibility",
        "KHR_texture_transform",
        "MSFT_lod",
    }
)
"""What may stand in `extensionsRequired`: what Blender 4.5's importer reads, and what
render.blender settles before it does."""


class GlbRefused(StageFailed):
    """A file that is not worth opening in Blender, with the kind of the reason."""

    def __init__(self, kind: str, message: str, log_tail: str | None = None) -> None:
        super().__init__(FailureKind.named(kind), message, log_tail)


class InspectLimits(Config):
    """Caps on what a single file may ask of the renderer."""

    max_file_bytes: Annotated[int, pydantic.Field(gt=0)] = 1 << 29
    """The whole file."""
    max_json_bytes: Annotated[int, pydantic.Field(gt=0)] = 1 << 25
    """Its document, which takes many times as much memory once it is parsed."""
    max_nodes: Annotated[int, pydantic.Field(gt=0)] = 20_000
    """Nodes and GPU instances together: Blender makes an object of each."""
    max_node_depth: Annotated[int, pydantic.Field(gt=0)] = 256
    """The importer recurses once a level."""
    max_triangles: Annotated[int, pydantic.Field(gt=0)] = 5_000_000
    """As drawn, instances counted."""
    max_elements: Annotated[int, pydantic.Field(gt=0)] = 50_000_000
    """Vertices and indices that the primitives of the file read."""
    max_image_pixels: Annotated[int, pydantic.Field(gt=0)] = 8192 * 8192
    """In a single image."""
    max_total_pixels: Annotated[int, pydantic.Field(gt=0)] = 4 * 8192 * 8192
    """Over all images of the file."""


_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Glb:
    """A parsed document with bounds-checked access to its bytes."""

    gltf: Gltf
    binary: memoryview | None
    """The BIN chunk; None where the file has none."""
    num_bytes: int
    _buffers: dict[int, memoryview] = field(default_factory=dict, repr=False)

    def item(self, items: list[_T] | None, index: int, what: str) -> _T:
        """`items[index]`. Raises GlbRefused(malformed) where there is no such item."""
        if items is None or not 0 <= index < len(items):
            raise GlbRefused("malformed", f"{what} {index} does not exist")
        return items[index]

    def view(self, index: int) -> memoryview:
        """The bytes of a buffer view. Raises GlbRefused(malformed) if they are not all there."""
        view = self.item(self.gltf.buffer_views, index, "buffer view")
        data = self._buffer(view.buffer)
        start = view.byte_offset or 0
        if start + view.byte_length > len(data):
            raise GlbRefused("malformed", f"buffer view {index} ends beyond its buffer")
        return data[start : start + view.byte_length]

    def image(self, index: int) -> memoryview:
        """The bytes of an image file. Raises GlbRefused(malformed) if they are not all there."""
        image = self.item(self.gltf.images, index, "image")
        if (image.uri is None) == (image.buffer_view is None):
            raise GlbRefused("malformed", f"image {index} needs either a URI or a buffer view")
        if image.uri is not None:
            return memoryview(_decode_data_uri(image.uri))
        assert image.buffer_view is not None
        return self.view(image.buffer_view)

    def _buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            buffer = self.item(self.gltf.buffers, index, "buffer")
            if buffer.uri:
                self._buffers[index] = memoryview(_decode_data_uri(buffer.uri))
            elif index == 0 and self.binary is not None:
                self._buffers[index] = self.binary
            else:
                raise GlbRefused("malformed", f"buffer {index} has no data")
        return self._buffers[index]


def read_glb(source: Path | str | bytes, limits: InspectLimits) -> Glb:
    """Read a file's container and document; decodes no image and follows no URI.

    Raises GlbRefused for a file that is too large, malformed, refers to other files or requires an
    extension that the importer lacks; OSError if a path cannot be read.
    """
    if not isinstance(source, bytes):
        source = _read_file(Path(source), limits)
    elif len(source) > limits.max_file_bytes:
        raise _file_too_large(len(source), limits)
    chunk, binary = _split_chunks(memoryview(source), limits)
    try:
        gltf = Gltf.model_validate_json(bytes(chunk))
    except pydantic.ValidationError as error:
        issue = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in issue["loc"]) or "document"
        kind: RefusalKind = "too_large" if issue["type"] == "too_long" else "malformed"
        raise GlbRefused(kind, f"JSON: {where}: {issue['msg']}"[:300]) from None
    if gltf.asset.version != "2.0":
        raise GlbRefused("malformed", f"asset version {gltf.asset.version[:20]!r} is not 2.0")
    _check_extensions(gltf)
    _check_references(gltf)
    return Glb(gltf, binary, len(source))


def _read_file(path: Path, limits: InspectLimits) -> bytes:
    with path.open("rb") as file:
        # One byte more than allowed shows that there is too much, whatever the size is said to be.
        data = file.read(limits.max_file_bytes + 1)
    if len(data) > limits.max_file_bytes:
        raise _file_too_large(path.stat().st_size, limits)
    return data


def _file_too_large(size: int, limits: InspectLimits) -> GlbRefused:
    return GlbRefused("too_large", f"{size} bytes; the limit is {limits.max_file_bytes}")


def _split_chunks(data: memoryview, limits: InspectLimits) -> tuple[memoryview, memoryview | None]:
    """The JSON chunk and, where there is one, the BIN chunk."""
    if len(data) < 20 or data[:4] != b"glTF":
        raise GlbRefused("malformed", f"not a GLB file ({len(data)} bytes)")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise GlbRefused("malformed", f"GLB version {version}; only version 2 can be read")
    if length != len(data):
        raise GlbRefused("malformed", f"{len(data)} bytes of the {length} that the header says")
    kind, json_chunk, end = _chunk(data, 12)
    if kind != b"JSON":
        raise GlbRefused("malformed", "the first chunk is not JSON")
    if len(json_chunk) > limits.max_json_bytes:
        text = f"{len(json_chunk)} bytes of JSON; the limit is {limits.max_json_bytes}"
        raise GlbRefused("too_large", text)
    if end == len(data):
        return json_chunk, None
    kind, second, _ = _chunk(data, end)
    return json_chunk, second if kind == b"BIN\0" else None


def _chunk(data: memoryview, start: int) -> tuple[bytes, memoryview, int]:
    if start + 8 > len(data):
        raise GlbRefused("malformed", "the file ends inside a chunk's header")
    length, kind = struct.unpack_from("<I4s", data, start)
    end = start + 8 + length
    if end > len(data):
        raise GlbRefused("malformed", "the file ends inside a chunk")
    return kind, data[start + 8 : end], end


def _check_extensions(gltf: Gltf) -> None:
    required = set(gltf.extensions_required or [])
    unsupported = sorted(required - IMPORTABLE_EXTENSIONS)
    if unsupported:
        names = ", ".join(name[:60] for name in unsupported[:5])
        raise GlbRefused("unsupported_extension", f"requires {names}")
    if not required <= set(gltf.extensions_used or []):
        raise GlbRefused("malformed", "extensionsRequired names more than extensionsUsed")


def _check_references(gltf: Gltf) -> None:
    buffers = [buffer.uri for buffer in gltf.buffers or [] if buffer.uri]
    images = [image.uri for image in gltf.images or [] if image.uri is not None]
    outside = [uri for uri in buffers + images if not uri.startswith("data:")]
    if outside:
        names = ", ".join(repr(uri[:80]) for uri in outside[:3])
        raise GlbRefused("external_reference", f"needs {len(outside)} other files: {names}")


def _decode_data_uri(uri: str) -> bytes:
    _, separator, text = uri.partition(";base64,")
    if not separator:
        raise GlbRefused("malformed", "a data URI is not in base64")
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        raise GlbRefused("malformed", "a data URI holds no valid base64") from None
