"""The parts of materials that a picture shows, and the images that they need."""

from collections.abc import Iterator, Sequence

from core.failures import FailureKind
from glb.decoders.ktx2 import check_ktx2
from glb.document import Document, Item, extension
from glb.extensions import BASIS, WEBP
from glb.glb_error import GlbError, malformed
from glb.image_headers import is_known_format, is_ktx2
from glb.node_tree import NodeTree
from glb.schema import EXTENSIONS, MATERIAL_EXTENSIONS, SHOWN_MATERIAL

__all__ = [
    "BASE_COLOUR_TEXTURES",
    "GLOSSY",
    "MIN_OPACITY",
    "UNLIT",
    "base_colour",
    "check_materials",
    "image_of_texture",
    "is_invisible",
    "least_opacity",
    "material_parts",
    "shown_material",
    "shown_primitives",
    "texture_coordinate_set",
    "texture_slots",
    "texture_source",
]

UNLIT = "KHR_materials_unlit"
GLOSSY = "KHR_materials_pbrSpecularGlossiness"
BASE_COLOUR_TEXTURES = frozenset({"baseColorTexture", "diffuseTexture"})
"""Textures without which a picture would be wrong; others are dropped if they cannot be read."""
_EMISSION = "KHR_materials_emissive_strength"
MIN_OPACITY = 0.5 / 255
"""Less is 0 in a picture of 8 bits."""
_CUTOFF = 0.5
"""glTF's default of alphaCutoff."""
_SOURCES = ("core", WEBP, BASIS)
"""What may name the image of a texture, in the order in which it is asked."""


def check_materials(document: Document, tree: NodeTree) -> set[int]:
    """Check the materials of visible primitives; return the images that they show.

    Raises GlbError: `malformed`, `too_large`, or `unsupported_extension` for a base colour whose
    image cannot be shown: only an unknown extension names it, or its format is unknown. Other
    textures may lack an image: the renderer leaves them out.
    """
    indices = (primitive.get("material") for primitive in shown_primitives(document, tree))
    images: set[int] = set()
    for index in sorted({index for index in indices if index is not None}):
        for name, slot in texture_slots(shown_material(document.item("materials", index))):
            try:
                images.add(_readable_image(document, slot))
            except GlbError:
                if name in BASE_COLOUR_TEXTURES:
                    raise
    return images


def _readable_image(document: Document, slot: Item) -> int:
    image = image_of_texture(document, slot)
    data = document.image(image)
    if is_ktx2(data):
        check_ktx2(data, document.limits)
    return image


def shown_primitives(document: Document, tree: NodeTree) -> list[Item]:
    """Return the primitives of all meshes that a still picture shows, grouped by mesh."""
    nodes = document.items("nodes")
    meshes = dict.fromkeys(nodes[index].get("mesh") for index in tree.shown)
    return [
        primitive
        for mesh in meshes
        if mesh is not None
        for primitive in document.item("meshes", mesh)["primitives"]
    ]


def shown_material(material: Item) -> Item:
    """Return a copy of a material with only the fields that Blender's importer uses.

    Occlusion is omitted, because the renderer computes it. Raises GlbError (`malformed`) for wrong
    types.
    """
    present = material.get("extensions") or {}
    used = {name for name in MATERIAL_EXTENSIONS if present.get(name) is not None}
    omitted = {"extensions", "occlusionTexture"}
    if UNLIT in used:
        used, omitted = {UNLIT}, omitted | {"normalTexture", "emissiveTexture", "emissiveFactor"}
    elif GLOSSY in used:
        used, omitted = used & {GLOSSY, _EMISSION}, omitted | {"pbrMetallicRoughness"}
    kept = {name: value for name, value in material.items() if name not in omitted}
    metallic_roughness = kept.get("pbrMetallicRoughness")
    if UNLIT in used and metallic_roughness is not None:
        metallic_roughness = metallic_roughness | {"metallicRoughnessTexture": None}
        kept["pbrMetallicRoughness"] = metallic_roughness
    problem = SHOWN_MATERIAL(kept)
    if problem:
        raise malformed(f"material: {problem.lstrip('.: ')}")
    extensions = {name: extension(material, name) or {} for name in sorted(used)}
    picked = {name: EXTENSIONS[name].pick(value) for name, value in extensions.items()}
    return SHOWN_MATERIAL.pick(kept) | {"extensions": picked}


def base_colour(shown: Item) -> tuple[Sequence[float], Item | None]:
    """Return the factor (RGBA) of the base or diffuse colour, and its texture's JSON object."""
    glossy = shown["extensions"].get(GLOSSY)
    if glossy is not None:
        factor, slot = glossy.get("diffuseFactor"), glossy.get("diffuseTexture")
    else:
        plain = shown.get("pbrMetallicRoughness") or {}
        factor, slot = plain.get("baseColorFactor"), plain.get("baseColorTexture")
    return factor or (1.0, 1.0, 1.0, 1.0), slot


def least_opacity(shown: Item) -> float | None:
    """Return the opacity below which a material draws nothing; None if it is always opaque."""
    mode = shown.get("alphaMode")
    if mode == "MASK":
        cutoff: float | None = shown.get("alphaCutoff")
        return _CUTOFF if cutoff is None else cutoff
    return MIN_OPACITY if mode == "BLEND" else None


def is_invisible(shown: Item) -> bool:
    """Return whether a material draws nothing, whatever its texture and vertex colours are."""
    least = least_opacity(shown)
    # Factors are written as decimal numbers, colours as bytes: 0.2 and 51/255 are the same.
    return least is not None and min(base_colour(shown)[0][3], 1.0) < least * (1 - 1e-5)


def texture_slots(shown: Item) -> Iterator[tuple[str, Item]]:
    """Yield the name of every texture of a shown material, and the JSON object that names it."""
    for part in material_parts(shown):
        yield from ((name, slot) for name, slot in part.items() if name.endswith("Texture"))


def material_parts(shown: Item) -> list[Item]:
    """Return the JSON objects of a shown material that hold factors and textures."""
    return [shown, shown.get("pbrMetallicRoughness") or {}, *shown["extensions"].values()]


def texture_coordinate_set(slot: Item) -> int:
    """Return the number of the TEXCOORD set that a texture of a material uses."""
    transform = (slot.get("extensions") or {}).get("KHR_texture_transform") or {}
    override = transform.get("texCoord")
    return override if type(override) is int else slot.get("texCoord") or 0


def image_of_texture(document: Document, slot: Item) -> int:
    """Return the index of the image that a texture shows.

    Raises GlbError: `malformed`, or `unsupported_extension` if only an unknown extension names it.
    """
    texture = document.item("textures", slot["index"])
    if texture.get("sampler") is not None:
        document.item("samplers", texture["sampler"])
    source, _ = texture_source(document, texture)
    if source is None:
        others = ", ".join(sorted(texture.get("extensions") or {}))
        if others:
            message = f"texture {slot['index']} names its image only in {others[:80]!r}"
            raise GlbError(FailureKind.UNSUPPORTED_EXTENSION, message)
        raise malformed(f"texture {slot['index']} has no image")
    return source


def texture_source(document: Document, texture: Item) -> tuple[int | None, str]:
    """Return the image that a texture shows, and what names it: `core` or an extension.

    It is the first image of a known format, else the first image; None if there is none. Raises
    GlbError (`malformed`).
    """
    unknown: tuple[int | None, str] = None, "core"
    for name in _SOURCES:
        part = texture if name == "core" else extension(texture, name) or {}
        image = part.get("source")
        if image is None:
            continue
        document.item("images", image)
        if _has_known_format(document, image):
            return image, name
        if unknown[0] is None:
            unknown = image, name
    return unknown


def _has_known_format(document: Document, image: int) -> bool:
    try:
        return is_known_format(document.image(image))
    except GlbError:
        return False
