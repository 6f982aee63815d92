"""Values of materials that glTF does not allow, but files have, mean the nearest that it allows."""

from typing import Any

import pytest

from glb.glb_error import GlbError
from glb.limits import GlbLimits
from glb.parse import read_glb
from glb.shown_materials import shown_material
from tests.support.small_glbs import changed_square, textured_square

GLOSSY = "KHR_materials_pbrSpecularGlossiness"
DOCUMENT = textured_square()[0]


def of_extension(name: str, **values: Any) -> dict[str, Any]:
    shown = shown_material({"extensions": {name: values}})
    result: dict[str, Any] = shown["extensions"][name]
    return result


@pytest.mark.parametrize(
    ("number", "expected"), [(-1, 0), (0, 0), (0.5, 0.5), (1, 1), (7, 1), (1e300, 1)]
)
def test_factors_are_between_0_and_1(number: float, expected: float):
    pbr = {"baseColorFactor": [number] * 4, "metallicFactor": number, "roughnessFactor": number}
    colour = {"baseColorFactor": [expected] * 4}
    shown = shown_material({"pbrMetallicRoughness": pbr})["pbrMetallicRoughness"]
    assert shown == colour | {"metallicFactor": expected, "roughnessFactor": expected}
    for name, field in {
        "KHR_materials_clearcoat": "clearcoatFactor",
        "KHR_materials_transmission": "transmissionFactor",
        "KHR_materials_specular": "specularFactor",
        GLOSSY: "glossinessFactor",
    }.items():
        assert of_extension(name, **{field: number}) == {field: expected}
    sheen = of_extension("KHR_materials_sheen", sheenColorFactor=[number] * 3)
    assert sheen == {"sheenColorFactor": [expected] * 3}


@pytest.mark.parametrize(("number", "expected"), [(-3, 0), (5, 5), (1e39, 1e6)])
def test_intensities_have_no_limit_but_that_of_float32(number: float, expected: float):
    shown = shown_material({"emissiveFactor": [number] * 3})
    assert shown["emissiveFactor"] == [expected] * 3
    name = "KHR_materials_emissive_strength"
    assert of_extension(name, emissiveStrength=number) == {"emissiveStrength": expected}


@pytest.mark.parametrize("distance", [0, -1, "far"])
def test_an_attenuation_distance_must_be_positive(distance: Any):
    name = "KHR_materials_volume"
    assert of_extension(name, attenuationDistance=distance) == {}
    assert of_extension(name, attenuationDistance=0.5) == {"attenuationDistance": 0.5}


@pytest.mark.parametrize("mode", ["blend", "mask", "TRANSPARENT", "", 5, []])
def test_a_material_of_an_unknown_alpha_mode_is_opaque(mode: Any):
    assert "alphaMode" not in shown_material({"alphaMode": mode})
    assert shown_material({"alphaMode": "BLEND"})["alphaMode"] == "BLEND"


@pytest.mark.parametrize("wrap", [0, 1, 10496, 33069, True, "repeat", []])
def test_an_unknown_wrap_mode_is_repeat(wrap: Any):
    textures = [{"source": 0, "sampler": 0}]
    samplers = [{"wrapS": wrap, "wrapT": 33071}]
    glb = read_glb(changed_square(textures=textures, samplers=samplers), GlbLimits())
    assert glb.document.items("samplers") == [{"wrapT": 33071}]


@pytest.mark.parametrize("value", [None, 5, [], "on"])
def test_extensions_that_are_not_known_may_be_anything(value: Any):
    assert shown_material({"extensions": {"EXT_other": value}}) == {"extensions": {}}
    known = {"extensions": {"KHR_materials_unlit": value}}
    if value is None:  # as everywhere, the same as absent
        assert shown_material(known) == {"extensions": {}}
    else:
        with pytest.raises(GlbError, match="KHR_materials_unlit"):
            shown_material(known)
