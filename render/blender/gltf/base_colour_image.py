"""The image that shows the base colour of a material, and how its sampler continues it."""

from collections.abc import Mapping
from dataclasses import dataclass

from glb.document import Document, Item
from glb.shown_materials import BASE_COLOUR_TEXTURES, image_of_texture, texture_slots

__all__ = ["REPEAT", "BaseColourImage", "base_colour_images"]

REPEAT = 10497
"""glTF's default of wrapS and wrapT."""


@dataclass(frozen=True, kw_only=True)
class BaseColourImage:
    """The use of an image by a material."""

    image: int
    """Index in the file."""
    slot: Item
    """The JSON object in the material that names the texture."""
    wrap_s: int
    wrap_t: int


def base_colour_images(
    document: Document, materials: Mapping[int, Item]
) -> Mapping[int, BaseColourImage]:
    """Return the image of each base colour by material."""
    images = {}
    for number, material in materials.items():
        for name, slot in texture_slots(material):
            if name in BASE_COLOUR_TEXTURES:
                images[number] = _image(document, slot)
    return images


def _image(document: Document, slot: Item) -> BaseColourImage:
    texture = document.item("textures", slot["index"])
    index = texture.get("sampler")
    sampler = {} if index is None else document.item("samplers", index)
    return BaseColourImage(
        image=image_of_texture(document, slot),
        slot=slot,
        wrap_s=sampler.get("wrapS") or REPEAT,
        wrap_t=sampler.get("wrapT") or REPEAT,
    )
