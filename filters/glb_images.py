"""The pictures in a GLB: which base-colour maps its scene shows, and whether they are real."""

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pydantic
from PIL import Image

from filters.glb import Glb, GlbRefused, InspectLimits
from filters.glb_scene import Drawn
from filters.gltf import Material, TextureInfo

__all__ = ["BaseColourMap", "MapState", "base_colour_maps", "largest_image"]

MapState = Literal["detailed", "flat", "unreadable", "not_shown", "no_uv", "missing"]

_FORMATS = ("PNG", "JPEG", "WEBP")
# Where a texture may find its image, in the order in which Blender's importer looks; it never
# looks at the last two.
_SOURCES = ("EXT_texture_webp", "KHR_texture_basisu", "MSFT_texture_dds")
_NOT_SHOWN = ("KHR_texture_basisu", "MSFT_texture_dds")
# Differences of JPEG noise do not make a picture.
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

    image: int | None
    """Its index in the file; None for a texture without an image."""
    source: str
    """`core`, or the texture extension that names the image."""
    width: int
    height: int
    """In pixels; 0 where the image cannot be read."""
    state: MapState
    """`detailed` is a picture that the render shows; every other state is none."""
    triangles: int
    """Triangles that it covers, every copy counted."""


@dataclass(frozen=True)
class _Picture:
    width: int = 0
    height: int = 0
    state: MapState = "unreadable"


def base_colour_maps(
    glb: Glb, drawn: Iterable[Drawn], limits: InspectLimits
) -> tuple[BaseColourMap, ...]:
    """Every base-colour map of the drawn primitives, decoded once each, in order of the images.

    Raises GlbRefused if a material names what does not exist or an image exceeds the limits.
    """
    pictures: dict[tuple[str, int], _Picture] = {}
    triangles: dict[tuple[int | None, str, bool], int] = {}
    for item in drawn:
        material = item.primitive.material
        info = None if material is None else _base_colour(_material(glb, material))
        if info is not None:
            image, source = _source(glb, info)
            has_uv = f"TEXCOORD_{_uv_set(info)}" in item.primitive.attributes
            key = image, source, has_uv
            triangles[key] = triangles.get(key, 0) + item.triangles * item.copies
    maps = []
    for image, source, has_uv in sorted(triangles, key=lambda key: (key[0] or 0, key[1], key[2])):
        picture = _Picture(state="missing")
        if image is not None:
            place = _place(glb, image)
            if place not in pictures:
                pictures[place] = _decode(glb, image, limits)
            picture = pictures[place]
        state: MapState = picture.state
        if source in _NOT_SHOWN:
            state = "not_shown"
        elif state == "detailed" and not has_uv:
            state = "no_uv"
        covered = triangles[image, source, has_uv]
        maps.append(BaseColourMap(image, source, picture.width, picture.height, state, covered))
    return tuple(maps)


def largest_image(glb: Glb, limits: InspectLimits) -> int:
    """Pixels of the file's largest image, 0 without images; headers are read, no pixels decoded.

    Raises GlbRefused if an image's bytes are missing or its size exceeds the limits.
    """
    sizes: dict[tuple[str, int], int] = {}
    total = num_bytes = 0
    for index in range(len(glb.gltf.images or [])):
        place = _place(glb, index)
        if place not in sizes:
            data = glb.image(index)
            num_bytes += len(data)
            # Reading them all must stay linear in the file.
            if num_bytes > 2 * glb.num_bytes:
                raise GlbRefused("malformed", "the images overlap in the file")
            width, height = _size(data, index, limits)
            sizes[place] = width * height
        total += sizes[place]
        if total > limits.max_total_pixels:
            text = f"more than {limits.max_total_pixels} pixels of images"
            raise GlbRefused("too_large", text)
    return max(sizes.values(), default=0)


def _place(glb: Glb, image: int) -> tuple[str, int]:
    """Where the bytes of an image lie: several images may share them."""
    view = glb.item(glb.gltf.images, image, "image").buffer_view
    return ("image", image) if view is None else ("view", view)


def _material(glb: Glb, index: int) -> Material:
    return glb.item(glb.gltf.materials, index, "material")


def _base_colour(material: Material) -> TextureInfo | None:
    """The texture that Blender's importer connects to the base colour."""
    gloss = material.extension("KHR_materials_pbrSpecularGlossiness")
    if gloss is not None and material.extension("KHR_materials_unlit") is None:
        diffuse = gloss.get("diffuseTexture")
        return None if diffuse is None else _texture_info(diffuse)
    pbr = material.pbr_metallic_roughness
    return None if pbr is None else pbr.base_color_texture


def _texture_info(value: Any) -> TextureInfo:
    try:
        return TextureInfo.model_validate(value)
    except pydantic.ValidationError:
        raise GlbRefused("malformed", "diffuseTexture is no texture reference") from None


def _uv_set(info: TextureInfo) -> int:
    moved = (info.extension("KHR_texture_transform") or {}).get("texCoord")
    return moved if type(moved) is int else info.tex_coord or 0


def _source(glb: Glb, info: TextureInfo) -> tuple[int | None, str]:
    """The image of a texture and where the texture names it."""
    texture = glb.item(glb.gltf.textures, info.index, "texture")
    if texture.source is not None:
        glb.item(glb.gltf.images, texture.source, "image")
        return texture.source, "core"
    for name in _SOURCES:
        source = (texture.extension(name) or {}).get("source")
        if source is not None:
            if type(source) is not int:
                raise GlbRefused("malformed", f"{name}: source is no index")
            glb.item(glb.gltf.images, source, "image")
            return source, name
    return None, "core"


def _size(data: memoryview, index: int, limits: InspectLimits) -> tuple[int, int]:
    """Width and height by the image's header; 0, 0 if it is none of the allowed formats."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            width, height = picture.size
    except _BOMBS:
        raise _too_many_pixels(index, "more than Pillow's limit", limits) from None
    except _DECODE_ERRORS:
        return 0, 0
    if width * height > limits.max_image_pixels:
        raise _too_many_pixels(index, f"{width} x {height}", limits)
    return width, height


def _too_many_pixels(index: int, size: str, limits: InspectLimits) -> GlbRefused:
    text = f"image {index} has {size} pixels; the limit is {limits.max_image_pixels}"
    return GlbRefused("too_large", text)


def _decode(glb: Glb, index: int, limits: InspectLimits) -> _Picture:
    """Decode an image whose header was found to be within the limits."""
    data = glb.image(index)
    width, height = _size(data, index, limits)
    if width * height == 0:
        return _Picture()
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            # A large JPEG decodes at a fraction of its size, and still reads all of its bytes.
            picture.draft(None, (256, 256))
            picture.load()
            ranges = np.array(picture.convert("RGB").getextrema())
    except _BOMBS:
        raise _too_many_pixels(index, "more than Pillow's limit", limits) from None
    except _DECODE_ERRORS:
        return _Picture(width, height, "unreadable")
    return _Picture(
        width, height, "detailed" if np.ptp(ranges, axis=1).max() > _FLAT_LEVELS else "flat"
    )
