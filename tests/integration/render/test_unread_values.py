"""Values that Blender's importer ignores or replaces by defaults do not change the picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from render.process import BlenderProcess
from render.render_config import RenderConfig
from tests.support.gltf_builder import GltfBuilder
from tests.support.small_glbs import skinned_square

CAMERA = Camera(camera_to_world=look_at(np.array([1, -3.0, 1])), intrinsics=intrinsics_from_fov(50))
CONFIG = RenderConfig(resolution=64, samples=2, denoise=False)


def square() -> GltfBuilder:
    """Return a skinned square with a morph target."""
    builder = skinned_square()
    builder.document["scenes"][0]["nodes"].pop()
    builder.document["nodes"].pop()
    material = builder.document["materials"][0]
    material["pbrMetallicRoughness"] |= {"baseColorFactor": [1, 1, 1, 1]}
    return builder


def save(builder: GltfBuilder, folder: Path) -> Path:
    return builder.save(folder / "square.glb")


def picture(blender: BlenderProcess, glb: Path) -> np.ndarray:
    blender.open(glb, "cube")
    views, _ = blender.render([CAMERA], CONFIG)
    return views.rgba


@pytest.fixture(scope="module")
def plain(blender: BlenderProcess, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    rgba = picture(blender, save(square(), tmp_path_factory.mktemp("plain")))
    assert 0.1 < (rgba[..., 3] > 0).mean() < 0.9
    return rgba


def odd_joints(builder: GltfBuilder) -> None:
    """Add a joint of an unused vertex, joints without weights, a joint without a bind matrix."""
    document = builder.document
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    for name, index in attributes.items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        start, size = view["byteOffset"], view["byteLength"]
        spare = b"\t" * (size // 4) if name == "JOINTS_0" else bytes(size // 4)
        stored = builder.binary[start : start + size]
        more = {"bufferView": builder.view(stored + spare), "count": 5}
        attributes[name] = builder.add("accessors", accessor | more)
    target = builder.accessor(np.ones((5, 3)))
    document["meshes"][0]["primitives"][0]["targets"][0]["POSITION"] = target
    attributes["JOINTS_1"] = builder.accessor([[9] * 4] * 5, "|u1")
    document["skins"][0]["joints"].append(builder.node())


def odd_arrays(builder: GltfBuilder) -> None:
    """Add skin attributes to a mesh without a skin, and normals to a morph target."""
    primitive = builder.document["meshes"][0]["primitives"][0]
    del builder.document["nodes"][2]["skin"]
    primitive["attributes"]["JOINTS_0"] = builder.accessor(np.zeros(4))
    primitive["targets"][0]["NORMAL"] = builder.accessor(np.zeros((4, 4)))


def odd_values(builder: GltfBuilder) -> None:
    """Set empty lists for defaults, colours with too many values, a camera by name."""
    document = builder.document
    document["nodes"][2] |= {"translation": [], "rotation": [], "scale": [], "camera": "main"}
    material = document["materials"][0]
    material["emissiveFactor"] = []
    material["pbrMetallicRoughness"]["baseColorFactor"] = [1] * 5
    builder.add("materials", {"emissiveFactor": [1]})


def odd_names(builder: GltfBuilder) -> None:
    for group in ("nodes", "meshes", "materials", "skins", "images", "accessors"):
        for item in builder.document[group]:
            item["name"] = "\0"


@pytest.mark.parametrize("change", [odd_joints, odd_arrays, odd_values, odd_names])
def test_ignored_values_do_not_change_the_picture(
    blender: BlenderProcess,
    plain: np.ndarray,
    tmp_path: Path,
    change: Callable[[GltfBuilder], None],
):
    builder = square()
    change(builder)
    np.testing.assert_array_equal(picture(blender, save(builder, tmp_path)), plain)
