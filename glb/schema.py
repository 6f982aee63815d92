"""Tables of the types in a glTF 2.0 document.

Materials, textures, images and their bytes are as strict as Blender's importer, which reads them.
"""

from typing import Any

from glb.type_checks import (
    ANYTHING,
    INDEX,
    INTEGER,
    NUMBER,
    SWITCH,
    TEXT,
    Check,
    Entries,
    Items,
    Object,
)

__all__ = [
    "DOCUMENT",
    "EMPTY_ITEMS",
    "EXTENSIONS",
    "ITEMS",
    "MATERIAL_EXTENSIONS",
    "SHOWN_MATERIAL",
    "WEIGHTS",
]


def _object(required: str = "", **fields: Check) -> Object:
    """Return the type of an item that Blender's importer reads."""
    extensions = Entries(Entries(ANYTHING))
    return Object({"extensions": extensions, **fields}, frozenset(required.split()), {"name": TEXT})


def _geometry(required: str = "", **fields: Check) -> Object:
    """Return the type of an item that only this parser reads."""
    return Object({"extensions": Entries(ANYTHING), **fields}, frozenset(required.split()))


def _material(texture: Check, colour: Check, colour_and_alpha: Check) -> Object:
    metallic_roughness = _object(
        baseColorFactor=colour_and_alpha,
        baseColorTexture=texture,
        metallicFactor=NUMBER,
        metallicRoughnessTexture=texture,
        roughnessFactor=NUMBER,
    )
    return _object(
        alphaCutoff=NUMBER,
        alphaMode=TEXT,
        doubleSided=SWITCH,
        emissiveFactor=colour,
        emissiveTexture=texture,
        normalTexture=texture,
        occlusionTexture=texture,
        pbrMetallicRoughness=metallic_roughness,
    )


_INDICES = Items(INDEX)
_NUMBERS, _TWO = Items(NUMBER), Items(NUMBER, 2)
_THREE, _FOUR = Items(NUMBER, 3, or_empty=True), Items(NUMBER, 4, or_empty=True)
_COLOUR = Items(NUMBER, 3, 3)
_TEXTURE_FIELDS: dict[str, Check] = {
    "index": INDEX,
    "texCoord": INDEX,
    "scale": NUMBER,
    "strength": NUMBER,
}
_TRANSFORM = Object({"offset": _TWO, "rotation": NUMBER, "scale": _TWO, "texCoord": INDEX})
_TEXTURE = _object("index", **_TEXTURE_FIELDS)
_SHOWN_TEXTURE = Object(
    _TEXTURE_FIELDS | {"extensions": Object({"KHR_texture_transform": _TRANSFORM})},
    frozenset({"index"}),
)

_SPARSE_INDICES = _geometry(
    "bufferView componentType", bufferView=INDEX, byteOffset=INDEX, componentType=INTEGER
)
_SPARSE = _geometry(
    "count indices values",
    count=INDEX,
    indices=_SPARSE_INDICES,
    values=_geometry("bufferView", bufferView=INDEX, byteOffset=INDEX),
)
_ACCESSOR = _geometry(
    "componentType count type",
    bufferView=INDEX,
    byteOffset=INDEX,
    componentType=INTEGER,
    count=INDEX,
    type=TEXT,
    normalized=SWITCH,
    sparse=_SPARSE,
)
_BUFFER_VIEW = _object(
    "buffer byteLength",
    buffer=INDEX,
    byteLength=INDEX,
    byteOffset=INDEX,
    byteStride=INDEX,
)
_PRIMITIVE = _geometry(
    "attributes",
    attributes=Entries(ANYTHING),
    indices=INDEX,
    material=INDEX,
    mode=INDEX,
    targets=Items(Entries(ANYTHING)),
)
WEIGHTS: Check = _NUMBERS
"""The weights of morph targets; they are checked for meshes that have targets."""
_NODE = Object(
    {
        "extensions": Entries(ANYTHING),
        "children": _INDICES,
        "mesh": INDEX,
        "skin": INDEX,
        "matrix": Items(NUMBER, 16),
        "translation": _THREE,
        "rotation": _FOUR,
        "scale": _THREE,
    },
    loose={"weights": WEIGHTS},
)
_MESH = Object({"primitives": Items(_PRIMITIVE)}, frozenset({"primitives"}), {"weights": WEIGHTS})
_SAMPLER = _object(magFilter=INTEGER, minFilter=INTEGER, wrapS=INTEGER, wrapT=INTEGER)

DOCUMENT = Object(
    {
        "asset": Object({"version": TEXT}, frozenset({"version"})),
        "scene": INDEX,
        "extensionsRequired": Items(TEXT),
    },
    frozenset({"asset"}),
)
"""The parts of a document that every picture needs."""

ITEMS: dict[str, Object] = {
    "scenes": Object({"nodes": _INDICES}),
    "nodes": _NODE,
    "meshes": _MESH,
    "skins": _geometry("joints", joints=Items(INDEX, 1), inverseBindMatrices=INDEX),
    "accessors": _ACCESSOR,
    "bufferViews": _BUFFER_VIEW,
    "buffers": _object("byteLength", byteLength=INDEX, uri=TEXT),
    "images": _object(bufferView=INDEX, mimeType=TEXT, uri=TEXT),
    "samplers": _SAMPLER,
    "textures": _object(sampler=INDEX, source=INDEX),
    "materials": _material(_TEXTURE, _NUMBERS, _NUMBERS),
}
"""The items of the document's lists, which are checked when something uses them."""

EMPTY_ITEMS: dict[str, dict[str, Any]] = {name: {} for name in ITEMS} | {
    "meshes": {"primitives": []},
    "skins": {"joints": []},
    "accessors": {"componentType": 5126, "count": 0, "type": "SCALAR"},
    "bufferViews": {"buffer": 0, "byteLength": 0},
    "buffers": {"byteLength": 0},
}
"""What replaces an item that nothing uses, so that the indices of the others stay."""

SHOWN_MATERIAL = _material(_SHOWN_TEXTURE, _THREE, _FOUR)
"""A material of the scene: also checks the colours and texture transforms, which Blender reads."""

MATERIAL_EXTENSIONS: dict[str, Object] = {
    "KHR_materials_unlit": Object({}),
    "KHR_materials_pbrSpecularGlossiness": Object(
        {
            "diffuseFactor": Items(NUMBER, 4),
            "diffuseTexture": _SHOWN_TEXTURE,
            "specularFactor": _COLOUR,
            "glossinessFactor": NUMBER,
            "specularGlossinessTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_emissive_strength": Object({"emissiveStrength": NUMBER}),
    "KHR_materials_anisotropy": Object(
        {
            "anisotropyStrength": NUMBER,
            "anisotropyRotation": NUMBER,
            "anisotropyTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_clearcoat": Object(
        {
            "clearcoatFactor": NUMBER,
            "clearcoatTexture": _SHOWN_TEXTURE,
            "clearcoatRoughnessFactor": NUMBER,
            "clearcoatRoughnessTexture": _SHOWN_TEXTURE,
            "clearcoatNormalTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_ior": Object({"ior": NUMBER}),
    "KHR_materials_sheen": Object(
        {
            "sheenColorFactor": _COLOUR,
            "sheenColorTexture": _SHOWN_TEXTURE,
            "sheenRoughnessFactor": NUMBER,
            "sheenRoughnessTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_specular": Object(
        {
            "specularFactor": NUMBER,
            "specularTexture": _SHOWN_TEXTURE,
            "specularColorFactor": _COLOUR,
            "specularColorTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_transmission": Object(
        {"transmissionFactor": NUMBER, "transmissionTexture": _SHOWN_TEXTURE}
    ),
    "KHR_materials_volume": Object(
        {
            "thicknessFactor": NUMBER,
            "thicknessTexture": _SHOWN_TEXTURE,
            "attenuationDistance": NUMBER,
            "attenuationColor": _COLOUR,
        }
    ),
}
"""Fields of material extensions that Blender's importer reads."""

_COMPRESSED_VIEW = Object(
    {
        "buffer": INDEX,
        "byteOffset": INDEX,
        "byteLength": INDEX,
        "byteStride": INDEX,
        "count": INDEX,
        "mode": TEXT,
        "filter": TEXT,
    },
    frozenset({"buffer", "byteLength", "byteStride", "count", "mode"}),
)

EXTENSIONS = MATERIAL_EXTENSIONS | {
    "EXT_meshopt_compression": _COMPRESSED_VIEW,
    "KHR_meshopt_compression": _COMPRESSED_VIEW,
    "EXT_mesh_gpu_instancing": Object(
        {"attributes": Object({"TRANSLATION": INDEX, "ROTATION": INDEX, "SCALE": INDEX})},
        frozenset({"attributes"}),
    ),
    "KHR_draco_mesh_compression": Object(
        {"bufferView": INDEX, "attributes": Entries(INDEX)},
        frozenset({"bufferView", "attributes"}),
    ),
    "MSFT_lod": Object({"ids": _INDICES}),
    "EXT_texture_webp": Object({"source": INDEX}),
    "KHR_texture_basisu": Object({"source": INDEX}),
    "MSFT_texture_dds": Object({"source": INDEX}),
}
"""Fields of all extensions that the parser or the importer reads."""
