"""What counts as the object in a file: its surfaces, at rest, in its default scene."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from render.process import BlenderProcess, RenderFailure
from render.settings import RenderConfig
from tests.render.bodies import Box, edit_glb, letter_block, look_at_boxes, write_boxes

SIZE = 96
FRONT = Camera(
    camera_to_world=look_at(np.array([0.6, -2.5, 0.8])), intrinsics=intrinsics_from_fov(50)
)
CONFIG = RenderConfig(resolution=SIZE, samples=1, denoise=False)


@pytest.fixture
def glb(tmp_path: Path) -> Path:
    """A block of one's own, to be changed."""
    return write_boxes(tmp_path / "block.glb", letter_block())


def shows_the_block(blender: BlenderProcess, glb: Path) -> None:
    blender.open(glb, "cube")
    views, _ = blender.render([FRONT], CONFIG)
    seen = look_at_boxes(letter_block(), FRONT, SIZE)
    inner = seen.inner & (seen.face >= 0)
    np.testing.assert_allclose(views.depth[0][inner], seen.depth[inner], atol=4e-3)


def put(values: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(values.astype("<f4").tobytes()).decode()
    return {
        "uri": f"data:application/octet-stream;base64,{data}",
        "byteLength": 4 * values.size,
    }


def animate(document: dict[str, Any]) -> None:
    """The first box flies away, from the very first frame on."""
    start = len(document["bufferViews"])
    times, moves = np.array([0.0, 1.0]), np.array([[5.0, 0, 0], [9.0, 0, 0]])
    buffers = document["buffers"]
    for values, kind in ((times, "SCALAR"), (moves, "VEC3")):
        view, accessor = len(document["bufferViews"]), len(document["accessors"])
        document["bufferViews"].append({"buffer": len(buffers), "byteLength": 4 * values.size})
        buffers.append(put(values))
        document["accessors"].append(
            {"bufferView": view, "componentType": 5126, "count": 2, "type": kind}
        )
        if kind == "SCALAR":
            document["accessors"][-1] |= {"min": [0.0], "max": [1.0]}
    assert len(document["bufferViews"]) == start + 2
    document["animations"] = [
        {
            "channels": [{"sampler": 0, "target": {"node": moved, "path": "translation"}}],
            "samplers": [{"input": accessor - 1, "output": accessor}],
        }
        for moved in document["scenes"][0]["nodes"][:1]
    ]


def test_nodes_stay_where_the_file_puts_them(blender: BlenderProcess, glb: Path):
    shows_the_block(blender, edit_glb(glb, animate))


def test_weights_stay_as_the_file_sets_them(blender: BlenderProcess, glb: Path):
    """A morph target that the file does not apply does not show, whatever an animation does."""

    def morph(document: dict[str, Any]) -> None:
        animate(document)
        mesh = document["meshes"][0]
        primitive = mesh["primitives"][0]
        primitive["targets"] = [{"POSITION": primitive["attributes"]["POSITION"]}]
        mesh["weights"] = [0.0]
        weights = len(document["accessors"])
        document["bufferViews"].append({"buffer": len(document["buffers"]), "byteLength": 8})
        document["buffers"].append(put(np.array([1.0, 1.0])))
        document["accessors"].append(
            {
                "bufferView": len(document["bufferViews"]) - 1,
                "componentType": 5126,
                "count": 2,
                "type": "SCALAR",
            }
        )
        animation = document["animations"][0]
        animation["channels"][0]["target"]["path"] = "weights"
        animation["samplers"][0]["output"] = weights

    shows_the_block(blender, edit_glb(glb, morph))


@pytest.mark.parametrize("what", ["light", "camera", "empty"])
def test_children_of_lights_and_cameras_stay_in_place(
    blender: BlenderProcess, tmp_path: Path, what: str
):
    glb = write_boxes(tmp_path / "block.glb", letter_block(), shift=(0.0, 0.0, 3.0))

    def hang_below(document: dict[str, Any]) -> None:
        # glTF's y is up: the parent lifts down again what was written three units too high.
        parent: dict[str, Any] = {"translation": [0, -3, 0]}
        if what == "light":
            parent["extensions"] = {"KHR_lights_punctual": {"light": 0}}
            lamp = {"type": "point", "color": [0, 1, 0], "intensity": 1e5}
            document["extensions"] = {"KHR_lights_punctual": {"lights": [lamp]}}
            document["extensionsUsed"] = ["KHR_lights_punctual"]
        elif what == "camera":
            parent["camera"] = 0
            lens = {"yfov": 0.5, "znear": 0.1}
            document["cameras"] = [{"type": "perspective", "perspective": lens}]
        roots = document["scenes"][0]["nodes"]
        parent["children"] = roots[:1]
        document["nodes"].append(parent)
        for moved in roots[1:]:
            node = document["nodes"][moved]
            node["translation"] = [0, -3, 0]
            node.pop("matrix", None)
        document["scenes"][0]["nodes"] = [len(document["nodes"]) - 1, *roots[1:]]

    shows_the_block(blender, edit_glb(glb, hang_below))
    # Neither measuring nor rendering takes away what hangs below the file's camera.
    blender.measure([FRONT], num_points=1000)
    views, _ = blender.render([FRONT], CONFIG)
    block = views.rgba[0][(views.rgba[0, ..., 3] == 255)][:, :3].astype(int)
    assert (block[:, 1] - block[:, 0] < 20).all()  # the green lamp is out


def test_only_the_default_scene_is_the_object(blender: BlenderProcess, glb: Path):
    def second_scene(document: dict[str, Any]) -> None:
        document["nodes"].append({"mesh": 0, "scale": [50, 50, 50]})
        document["scenes"].insert(0, {"nodes": [len(document["nodes"]) - 1]})
        document["scene"] = 1

    shows_the_block(blender, edit_glb(glb, second_scene))


def test_instances_count_each(blender: BlenderProcess, glb: Path):
    def twice(document: dict[str, Any]) -> None:
        document["nodes"].append({"mesh": 0, "translation": [0, 2, 0]})
        document["scenes"][0]["nodes"].append(len(document["nodes"]) - 1)

    report = blender.open(edit_glb(glb, twice), "cube")
    assert report.num_triangles == 12 * (len(letter_block()) + 1)
    # From -0.3 to 2.3 in z: taller than the block is wide.
    assert report.scale == pytest.approx(2 / 2.6, rel=1e-4)


def texture(document: dict[str, Any], image: dict[str, Any]) -> None:
    document["images"] = [image]
    document["textures"] = [{"source": 0}]
    for material in document["materials"]:
        material["pbrMetallicRoughness"] |= {
            "baseColorFactor": [1, 1, 1, 1],
            "baseColorTexture": {"index": 0},
        }


def test_a_texture_that_cannot_be_read_is_no_magenta_object(blender: BlenderProcess, glb: Path):
    broken = base64.b64encode(b"\x89PNG\r\n\x1a\n broken").decode()

    def break_texture(document: dict[str, Any]) -> None:
        texture(document, {"uri": f"data:image/png;base64,{broken}"})

    with pytest.raises(RenderFailure, match="texture") as caught:
        blender.open(edit_glb(glb, break_texture), "cube")
    assert caught.value.kind == "import_error"


def test_no_other_file_is_looked_at(blender: BlenderProcess, glb: Path):
    Image.new("RGB", (8, 8), "blue").save(glb.parent / "secret.png")

    def refer(document: dict[str, Any]) -> None:
        texture(document, {"uri": "secret.png"})

    with pytest.raises(RenderFailure, match=r"secret\.png") as caught:
        blender.open(edit_glb(glb, refer), "cube")
    assert caught.value.kind == "refused"


def test_large_textures_are_scaled_down(blender: BlenderProcess, glb: Path):
    """A fine checkerboard becomes one grey when its texture is scaled down to 16 pixels."""
    tiles = np.indices((256, 256)).sum(axis=0) % 2 * 255
    png = io.BytesIO()
    Image.fromarray(tiles.astype(np.uint8)).convert("RGB").save(png, "PNG")
    image = {"uri": f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"}

    def checkerboard(document: dict[str, Any]) -> None:
        texture(document, image)
        for mesh in document["meshes"]:
            for primitive in mesh["primitives"]:
                primitive["attributes"]["TEXCOORD_0"] = _texture_coordinates(document, primitive)

    edit_glb(glb, checkerboard)
    seen = look_at_boxes(letter_block(), FRONT, SIZE)
    front = seen.inner & (seen.face == 2)
    contrast = []
    for side in (4096, 16):
        report = blender.open(glb, "cube")
        assert report.num_texture_pixels == 256 * 256
        config = RenderConfig(resolution=SIZE, samples=1, denoise=False, texture_size=side)
        views, _ = blender.render([FRONT], config)
        contrast.append(views.rgba[0][front][:, 0].astype(float).std())
    assert contrast[0] > 2 * contrast[1]


def _texture_coordinates(document: dict[str, Any], primitive: dict[str, Any]) -> int:
    count = document["accessors"][primitive["attributes"]["POSITION"]]["count"]
    values = np.random.default_rng(0).random((count, 2))
    document["bufferViews"].append({"buffer": len(document["buffers"]), "byteLength": 8 * count})
    document["buffers"].append(put(values))
    document["accessors"].append(
        {
            "bufferView": len(document["bufferViews"]) - 1,
            "componentType": 5126,
            "count": count,
            "type": "VEC2",
        }
    )
    return len(document["accessors"]) - 1


@pytest.mark.parametrize("opacity", [0.3, 0.7])
def test_half_transparent_surfaces_are_there_or_not(
    blender: BlenderProcess, tmp_path: Path, opacity: float
):
    """Depth and normals show the first surface that is more than half opaque; alpha shows both."""
    pane = Box((-1, -0.7, -1), (1, -0.69, 1), (200, 200, 255))
    behind = Box((-0.5, -0.2, -0.5), (0.5, 0.7, 0.5), (150, 150, 150))
    glb = write_boxes(tmp_path / "pane.glb", [pane, behind])

    def thin_out(document: dict[str, Any]) -> None:
        material = document["materials"][document["meshes"][0]["primitives"][0]["material"]]
        material["pbrMetallicRoughness"]["baseColorFactor"] = [0.8, 0.8, 1, opacity]
        material["alphaMode"] = "BLEND"

    blender.open(edit_glb(glb, thin_out), "cube")
    config = RenderConfig(resolution=SIZE, samples=16, denoise=False)
    seen = look_at_boxes([pane, behind] if opacity > 0.5 else [behind], FRONT, SIZE)
    alone = look_at_boxes([pane], FRONT, SIZE)
    glass = alone.inner & (alone.face >= 0) & (look_at_boxes([behind], FRONT, SIZE).face < 0)
    for _ in range(2):  # what is done to the materials for depth is undone for colour
        views, _ = blender.render([FRONT], config)
        np.testing.assert_allclose(views.depth[0][seen.inner], seen.depth[seen.inner], atol=4e-3)
        np.testing.assert_allclose(
            views.normals[0][seen.inner], seen.normals[seen.inner], atol=0.02
        )
        # Two sides of the pane lie one behind the other.
        found = views.rgba[0, ..., 3][glass].mean() / 255
        assert found == pytest.approx(1 - (1 - opacity) ** 2, abs=0.03)
