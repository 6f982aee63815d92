"""The types of a glTF 2.0 document, as tables: as strict as Blender's importer.

A check takes a value and returns the problem with it, after the path to where it is: an empty
string if there is none. As in the importer, `null` is the same as nothing.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.failures import FailureKind
from glb.glb_error import GlbError

__all__ = ["DOCUMENT", "EXTENSIONS", "MATERIAL_EXTENSIONS", "SHOWN_MATERIAL"]

Check = Callable[[Any], str]

_MAX_ITEMS = 250_000
"""Items of one list: every item costs far more memory and time than its bytes of JSON."""


def _index(value: Any) -> str:
    return "" if type(value) is int and value >= 0 else ": not an index"


def _integer(value: Any) -> str:
    return "" if type(value) is int else ": not an integer"


def _number(value: Any) -> str:
    # Integers of any length compare exactly; not a number compares as false.
    finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
    return "" if finite else ": not a finite number"


def _switch(value: Any) -> str:
    return "" if type(value) is bool else ": not true or false"


def _text(value: Any) -> str:
    return "" if type(value) is str else ": not a text"


def _name(value: Any) -> str:
    # Blender raises an error for a name with a null character.
    return _text(value) or (": a name with a null character" if "\0" in value else "")


@dataclass(frozen=True)
class Items:
    """A list; `least` is the number of items that the importer reads without a check."""

    check: Check
    least: int = 0

    def __call__(self, value: Any) -> str:
        """Return the problem of a value. Raises GlbError (`too_large`) for an endless list."""
        if type(value) is not list:
            return ": not a list"
        if len(value) > _MAX_ITEMS:
            raise GlbError(FailureKind.TOO_LARGE, f"JSON: a list of {len(value)} items")
        if len(value) < self.least:
            return f": {len(value)} items instead of {self.least}"
        for place, item in enumerate(value):
            problem = self.check(item)
            if problem:
                return f".{place}{problem}"
        return ""


@dataclass(frozen=True)
class Entries:
    """An object with any keys, such as the attributes of a primitive."""

    check: Check

    def __call__(self, value: Any) -> str:
        """Return the problem of a value."""
        if type(value) is not dict:
            return ": not an object"
        problems = ((name, self.check(item)) for name, item in value.items())
        return next((f".{name[:40]!r}{problem}" for name, problem in problems if problem), "")


def _anything(value: Any) -> str:  # noqa: ARG001 - a check like the others
    return ""


_EXTENSIONS = Entries(Entries(_anything))


@dataclass(frozen=True)
class Object:
    """An object with known fields; others are ignored. Any may have a name and extensions."""

    fields: Mapping[str, Check]
    required: frozenset[str] = field(default=frozenset())

    def __call__(self, value: Any) -> str:
        """Return the problem of a value."""
        if type(value) is not dict:
            return ": not an object"
        for name, check in self.fields.items():
            item = value.get(name)
            if item is not None:
                problem = check(item)
                if problem:
                    return f".{name}{problem}"
            elif name in self.required:
                return f".{name}: missing"
        return ""

    def pick(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of a valid object with its known fields only."""
        picked = {}
        for name, check in self.fields.items():
            item = value.get(name)
            if item is not None:
                picked[name] = check.pick(item) if isinstance(check, Object) else item
        return picked


def _object(required: str = "", **fields: Check) -> Object:
    common: dict[str, Check] = {"name": _name, "extensions": _EXTENSIONS}
    return Object(common | fields, frozenset(required.split()))


def _material(texture: Check) -> Object:
    metallic_roughness = _object(
        baseColorFactor=_FOUR,
        baseColorTexture=texture,
        metallicFactor=_number,
        metallicRoughnessTexture=texture,
        roughnessFactor=_number,
    )
    return _object(
        alphaCutoff=_number,
        alphaMode=_text,
        doubleSided=_switch,
        emissiveFactor=_THREE,
        emissiveTexture=texture,
        normalTexture=texture,
        occlusionTexture=texture,
        pbrMetallicRoughness=metallic_roughness,
    )


_INDICES = Items(_index)
_TWO, _THREE, _FOUR = Items(_number, 2), Items(_number, 3), Items(_number, 4)
_TEXTURE_FIELDS: dict[str, Check] = {
    "index": _index,
    "texCoord": _index,
    "scale": _number,
    "strength": _number,
}
_TRANSFORM = Object({"offset": _TWO, "rotation": _number, "scale": _TWO, "texCoord": _index})
_TEXTURE = _object("index", **_TEXTURE_FIELDS)
_SHOWN_TEXTURE = Object(
    _TEXTURE_FIELDS | {"extensions": Object({"KHR_texture_transform": _TRANSFORM})},
    frozenset({"index"}),
)

_SPARSE = _object(
    "count indices values",
    count=_index,
    indices=_object(
        "bufferView componentType", bufferView=_index, byteOffset=_index, componentType=_integer
    ),
    values=_object("bufferView", bufferView=_index, byteOffset=_index),
)
_ACCESSOR = _object(
    "componentType count type",
    bufferView=_index,
    byteOffset=_index,
    componentType=_integer,
    count=_index,
    type=_text,
    normalized=_switch,
    sparse=_SPARSE,
    max=Items(_number),
    min=Items(_number),
)
_BUFFER_VIEW = _object(
    "buffer byteLength",
    buffer=_index,
    byteLength=_index,
    byteOffset=_index,
    byteStride=_index,
    target=_integer,
)
_PRIMITIVE = _object(
    "attributes",
    attributes=Entries(_index),
    indices=_index,
    material=_index,
    mode=_index,
    targets=Items(Entries(_index)),
)
_NODE = _object(
    camera=_integer,
    children=_INDICES,
    mesh=_index,
    skin=_index,
    matrix=Items(_number, 16),
    translation=_THREE,
    rotation=_FOUR,
    scale=_THREE,
    weights=Items(_number),
)
_SAMPLER = _object(magFilter=_integer, minFilter=_integer, wrapS=_integer, wrapT=_integer)

DOCUMENT = Object(
    {
        "asset": Object({"version": _text}, frozenset({"version"})),
        "scene": _index,
        "scenes": Items(_object(nodes=_INDICES)),
        "nodes": Items(_NODE),
        "meshes": Items(
            _object("primitives", primitives=Items(_PRIMITIVE), weights=Items(_number))
        ),
        "skins": Items(
            _object(
                "joints",
                joints=Items(_index, 1),
                skeleton=_index,
                inverseBindMatrices=_index,
            )
        ),
        "accessors": Items(_ACCESSOR),
        "bufferViews": Items(_BUFFER_VIEW),
        "buffers": Items(_object("byteLength", byteLength=_index, uri=_text)),
        "images": Items(_object(bufferView=_index, mimeType=_text, uri=_text)),
        "samplers": Items(_SAMPLER),
        "textures": Items(_object(sampler=_index, source=_index)),
        "materials": Items(_material(_TEXTURE)),
        "animations": Items(Entries(_anything)),
        "extensionsUsed": Items(_text),
        "extensionsRequired": Items(_text),
    },
    frozenset({"asset"}),
)
"""A whole document, without what no still picture shows: cameras, and the inside of animations."""

SHOWN_MATERIAL = _material(_SHOWN_TEXTURE)
"""A material that the scene shows: of it, Blender reads the texture transforms as well."""

MATERIAL_EXTENSIONS: dict[str, Object] = {
    "KHR_materials_unlit": Object({}),
    "KHR_materials_pbrSpecularGlossiness": Object(
        {
            "diffuseFactor": _FOUR,
            "diffuseTexture": _SHOWN_TEXTURE,
            "specularFactor": _THREE,
            "glossinessFactor": _number,
            "specularGlossinessTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_emissive_strength": Object({"emissiveStrength": _number}),
    "KHR_materials_anisotropy": Object(
        {
            "anisotropyStrength": _number,
            "anisotropyRotation": _number,
            "anisotropyTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_clearcoat": Object(
        {
            "clearcoatFactor": _number,
            "clearcoatTexture": _SHOWN_TEXTURE,
            "clearcoatRoughnessFactor": _number,
            "clearcoatRoughnessTexture": _SHOWN_TEXTURE,
            "clearcoatNormalTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_ior": Object({"ior": _number}),
    "KHR_materials_sheen": Object(
        {
            "sheenColorFactor": _THREE,
            "sheenColorTexture": _SHOWN_TEXTURE,
            "sheenRoughnessFactor": _number,
            "sheenRoughnessTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_specular": Object(
        {
            "specularFactor": _number,
            "specularTexture": _SHOWN_TEXTURE,
            "specularColorFactor": _THREE,
            "specularColorTexture": _SHOWN_TEXTURE,
        }
    ),
    "KHR_materials_transmission": Object(
        {"transmissionFactor": _number, "transmissionTexture": _SHOWN_TEXTURE}
    ),
    "KHR_materials_volume": Object(
        {
            "thicknessFactor": _number,
            "thicknessTexture": _SHOWN_TEXTURE,
            "attenuationDistance": _number,
            "attenuationColor": _THREE,
        }
    ),
}
"""What Blender's importer reads of a material's extensions."""

EXTENSIONS = MATERIAL_EXTENSIONS | {
    "EXT_mesh_gpu_instancing": Object(
        {"attributes": Object({"TRANSLATION": _index, "ROTATION": _index, "SCALE": _index})},
        frozenset({"attributes"}),
    ),
    "KHR_draco_mesh_compression": Object(
        {"bufferView": _index, "attributes": Entries(_index)},
        frozenset({"bufferView", "attributes"}),
    ),
    "MSFT_lod": Object({"ids": _INDICES}),
    "KHR_node_visibility": Object({}),
    "EXT_texture_webp": Object({"source": _index}),
    "KHR_texture_basisu": Object({"source": _index}),
    "MSFT_texture_dds": Object({"source": _index}),
}
"""What is read of all extensions."""
