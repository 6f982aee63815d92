"""The base-colour maps that the scene of a GLB draws, and whether they can be shown."""

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from core.failures import FailureKind
from glb.decoders.ktx2 import basis_size, decode_ktx2
from glb.decoders.png import essential_png
from glb.document import Document
from glb.glb_error import GlbError
from glb.image_headers import check_image_size, is_ktx2, is_png
from glb.limits import GlbLimits
from glb.primitives import DrawnPrimitive
from glb.shown_materials import (
    base_colour,
    shown_material,
    texture_coordinate_set,
    texture_source,
)

__all__ = ["BaseColourMap", "MapState", "base_colour_maps"]

MapState = Literal["detailed", "flat", "unreadable", "no_uv"]

_FORMATS = ("PNG", "JPEG", "WEBP")
# Range of 8-bit levels in a channel up to which an image counts as one colour (JPEG noise).
_FLAT_LEVELS = 2
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class BaseColourMap:
    """One base-colour image as the scene uses it."""

    image: int
    """The index of the image in the file."""
    source: str
    """`core`, or the texture extension that names the image."""
    width: int
    height: int
    """In pixels, like the width; 0 if the image cannot be read."""
    state: MapState
    """`detailed` if the render shows it with more than one colour, otherwise why it does not."""
    triangles: int
    """Drawn triangles that it covers, counted once per instance."""


@dataclass(frozen=True)
class _Decoded:
    width: int = 0
    height: int = 0
    state: MapState = "unreadable"


def base_colour_maps(
    document: Document, drawn: Iterable[DrawnPrimitive], limits: GlbLimits
) -> tuple[BaseColourMap, ...]:
    """Return the base-colour maps of the primitives in the order of their images.

    Each image is decoded once. Raises GlbError: `too_large` for an image that exceeds the limits or
    those of Pillow.
    """
    decoded: dict[tuple[str, int], _Decoded] = {}
    triangles: dict[tuple[int, str, bool], int] = {}
    for item in drawn:
        material = item.primitive.get("material")
        slot = None
        if material is not None:
            _, slot = base_colour(shown_material(document.item("materials", material)))
        if slot is not None:
            image, source = texture_source(document, document.item("textures", slot["index"]))
            assert image is not None, "the parser requires an image of a base colour"
            has_uv = f"TEXCOORD_{texture_coordinate_set(slot)}" in item.primitive["attributes"]
            key = image, source, has_uv
            triangles[key] = triangles.get(key, 0) + item.triangles * item.copies
    maps = []
    for (image, source, has_uv), covered in sorted(triangles.items()):
        location = document.image_key(image)
        if location not in decoded:
            decoded[location] = _decode(document, image, limits)
        current = decoded[location]
        state: MapState = "no_uv" if current.state == "detailed" and not has_uv else current.state
        maps.append(BaseColourMap(image, source, current.width, current.height, state, covered))
    return tuple(maps)


def _decode(document: Document, index: int, limits: GlbLimits) -> _Decoded:
    data = document.image(index)
    if is_ktx2(data):
        return _decode_ktx2(data, limits)
    try:
        # Pillow rejects long texts and broken parts that Blender skips, and reads what it rejects.
        encoded = essential_png(data) if is_png(data) else data
    except GlbError:
        return _Decoded()
    return _decode_other(index, encoded, limits)


def _decode_ktx2(data: memoryview, limits: GlbLimits) -> _Decoded:
    try:
        # Its decoder is native code, which runs in the Blender child only; such an image is taken
        # as one of more than one colour.
        size = basis_size(data, limits)
        if size is not None:
            return _Decoded(*size, "detailed")
        pixels = decode_ktx2(data, limits)[:, :, :3]
    except GlbError as error:
        if error.kind is FailureKind.TOO_LARGE:
            raise
        return _Decoded()
    levels = np.stack([pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))], axis=1)
    return _Decoded(pixels.shape[1], pixels.shape[0], _state(levels.astype(int)))


def _decode_other(index: int, data: memoryview | bytes, limits: GlbLimits) -> _Decoded:
    width = height = 0
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            width, height = opened.size
            # Pillow and the GLB parser may read the size from different parts of the header.
            check_image_size(f"image {index}", opened.size, limits)
            # A large JPEG is decoded at a fraction of its size; all of its bytes are still read.
            opened.draft(None, (256, 256))
            opened.load()
            # A conversion would copy all pixels.
            pixels = opened if opened.mode in ("RGB", "RGBA") else opened.convert("RGB")
            ranges = np.array(pixels.getextrema()[:3])
    except _BOMBS:
        message = f"image {index} has more pixels than the limit of Pillow"
        raise GlbError(FailureKind.TOO_LARGE, message) from None
    except _DECODE_ERRORS:
        return _Decoded(width, height, "unreadable")
    if width * height == 0:
        return _Decoded()
    return _Decoded(width, height, _state(ranges))


def _state(ranges: np.ndarray) -> MapState:
    """Return the state of an image from the smallest and largest level (3, 2) of its channels."""
    return "detailed" if np.ptp(ranges, axis=1).max() > _FLAT_LEVELS else "flat"
