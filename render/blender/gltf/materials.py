"""The visible materials in a form that Blender's importer loads quickly and renders correctly.

The importer also loads images that nothing shows, and treats an image that serves both as colour
and as data as data only.
"""

import copy
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from core.failures import FailureKind
from glb.decoders.images import blender_image
from glb.document import Document, Item
from glb.glb_error import GlbError
from glb.image_headers import is_cut_off, is_known_format
from glb.shown_materials import (
    GLOSSY,
    image_of_texture,
    shown_material,
    texture_coordinate_set,
    texture_slots,
)
from render.blender.gltf.texture_fallbacks import drop_unreadable_textures

__all__ = ["GLOSSINESS", "ReducedMaterials", "reduce_materials"]

GLOSSINESS = "glossiness"
"""Custom property of a Blender material: the factor for `shaders.connect_glossiness`."""

_MAX_SETS = 8
"""Layers of texture coordinates that a mesh of Blender may have."""
_DEFAULT: Item = {"pbrMetallicRoughness": {"metallicFactor": 0.0}}
"""The material of primitives without one: white and matt. The default of glTF is a metal, and that
of Blender is grey."""
_DATA = frozenset(
    (
        "clearcoatNormalTexture",
        "clearcoatRoughnessTexture",
        "clearcoatTexture",
        "metallicRoughnessTexture",
        "normalTexture",
        "thicknessTexture",
        "transmissionTexture",
    )
)
"""Textures whose values are data, not colours."""


@dataclass(frozen=True)
class ReducedMaterials:
    """The materials of some primitives with only what a picture shows."""

    by_index: Mapping[int, Item]
    texture_sets: Mapping[int, Sequence[int]]
    """By index, the sets of texture coordinates that a material uses. In the reduced material, the
    number of a set is its place in this list."""
    converted: Mapping[int, bytes]
    """By index, the images that Blender reads only in this other form."""
    notes: Sequence[str]
    """One line for each texture that is left out because it cannot be read."""


def reduce_materials(
    document: Document, primitives: Sequence[Item], unreadable: Container[int] = ()
) -> ReducedMaterials:
    """Reduce the materials of the primitives to what is visible, in place.

    `unreadable` are images that Blender could not read. Raises GlbError if a base colour uses an
    image that cannot be read.
    """
    slots: list[tuple[str, Item, int]] = []
    reduced: dict[int, Item] = {}
    notes: list[str] = []
    converted: dict[int, bytes] = {}
    texture_sets: dict[int, list[int]] = {}

    def read(image: int) -> None:
        data = document.image(image)
        if image in unreadable:
            raise GlbError(FailureKind.IMPORT_ERROR, f"image {image} cannot be read")
        if not is_known_format(data):
            message = f"image {image} is not a PNG, JPEG, WebP or KTX 2"
            raise GlbError(FailureKind.IMPORT_ERROR, message)
        if is_cut_off(data):
            raise GlbError(FailureKind.IMPORT_ERROR, f"image {image} is truncated")
        if image not in converted:
            encoded = blender_image(data, document.limits)
            if encoded is not None:
                converted[image] = encoded

    for index in _used_materials(document, primitives):
        materials = document.json["materials"]
        materials[index] = reduced[index] = material = shown_material(materials[index])
        dropped = drop_unreadable_textures(document, material, read)
        notes += [f"material {index}: {note}" for note in dropped]
        _defer_glossiness(material)
        texture_sets[index] = _renumber_sets(material)
        slots += [
            (name, slot, image_of_texture(document, slot)) for name, slot in texture_slots(material)
        ]
    for image, copied in _separate_colour_and_data(document.json, slots).items():
        if image in converted:
            converted[copied] = converted[image]
    return ReducedMaterials(reduced, texture_sets, converted, notes)


def _used_materials(document: Document, primitives: Sequence[Item]) -> list[int]:
    """Return the materials of all primitives, each once; give the default to those without one."""
    bare = [primitive for primitive in primitives if primitive.get("material") is None]
    if bare:
        materials = [*document.items("materials"), copy.deepcopy(_DEFAULT)]
        document.json["materials"] = materials
        for primitive in bare:
            primitive["material"] = len(materials) - 1
    return list(dict.fromkeys(primitive["material"] for primitive in primitives))


def _renumber_sets(material: Item) -> list[int]:
    """Give the sets of texture coordinates of a material numbers from 0, in place; return the old.

    Blender has 8 layers of coordinates; a file may use any numbers. Raises GlbError for more sets.
    """
    slots = [slot for _, slot in texture_slots(material)]
    sets = sorted({texture_coordinate_set(slot) for slot in slots})
    if len(sets) > _MAX_SETS:
        message = f"a material uses {len(sets)} sets of texture coordinates, more than {_MAX_SETS}"
        raise GlbError(FailureKind.REFUSED, message)
    for slot in slots:
        number = sets.index(texture_coordinate_set(slot))
        slot.get("extensions", {}).get("KHR_texture_transform", {}).pop("texCoord", None)
        slot["texCoord"] = number
    return sets


def _defer_glossiness(material: Item) -> None:
    """Prevent the importer from computing an image of the glossiness: 2 s for 4096 x 4096."""
    glossy = material["extensions"].get(GLOSSY, {})
    if "specularGlossinessTexture" in glossy:
        material["extras"] = {GLOSSINESS: float(glossy.get("glossinessFactor", 1))}
        glossy["glossinessFactor"] = 0


def _separate_colour_and_data(
    document: Item, slots: Sequence[tuple[str, Item, int]]
) -> Mapping[int, int]:
    """Copy images that serve both as data and as colour, so that each use has its own.

    Return the index of the copy by that of the image.
    """
    colours = {image for name, _, image in slots if name not in _DATA}
    copies: dict[int, int] = {}
    for name, slot, image in slots:
        if name not in _DATA or image not in colours:
            continue
        images, textures = document["images"], document["textures"]
        if image not in copies:
            images.append(dict(images[image]))
            copies[image] = len(images) - 1
        textures.append(textures[slot["index"]] | {"source": copies[image]})
        slot["index"] = len(textures) - 1
    return copies
