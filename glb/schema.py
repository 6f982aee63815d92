"""Tables of the types in a glTF 2.0 document.

Numbers of materials are moved into the ranges of the specification and its extensions. Where these
have no upper limit, one keeps single precision finite.
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
    Choice,
    Entries,
    Items,
    Object,
    Range,
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
    return Object({"extensions": Entries(ANYTHING), **fields}, frozenset(required.split()))


def _material(texture: Check, emission: Check, base_colour: Check) -> Object:
    metallic_roughness = _object(
        baseColorFactor=base_colour,
        baseColorTexture=texture,
        metallicFactor=_UNIT,
        metallicRoughnessTexture=texture,
        roughnessFactor=_UNIT,
    )
    fields: dict[str, Check] = {
        "extensions": Entries(ANYTHING),
        "alphaCutoff": NUMBER,
        "doubleSided": SWITCH,
        "emissiveFactor": emission,
        "emissiveTexture": texture,
        "normalTexture": texture,
        "occlusionTexture": texture,
        "pbrMetallicRoughness": metallic_roughness,
    }
    return Object(fields, loose={"alphaMode": Choice(frozenset({"OPAQUE", "MASK", "BLEND"}))})


def _positive(value: Any) -> str:
    return NUMBER(value) or ("" if value > 0 else ": not above 0")


def _vector(check: Check, size: int, or_empty: bool = True) -> Items:
    """Return the check of a vector, of which Blender's importer reads the first `size` numbers."""
    return Items(check, size, or_empty=or_empty, max_picked=size)


_INDICES, _NUMBERS = Items(INDEX), Items(NUMBER)
_TWO = _vector(NUMBER, 2, or_empty=False)
_THREE, _FOUR = _vector(NUMBER, 3), _vector(NUMBER, 4)
_UNIT = Range(0, 1)
_INTENSITY = Range(0, 1e6)
"""A factor without an upper limit; a product of two is far below the limit of float32."""
_COLOUR, _INTENSE_COLOUR = Items(_UNIT, 3, 3), Items(_INTENSITY, 3, 3)
_TEXTURE_FIELDS: dict[str, Check] = {
    "index": INDEX,
    "texCoord": INDEX,
    "scale": Range(-1000, 1000),
    "strength": NUMBER,
}
_TRANSFORM = Object({"offset": _TWO, "rotation": NUMBER, "scale": _TWO, "texCoord": INDEX})
_TEXTURE = _object("index", **_TEXTURE_FIELDS)
_SHOWN_TEXTURE = Object(
    _TEXTURE_FIELDS | {"extensions": Object({"KHR_texture_transform": _TRANSFORM})},
    frozenset({"index"}),
)

_SPARSE_INDICES = _object(
    "bufferView componentType", bufferView=INDEX, byteOffset=INDEX, componentType=INTEGER
)
_SPARSE = _object(
    "count indices values",
    count=INDEX,
    indices=_SPARSE_INDICES,
    values=_object("bufferView", bufferView=INDEX, byteOffset=INDEX),
)
_ACCESSOR = _object(
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
_PRIMITIVE = _object(
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
        "matrix": _vector(NUMBER, 16, or_empty=False),
        "translation": _THREE,
        "rotation": _FOUR,
        "scale": _THREE,
    },
    loose={"weights": WEIGHTS},
)
_MESH = Object({"primitives": Items(_PRIMITIVE)}, frozenset({"primitives"}), {"weights": WEIGHTS})
_WRAP = Choice(frozenset({33071, 33648, 10497}))
"""CLAMP_TO_EDGE, MIRRORED_REPEAT, REPEAT."""
_SAMPLER = Object(
    {"extensions": Entries(ANYTHING), "magFilter": INTEGER, "minFilter": INTEGER},
    loose={"wrapS": _WRAP, "wrapT": _WRAP},
)

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
    "skins": _object("joints", joints=Items(INDEX, 1), inverseBindMatrices=INDEX),
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

SHOWN_MATERIAL = _material(_SHOWN_TEXTURE, _vector(_INTENSITY, 3), _vector(_UNIT, 4))
"""A material of the scene: also checks the colours and texture transforms, which Blender reads."""

MATERIAL_EXTENSIONS: dict[str, Object] = {
    "KHR_materials_unlit": Object({}),
    "KHR_materials_pbrSpecularGlossiness": Object(
        {
            "diffuseFactor": _vector(_UNIT, 4, or_empty=False),
            "diffuseTexture": _SHOWN_TEXTURE,
            "specularFactor": _COLOUR,
            "glossinessFactor": _UNIT,
            "specularGlossinessTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_emissive_strength": Object({"emissiveStrength": _INTENSITY}),
    "KHR_materials_clearcoat": Object(
        {
            "clearcoatFactor": _UNIT,
            "clearcoatTexture": _SHOWN_TEXTURE,
            "clearcoatRoughnessFactor": _UNIT,
            "clearcoatRoughnessTexture": _SHOWN_TEXTURE,
            "clearcoatNormalTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_ior": Object({"ior": NUMBER}),
    "KHR_materials_sheen": Object(
        {
            "sheenColorFactor": _COLOUR,
            "sheenColorTexture": _SHOWN_TEXTURE,
            "sheenRoughnessFactor": _UNIT,
            "sheenRoughnessTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_specular": Object(
        {
            "specularFactor": _UNIT,
            "specularTexture": _SHOWN_TEXTURE,
            "specularColorFactor": _INTENSE_COLOUR,
            "specularColorTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_transmission": Object(
        {"transmissionFactor": _UNIT, "transmissionTexture": _SHOWN_TEXTURE}
    ),
    "KHR_materials_volume": Object(
        {
            "thicknessFactor": _INTENSITY,
            "thicknessTexture": _SHOWN_TEXTURE,
            "attenuationColor": _COLOUR,
        },
        loose={"attenuationDistance": _positive},
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
