"""Numbers and lists beyond what a glTF file needs: they are cut, rejected, or plain floats."""

import json
import math
from typing import Any

import numpy as np
import pytest

from glb.accessors import accessor_numbers
from glb.glb_error import GlbError
from glb.limits import GlbLimits
from glb.parse import Glb, read_glb
from glb.shown_materials import shown_material
from render.blender.gltf.materials import reduce_materials
from tests.support.gltf_builder import GltfBuilder
from tests.support.small_glbs import changed_square, pack_glb, pack_scene, textured_square

SQUARE, BINARY = textured_square()
PART = SQUARE["meshes"][0]["primitives"][0]


def with_number(text: str, **replaced: Any) -> Glb:
    """Read the square with these digits in place of the string `number`."""
    data = json.dumps(SQUARE | replaced).replace('"number"', text).encode()
    return read_glb(pack_glb(data, BINARY), GlbLimits())


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("9223372036854775807", int),
        ("-9223372036854775808", int),
        ("9223372036854775808", float),
        ("-9223372036854775809", float),
        ("1" + "0" * 30, float),
        ("-1" + "0" * 300, float),
    ],
)
def test_integers_beyond_64_bits_are_floats(digits: str, expected: type) -> None:
    nodes = [{"mesh": 0, "translation": ["number", 0, 0]}]
    (node,) = with_number(digits, nodes=nodes).document.items("nodes")
    (x, _, _) = node["translation"]
    assert type(x) is expected
    assert x == pytest.approx(float(digits))
    assert np.array([x, 0.5]).dtype == np.float64


@pytest.mark.parametrize("digits", ["9223372036854775808", "1" + "0" * 30, "9" * 4300, "9" * 9999])
def test_an_index_of_any_length_is_malformed(digits: str) -> None:
    instances = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 3}}}
    accessor = {"bufferView": 0, "componentType": 5126, "count": "number", "type": "VEC3"}
    accessors = [*SQUARE["accessors"], accessor]
    cases: list[dict[str, Any]] = [
        {"nodes": [{"mesh": "number"}]},
        {"nodes": [{"mesh": 0, "extensions": instances}], "accessors": accessors},
        {"scene": "number"},
    ]
    for replaced in cases:
        with pytest.raises(GlbError) as caught:
            with_number(digits, **replaced)
        assert caught.value.kind == "malformed"
        assert len(caught.value.message) < 301


def test_digits_in_a_text_or_a_fraction_are_no_integers() -> None:
    nodes = [{"mesh": 0, "name": "1" * 30, "translation": ["number", 5, 0]}]
    (node,) = with_number("0.1234567890123456789012", nodes=nodes).document.items("nodes")
    assert node["translation"] == [0.1234567890123456789012, 5, 0]
    assert type(node["translation"][1]) is int


@pytest.mark.parametrize("count", [2, 3, 2_000_000_000, 10**18])
def test_bind_matrices_without_values_take_no_memory(count: int) -> None:
    """Only those of the joints are made: two matrices of zeros."""
    builder = GltfBuilder()
    attributes = {
        "POSITION": builder.accessor(np.eye(3)),
        "JOINTS_0": builder.accessor(np.ones((3, 4)), "|u1"),
        "WEIGHTS_0": builder.accessor(np.ones((3, 4))),
    }
    matrices = builder.add("accessors", {"componentType": 5126, "count": count, "type": "MAT4"})
    builder.add("skins", {"joints": [0, 1], "inverseBindMatrices": matrices})
    mesh = builder.add("meshes", {"primitives": [{"attributes": attributes}]})
    builder.node()
    builder.node()
    builder.node(mesh=mesh, skin=0)
    sparse = {
        "count": 1,
        "indices": {"bufferView": builder.view(b"\1\0\0\0"), "componentType": 5125},
        "values": {"bufferView": builder.view(bytes(64))},
    }
    for more in ({}, {"sparse": sparse}):
        builder.document["accessors"][matrices].update(more)
        document = read_glb(pack_scene(builder), GlbLimits()).document
        assert accessor_numbers(document, matrices, 2).shape == (2, 16)
    sparse["count"] = count
    with pytest.raises(GlbError) as caught:
        read_glb(pack_scene(builder), GlbLimits())
    assert caught.value.kind in ("malformed", "too_large")


@pytest.mark.parametrize("group", ["positions", "instances"])
@pytest.mark.parametrize("count", [2_000_000_000, 10**18])
def test_other_arrays_without_values_are_too_large(group: str, count: int) -> None:
    zeros = {"componentType": 5126, "count": count, "type": "VEC3"}
    accessors = [*SQUARE["accessors"], zeros]
    instances = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 3}}}
    if group == "instances":
        changes: dict[str, Any] = {"nodes": [{"mesh": 0, "extensions": instances}]}
    else:
        changes = {"meshes": [{"primitives": [{"attributes": {"POSITION": 3}}]}]}
    with pytest.raises(GlbError) as caught:
        read_glb(changed_square(accessors=accessors, **changes), GlbLimits())
    assert caught.value.kind == "too_large"


def test_an_unneeded_attribute_of_compressed_data_may_be_anything() -> None:
    draco = {"bufferView": 0, "attributes": {"POSITION": 0, "TEXCOORD_0": 1, "TEXCOORD_5": 2}}
    for junk in ([1], {}, None, "a", -1, 1e30):
        part = PART | {"extensions": {"KHR_draco_mesh_compression": draco}}
        part["attributes"] = PART["attributes"] | {"TEXCOORD_5": junk}
        read_glb(changed_square(meshes=[{"primitives": [part]}]), GlbLimits())


def test_the_importer_receives_vectors_of_the_right_length() -> None:
    transform = {"offset": [0, 1, 2], "scale": [1, 2, 3, 4], "rotation": 1.0}
    slot = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    pbr = {"baseColorFactor": [0.5] * 9, "baseColorTexture": slot}
    material = {"pbrMetallicRoughness": pbr, "emissiveFactor": [0.25] * 5}
    glb = read_glb(changed_square(materials=[material]), GlbLimits())
    reduced = reduce_materials(glb.document, [item.primitive for item in glb.drawn]).by_index[0]
    assert reduced["emissiveFactor"] == [0.25] * 3
    assert reduced["pbrMetallicRoughness"]["baseColorFactor"] == [0.5] * 4
    written = reduced["pbrMetallicRoughness"]["baseColorTexture"]["extensions"]
    expected = {"offset": [0, 1], "scale": [1, 2], "rotation": 1.0}
    assert written == {"KHR_texture_transform": expected}
    glossy = {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0.5] * 9}}
    assert shown_material({"extensions": glossy})["extensions"] == {
        "KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0.5] * 4}
    }


def test_a_long_rotation_of_a_texture_is_a_number() -> None:
    slot = {"index": 0, "extensions": {"KHR_texture_transform": {"rotation": "number"}}}
    materials = [{"pbrMetallicRoughness": {"baseColorTexture": slot}}]
    glb = with_number("1" + "0" * 30, materials=materials)
    reduced = reduce_materials(glb.document, [item.primitive for item in glb.drawn]).by_index[0]
    written = reduced["pbrMetallicRoughness"]["baseColorTexture"]["extensions"]
    assert math.isfinite(np.cos(written["KHR_texture_transform"]["rotation"]))
