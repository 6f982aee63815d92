"""Materials without the textures that cannot be read."""

from collections.abc import Container, Iterator
from typing import Any

from core.failures import FailureKind
from glb.document import Document, Item
from glb.glb_error import GlbError
from glb.image_headers import is_cut_off
from glb.shown_materials import BASE_COLOUR_TEXTURES, image_of_texture, material_parts

__all__ = ["drop_unreadable_textures"]

_NO_EFFECT: dict[str, tuple[str, Any]] = {
    "anisotropyTexture": ("anisotropyStrength", 0.0),
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
    document: Document, material: Item, unreadable: Container[int]
) -> list[str]:
    """Remove, in place, the textures of a shown material whose image cannot be read.

    `unreadable` are images that a decoder has rejected; images that are missing or truncated count
    as well. Returns a note on each removed texture. Raises GlbError for the texture of a base
    colour, without which the picture would be wrong: `malformed` or `unsupported_extension` if it
    has no image, `import_error` if its image cannot be read.
    """
    notes = []
    for part, name in list(_textures(material)):
        try:
            problem = _image_problem(document, part[name], unreadable)
        except GlbError as error:
            if name in BASE_COLOUR_TEXTURES:
                raise
            problem = error.message
        if not problem:
            continue
        if name in BASE_COLOUR_TEXTURES:
            raise GlbError(FailureKind.IMPORT_ERROR, f"{name}: {problem}")
        notes.append(f"{name} is ignored: {problem}")
        del part[name]
        if name in _NO_EFFECT:
            factor, value = _NO_EFFECT[name]
            part[factor] = value
    return notes


def _textures(material: Item) -> Iterator[tuple[Item, str]]:
    for part in material_parts(material):
        yield from ((part, name) for name in part if name.endswith("Texture"))


def _image_problem(document: Document, slot: Item, unreadable: Container[int]) -> str:
    image = image_of_texture(document, slot)
    if image in unreadable:
        return f"image {image} cannot be read"
    return f"image {image} is truncated" if is_cut_off(document.image(image)) else ""
