"""Materials without the textures that cannot be read."""

from collections.abc import Callable, Iterator
from typing import Any

from glb.document import Document, Item
from glb.glb_error import GlbError
from glb.shown_materials import BASE_COLOUR_TEXTURES, image_of_texture, material_parts

__all__ = ["drop_unreadable_textures"]

_NO_EFFECT: dict[str, tuple[str, Any]] = {
    "clearcoatTexture": ("clearcoatFactor", 0.0),
    "emissiveTexture": ("emissiveFactor", [0.0, 0.0, 0.0]),
    "metallicRoughnessTexture": ("metallicFactor", 0.0),
    "sheenColorTexture": ("sheenColorFactor", [0.0, 0.0, 0.0]),
    "specularGlossinessTexture": ("specularFactor", [0.04, 0.04, 0.04]),
    "thicknessTexture": ("thicknessFactor", 0.0),
    "transmissionTexture": ("transmissionFactor", 0.0),
}
"""By texture, the factor that it multiplies and a value without an effect. Alone, the factor would
make the whole surface a lamp, a mirror or glass. 0.04 is the reflectance of plastic."""


def drop_unreadable_textures(
    document: Document, material: Item, read: Callable[[int], object]
) -> list[str]:
    """Remove, in place, the textures of a shown material whose image cannot be read.

    `read` takes an image's index and raises GlbError if the image cannot be read. Returns a note on
    each removed texture. The texture of a base colour is not removed, because the picture would be
    wrong without it: its error is raised.
    """
    notes = []
    for part, name in list(_textures(material)):
        try:
            read(image_of_texture(document, part[name]))
        except GlbError as error:
            if name in BASE_COLOUR_TEXTURES:
                raise GlbError(error.kind, f"{name}: {error.message}") from None
            notes.append(f"{name} is ignored: {error.message}")
            del part[name]
            if name in _NO_EFFECT:
                factor, value = _NO_EFFECT[name]
                part[factor] = value
    return notes


def _textures(material: Item) -> Iterator[tuple[Item, str]]:
    for part in material_parts(material):
        yield from ((part, name) for name in part if name.endswith("Texture"))
