"""The materials of a document: what a picture shows of them, and where their images are.

Blender's importer loads images that no ray ever meets, draws a texture without an image in magenta,
and takes an image that serves as colour and as data for data alone.
"""

import copy
from collections.abc import Iterator, Sequence

from render.blender.failure import SceneFailure
from render.blender.gltf.container import Container
from render.blender.gltf.document import Item, extension, index, item, items, reference
from render.blender.gltf.images import image_size, is_cut_off

__all__ = ["GLOSSINESS", "prepare_materials"]

GLOSSINESS = "glossiness"
"""The custom property of a Blender material whose roughness is still to be connected."""

_UNLIT = "KHR_materials_unlit"
_GLOSSY = "KHR_materials_pbrSpecularGlossiness"
_EMISSION = "KHR_materials_emissive_strength"
_LIT = frozenset(
    (
        _EMISSION,
        "KHR_materials_anisotropy",
        "KHR_materials_clearcoat",
        "KHR_materials_ior",
        "KHR_materials_sheen",
        "KHR_materials_specular",
        "KHR_materials_transmission",
        "KHR_materials_volume",
    )
)
"""What Blender's importer reads of a metallic-rough material."""
_WEBP = "EXT_texture_webp"
_DEFAULT: Item = {"name": "none", "pbrMetallicRoughness": {"metallicFactor": 0.0}}
"""For primitives without a material. glTF would have a metal, Blender a grey that no file asks for.
"""
_DATA = frozenset(
    (
        "anisotropyTexture",
        "clearcoatNormalTexture",
        "clearcoatRoughnessTexture",
        "clearcoatTexture",
        "metallicRoughnessTexture",
        "normalTexture",
        "thicknessTexture",
        "transmissionTexture",
    )
)
"""Textures whose values are no colours."""


def prepare_materials(container: Container, primitives: Sequence[Item], max_pixels: int) -> None:
    """Reduce the materials of the primitives to what is shown, and see that their images are there.

    Raises SceneFailure: `unsupported_extension` or `import_error` for a texture without an image
    that Blender reads, `too_large` for more than `max_pixels` by the images' headers.
    """
    document = container.document
    slots = []
    for material in _used_materials(document, primitives):
        _reduce(material)
        slots += [(name, slot, _find_image(document, slot)) for name, slot in _slots(material)]
    pixels = 0
    for image in dict.fromkeys(image for _, _, image in slots):
        data = container.image(image)
        if is_cut_off(data):
            raise SceneFailure("import_error", f"image {image} is cut off")
        width, height = image_size(data) or (0, 0)
        pixels += width * height
    if pixels > max_pixels:
        raise SceneFailure("too_large", f"{pixels} texture pixels, more than {max_pixels}")
    _part_colour_from_data(document, slots)


def _used_materials(document: Item, primitives: Sequence[Item]) -> list[Item]:
    """The materials of all primitives, each once; those without one get a matt white one."""
    bare = [primitive for primitive in primitives if index(primitive, "material") is None]
    if bare:
        document["materials"] = [*items(document, "materials"), copy.deepcopy(_DEFAULT)]
    for primitive in bare:
        primitive["material"] = len(document["materials"]) - 1
    for primitive in primitives:
        # The other variants' materials would be loaded, but not shown.
        (reference(primitive, "extensions") or {}).pop("KHR_materials_variants", None)
    used = dict.fromkeys(primitive["material"] for primitive in primitives)
    return [item(document, "materials", number) for number in used]


def _reduce(material: Item) -> None:
    """Drop what the importer loads for nothing, such as occlusion: light makes its own."""
    material.pop("extras", None)
    material.pop("occlusionTexture", None)
    metallic_rough = reference(material, "pbrMetallicRoughness")
    if extension(material, _UNLIT) is not None:
        kept = {_UNLIT}
        for name in ("normalTexture", "emissiveTexture", "emissiveFactor"):
            material.pop(name, None)
        if metallic_rough is not None:
            metallic_rough.pop("metallicRoughnessTexture", None)
    elif (glossy := extension(material, _GLOSSY)) is not None:
        kept = {_GLOSSY, _EMISSION}
        material.pop("pbrMetallicRoughness", None)
        _put_off_glossiness(material, glossy)
    else:
        kept = set(_LIT)
    extensions = reference(material, "extensions") or {}
    material["extensions"] = {name: extensions[name] for name in extensions if name in kept}


def _put_off_glossiness(material: Item, glossy: Item) -> None:
    """Keep the importer from computing a second image of the glossiness, 2 s for 4096 x 4096."""
    factor = glossy.get("glossinessFactor", 1)
    if glossy.get("specularGlossinessTexture") is not None and isinstance(factor, int | float):
        glossy["glossinessFactor"] = 0
        material["extras"] = {GLOSSINESS: float(factor)}


def _slots(material: Item) -> Iterator[tuple[str, Item]]:
    """The name of every texture of a material, and the object that refers to it."""
    extensions = reference(material, "extensions") or {}
    parts = [material, reference(material, "pbrMetallicRoughness")]
    parts += [reference(extensions, name) for name in extensions]
    for part in parts:
        for name in part or {}:
            if name.endswith("Texture") and part is not None:
                slot = reference(part, name)
                if slot is not None:
                    yield name, slot


def _find_image(document: Item, slot: Item) -> int:
    """The index of the image that Blender shows for a texture."""
    number = slot.get("index")
    texture = item(document, "textures", number)
    source = index(texture, "source")
    if source is None:
        source = index(extension(texture, _WEBP) or {}, "source")
    if source is None:
        others = ", ".join(sorted(reference(texture, "extensions") or {}))
        if others:
            message = f"texture {number} has an image only by {others[:80]}, which Blender lacks"
            raise SceneFailure("unsupported_extension", message)
        raise SceneFailure("import_error", f"texture {number} has no image")
    item(document, "images", source)
    return source


def _part_colour_from_data(document: Item, slots: Sequence[tuple[str, Item, int]]) -> None:
    """Give data an image of its own where the same one is shown as a colour, too."""
    colours = {image for name, _, image in slots if name not in _DATA}
    copies: dict[int, int] = {}
    for name, slot, image in slots:
        if name not in _DATA or image not in colours:
            continue
        images, textures = items(document, "images"), items(document, "textures")
        if image not in copies:
            images.append(dict(images[image]))
            copies[image] = len(images) - 1
        textures.append(textures[slot["index"]] | {"source": copies[image]})
        slot["index"] = len(textures) - 1
