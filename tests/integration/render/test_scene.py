"""The object of a file: the surfaces of its default scene, in the stored pose."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.cameras import Camera, intrinsics_from_fov, look_at, unproject
from render.process import BlenderProcess, RenderFailure
from render.render_config import RenderConfig
from tests.support.analytic_shapes import (
    Box,
    cast_rays_at_boxes,
    edit_glb,
    letter_block,
    write_boxes,
)
from tests.support.gltf_builder import GltfBuilder

SIZE = 96
FRONT = Camera(
    camera_to_world=look_at(np.array([0.6, -2.5, 0.8])), intrinsics=intrinsics_from_fov(50)
)
CONFIG = RenderConfig(resolution=SIZE, samples=1, denoise=False)
STRAIGHT = Camera(
    camera_to_world=look_at(np.array([0, -3.0, 0])), intrinsics=intrinsics_from_fov(50)
)
RED, GREEN, BLUE = (1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)


@pytest.fixture
def glb(tmp_path: Path) -> Path:
    """Write a letter block, which a test may change."""
    return write_boxes(tmp_path / "block.glb", letter_block())


def assert_shows_block(blender: BlenderProcess, glb: Path) -> None:
    blender.open(glb, "cube")
    views, _ = blender.render([FRONT], CONFIG)
    expected = cast_rays_at_boxes(letter_block(), FRONT, SIZE)
    inner = expected.inner & (expected.face >= 0)
    np.testing.assert_allclose(views.depth[0][inner], expected.depth[inner], atol=4e-3)


def data_buffer(values: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(values.astype("<f4").tobytes()).decode()
    return {
        "uri": f"data:application/octet-stream;base64,{data}",
        "byteLength": 4 * values.size,
    }


def animate(document: dict[str, Any]) -> None:
    """Add an animation that moves the first box away, from the first frame on."""
    start = len(document["bufferViews"])
    times, moves = np.array([0.0, 1.0]), np.array([[5.0, 0, 0], [9.0, 0, 0]])
    buffers = document["buffers"]
    for values, kind in ((times, "SCALAR"), (moves, "VEC3")):
        view, accessor = len(document["bufferViews"]), len(document["accessors"])
        document["bufferViews"].append({"buffer": len(buffers), "byteLength": 4 * values.size})
        buffers.append(data_buffer(values))
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


def test_animations_do_not_move_nodes(blender: BlenderProcess, glb: Path):
    assert_shows_block(blender, edit_glb(glb, animate))


def test_animations_do_not_change_morph_weights(blender: BlenderProcess, glb: Path):
    """A morph target of weight zero has no effect, even if an animation sets the weight."""

    def morph(document: dict[str, Any]) -> None:
        animate(document)
        mesh = document["meshes"][0]
        primitive = mesh["primitives"][0]
        primitive["targets"] = [{"POSITION": primitive["attributes"]["POSITION"]}]
        mesh["weights"] = [0.0]
        weights = len(document["accessors"])
        document["bufferViews"].append({"buffer": len(document["buffers"]), "byteLength": 8})
        document["buffers"].append(data_buffer(np.array([1.0, 1.0])))
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

    assert_shows_block(blender, edit_glb(glb, morph))


@pytest.mark.parametrize("kind", ["light", "camera", "empty"])
def test_children_of_lights_and_cameras_stay_in_place(
    blender: BlenderProcess, tmp_path: Path, kind: str
):
    glb = write_boxes(tmp_path / "block.glb", letter_block(), shift=(0.0, 0.0, 3.0))

    def hang_below(document: dict[str, Any]) -> None:
        # glTF's y axis points up: the parent moves the block down by the three units of `shift`.
        parent: dict[str, Any] = {"translation": [0, -3, 0]}
        if kind == "light":
            parent["extensions"] = {"KHR_lights_punctual": {"light": 0}}
            lamp = {"type": "point", "color": [0, 1, 0], "intensity": 1e5}
            document["extensions"] = {"KHR_lights_punctual": {"lights": [lamp]}}
            document["extensionsUsed"] = ["KHR_lights_punctual"]
        elif kind == "camera":
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

    assert_shows_block(blender, edit_glb(glb, hang_below))
    # Measuring and rendering keep the children of the file's camera.
    blender.measure([FRONT], num_points=1000)
    views, _ = blender.render([FRONT], CONFIG)
    block = views.rgba[0][(views.rgba[0, ..., 3] == 255)][:, :3].astype(int)
    assert (block[:, 1] - block[:, 0] < 20).all()  # the green light has no effect


def test_only_the_default_scene_is_the_object(blender: BlenderProcess, glb: Path):
    def second_scene(document: dict[str, Any]) -> None:
        document["nodes"].append({"mesh": 0, "scale": [50, 50, 50]})
        document["scenes"].insert(0, {"nodes": [len(document["nodes"]) - 1]})
        document["scene"] = 1

    assert_shows_block(blender, edit_glb(glb, second_scene))


def test_every_instance_is_counted(blender: BlenderProcess, glb: Path):
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


def test_an_unreadable_texture_is_an_import_error(blender: BlenderProcess, glb: Path):
    broken = base64.b64encode(b"\x89PNG\r\n\x1a\n broken").decode()

    def break_texture(document: dict[str, Any]) -> None:
        texture(document, {"uri": f"data:image/png;base64,{broken}"})

    with pytest.raises(RenderFailure, match="baseColorTexture") as caught:
        blender.open(edit_glb(glb, break_texture), "cube")
    assert caught.value.kind == "import_error"


def test_no_other_file_is_read(blender: BlenderProcess, glb: Path):
    Image.new("RGB", (8, 8), "blue").save(glb.parent / "secret.png")

    def refer(document: dict[str, Any]) -> None:
        texture(document, {"uri": "secret.png"})

    with pytest.raises(RenderFailure, match=r"secret\.png") as caught:
        blender.open(edit_glb(glb, refer), "cube")
    assert caught.value.kind == "external_reference"


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
    expected = cast_rays_at_boxes(letter_block(), FRONT, SIZE)
    front = expected.inner & (expected.face == 2)
    contrast = []
    for side in (4096, 16):
        report = blender.open(glb, "cube")
        assert report.num_texture_pixels == 256 * 256
        config = RenderConfig(resolution=SIZE, samples=16, denoise=False, texture_size=side)
        views, _ = blender.render([FRONT], config)
        contrast.append(views.rgba[0][front][:, 0].astype(float).std())
    assert contrast[0] > 2 * contrast[1]


def _texture_coordinates(document: dict[str, Any], primitive: dict[str, Any]) -> int:
    count = document["accessors"][primitive["attributes"]["POSITION"]]["count"]
    values = np.random.default_rng(0).random((count, 2))
    document["bufferViews"].append({"buffer": len(document["buffers"]), "byteLength": 8 * count})
    document["buffers"].append(data_buffer(values))
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
def test_surfaces_over_half_opacity_are_in_depth_and_normals(
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
    expected = cast_rays_at_boxes([pane, behind] if opacity > 0.5 else [behind], FRONT, SIZE)
    alone = cast_rays_at_boxes([pane], FRONT, SIZE)
    glass = alone.inner & (alone.face >= 0) & (cast_rays_at_boxes([behind], FRONT, SIZE).face < 0)
    for _ in range(2):  # materials changed for depth are restored for colour
        views, _ = blender.render([FRONT], config)
        np.testing.assert_allclose(
            views.depth[0][expected.inner], expected.depth[expected.inner], atol=4e-3
        )
        np.testing.assert_allclose(
            views.normals[0][expected.inner], expected.normals[expected.inner], atol=0.02
        )
        # A ray passes two sides of the pane.
        shown_opacity = views.rgba[0, ..., 3][glass].mean() / 255
        assert shown_opacity == pytest.approx(1 - (1 - opacity) ** 2, abs=0.03)


def visible_bounds(blender: BlenderProcess, glb: Path) -> dict[str, np.ndarray]:
    """Return the bounds of red, green and blue surfaces seen from the front, in the file's units.

    Each is [[x, y, z], [x, y, z]], low and high, in world axes (y is depth). A pixel is 0.03 wide.
    """
    report = blender.open(glb, "cube")
    views, _ = blender.render([STRAIGHT], CONFIG)
    points = unproject(STRAIGHT, views.depth[0]) / report.scale + np.array(report.centre)
    bounds = {}
    rgb = views.rgba[0, ..., :3].astype(int)
    for channel, name in enumerate(("red", "green", "blue")):
        others = np.delete(rgb, channel, axis=-1).max(axis=-1)
        visible = points[(views.depth[0] > 0) & (rgb[..., channel] > others + 40)]
        if len(visible):
            bounds[name] = np.array([visible.min(axis=0), visible.max(axis=0)])
    return bounds


def assert_at(bounds: np.ndarray, x: tuple[float, float], z: tuple[float, float], y: float) -> None:
    """Check the bounds of a rectangle seen from the front, within a pixel and a half."""
    np.testing.assert_allclose(bounds[:, 0], x, atol=0.05)
    np.testing.assert_allclose(bounds[:, 2], z, atol=0.05)
    np.testing.assert_allclose(bounds[:, 1], y, atol=0.02)


def skinned(turn: float = 0.0, joint_scale: float = 1.0) -> GltfBuilder:
    """Return a red stripe on two joints, the upper one turned by `turn` degrees, and a blue square.

    The stripe is 0.4 wide and 1 high, upright from the origin. The bind matrices cancel the scale
    of the joints.
    """
    builder = GltfBuilder()
    stripe = builder.quad(builder.material(RED), corners=((-0.2, 0), (0.2, 1)))
    attributes = builder.document["meshes"][stripe]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = builder.accessor([[0] * 4, [0] * 4, [1, 0, 0, 0], [1, 0, 0, 0]], "|u1")
    attributes["WEIGHTS_0"] = builder.accessor([[1, 0, 0, 0]] * 4)
    to_bind = np.stack([np.diag([1 / joint_scale] * 3 + [1]) for _ in range(2)])
    to_bind[1, 1, 3] = -0.5 / joint_scale
    half = np.radians(turn) / 2
    lower = builder.node(scale=[joint_scale] * 3)
    upper = builder.node(
        parent=lower,
        translation=[0, 0.5 / joint_scale, 0],
        rotation=[0, 0, np.sin(half), np.cos(half)],
    )
    matrices = builder.accessor(to_bind.transpose(0, 2, 1).reshape(2, 16))
    builder.add("skins", {"joints": [lower, upper], "inverseBindMatrices": matrices})
    # glTF ignores the transform of a skinned mesh's node.
    builder.node(mesh=stripe, skin=0, translation=[5, 5, 5])
    builder.node(mesh=builder.quad(builder.material(BLUE), corners=((0.5, 0), (0.9, 1)), z=0.1))
    return builder


@pytest.mark.parametrize("joint_scale", [1.0, 0.01])
def test_a_skinned_mesh_is_placed_by_its_joints(
    blender: BlenderProcess, tmp_path: Path, joint_scale: float
):
    bounds = visible_bounds(blender, skinned(joint_scale=joint_scale).save(tmp_path / "skin.glb"))
    assert_at(bounds["red"], x=(-0.2, 0.2), z=(0, 1), y=0)
    assert_at(bounds["blue"], x=(0.5, 0.9), z=(0, 1), y=-0.1)


@pytest.mark.parametrize("joint_scale", [1.0, 0.01])
def test_a_skinned_mesh_has_the_stored_pose(
    blender: BlenderProcess, tmp_path: Path, joint_scale: float
):
    """The upper joint turns to the left about (0, 0.5): (0.2, 1) moves to (-0.5, 0.7)."""
    builder = skinned(turn=90.0, joint_scale=joint_scale)
    bounds = visible_bounds(blender, builder.save(tmp_path / "skin.glb"))
    assert_at(bounds["red"], x=(-0.5, 0.2), z=(0, 0.7), y=0)
    assert_at(bounds["blue"], x=(0.5, 0.9), z=(0, 1), y=-0.1)


@pytest.mark.parametrize("owner", ["mesh", "node"])
def test_stored_morph_weights_move_the_surface(blender: BlenderProcess, tmp_path: Path, owner: str):
    builder = GltfBuilder()
    mesh = builder.quad(builder.material(RED), corners=((0, 0), (1, 1)))
    shift = builder.accessor([[2, 0, 0]] * 4)
    builder.document["meshes"][mesh]["primitives"][0]["targets"] = [{"POSITION": shift}]
    builder.document["meshes"][mesh]["weights"] = [0.5 if owner == "mesh" else 0.0]
    builder.node(mesh=mesh, **({"weights": [0.5]} if owner == "node" else {}))
    builder.node(mesh=builder.quad(builder.material(BLUE), corners=((0, 0), (0.5, 1))))
    bounds = visible_bounds(blender, builder.save(tmp_path / "morph.glb"))
    assert_at(bounds["red"], x=(1, 2), z=(0, 1), y=0)
    assert_at(bounds["blue"], x=(0, 0.5), z=(0, 1), y=0)


@pytest.mark.parametrize("required", [False, True])
def test_gpu_instances_are_drawn_and_counted(
    blender: BlenderProcess, tmp_path: Path, required: bool
):
    builder = GltfBuilder()
    mesh = builder.quad(builder.material(RED), corners=((-0.25, -0.25), (0.25, 0.25)))
    attributes = {
        "TRANSLATION": builder.accessor([[-0.75, 0, 0], [0.75, 0, 0], [0, 0.5, 0]]),
        "SCALE": builder.accessor([[1, 1, 1], [1, 1, 1], [2, 2, 2]]),
    }
    builder.node(mesh=mesh, extensions={"EXT_mesh_gpu_instancing": {"attributes": attributes}})
    name = ["EXT_mesh_gpu_instancing"]
    glb = builder.save(tmp_path / "copies.glb", required=name if required else (), used=name)
    assert_at(visible_bounds(blender, glb)["red"], x=(-1, 1), z=(-0.25, 1), y=0)
    report = blender.open(glb, "cube")
    assert report.num_triangles == 6
    assert report.scale == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("how", ["scale", "matrix", "parent"])
def test_mirrored_nodes(blender: BlenderProcess, tmp_path: Path, how: str):
    """The letter is mirrored, but no surface is turned inside out."""
    glb = write_boxes(tmp_path / "block.glb", letter_block())

    def mirror(document: dict[str, Any]) -> None:
        mirrored: dict[str, Any] = {"scale": [-1, 1, 1]}
        if how == "matrix":
            mirrored = {"matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}
        roots = document["scenes"][0]["nodes"]
        if how == "parent":
            document["nodes"].append(mirrored | {"children": roots})
            document["scenes"][0]["nodes"] = [len(document["nodes"]) - 1]
            return
        for root in roots:
            document["nodes"][root].pop("matrix", None)
            document["nodes"][root] |= mirrored

    boxes = [
        Box((-box.high[0], *box.low[1:]), (-box.low[0], *box.high[1:]), box.colour)
        for box in letter_block()
    ]
    blender.open(edit_glb(glb, mirror), "cube")
    views, _ = blender.render([FRONT], CONFIG)
    expected = cast_rays_at_boxes(boxes, FRONT, SIZE)
    inner = expected.inner & (expected.face >= 0)
    np.testing.assert_allclose(views.depth[0][inner], expected.depth[inner], atol=4e-3)
    np.testing.assert_allclose(views.normals[0][inner], expected.normals[inner], atol=0.02)
    rgb = views.rgba[0, ..., :3].astype(int)
    red = rgb[..., 0] - rgb[..., 1] > 60
    assert (red == (expected.face >= 6))[inner].mean() > 0.98  # one sample blurs the edges


def test_normals_against_the_winding_order_are_flipped(blender: BlenderProcess, tmp_path: Path):
    """Some exporters write inverted normals, with which Cycles shows no light."""
    builder = GltfBuilder()
    quad = builder.document["meshes"][builder.quad(builder.material((0.8, 0.8, 0.8, 1)))]
    turned = builder.accessor([[0, 0, -1]] * 4)
    quad["primitives"][0]["attributes"]["NORMAL"] = turned
    builder.node(mesh=0)
    blender.open(builder.save(tmp_path / "turned.glb"), "cube")
    views, _ = blender.render([STRAIGHT], CONFIG)
    hit = views.depth[0] > 0
    assert hit.mean() > 0.2
    np.testing.assert_allclose(views.normals[0][hit], [(0, -1, 0)] * hit.sum(), atol=1e-3)
    assert np.median(views.rgba[0][hit][:, :3]) > 150


def test_an_object_too_far_from_the_origin_is_refused(blender: BlenderProcess, tmp_path: Path):
    builder = GltfBuilder()
    mesh = builder.quad(corners=((-1.3, -1.3), (1.3, 1.3)))
    builder.node(mesh=mesh, translation=[1e16, 1e5, 1e-9])
    with pytest.raises(RenderFailure, match="too far from the origin") as caught:
        blender.open(builder.save(tmp_path / "far.glb"), "cube")
    assert caught.value.kind == "refused"


def two_squares(**nodes: dict[str, Any]) -> GltfBuilder:
    """Return a red square and a larger green one in front, as roots; `nodes` sets node values."""
    builder = GltfBuilder()
    for name, colour, side in (("red", RED, 1), ("green", GREEN, 3)):
        corners = ((-side, -side), (side, side))
        mesh = builder.quad(builder.material(colour), corners=corners, z=0.5 * side)
        builder.node(mesh=mesh, **nodes.get(name, {}))
    return builder


def assert_shows_only_red(blender: BlenderProcess, glb: Path) -> None:
    bounds = visible_bounds(blender, glb)
    assert set(bounds) == {"red"}
    assert_at(bounds["red"], x=(-1, 1), z=(-1, 1), y=-0.5)
    report = blender.open(glb, "cube")
    assert (report.num_triangles, report.scale) == (2, pytest.approx(1.0))


@pytest.mark.parametrize(("required", "listed"), [(False, False), (True, False), (True, True)])
def test_hidden_nodes_and_their_descendants_are_excluded(
    blender: BlenderProcess, tmp_path: Path, required: bool, listed: bool
):
    """Holds also if the scene lists a child of the hidden node."""
    builder = two_squares()
    hidden = builder.node(extensions={"KHR_node_visibility": {"visible": False}})
    builder.document["nodes"][hidden]["children"] = [1]
    builder.document["scenes"][0]["nodes"] = [0, hidden, *[1] * listed]
    name = ["KHR_node_visibility"]
    glb = builder.save(tmp_path / "hidden.glb", used=name, required=name if required else ())
    assert_shows_only_red(blender, glb)


@pytest.mark.parametrize("listed", ["in no scene", "in the scene"])
def test_only_the_finest_level_of_detail_is_shown(
    blender: BlenderProcess, tmp_path: Path, listed: str
):
    builder = two_squares(red={"extensions": {"MSFT_lod": {"ids": [1]}}})
    if listed == "in no scene":
        builder.document["scenes"][0]["nodes"] = [0]
    assert_shows_only_red(blender, builder.save(tmp_path / "lod.glb", used=["MSFT_lod"]))


@pytest.mark.parametrize("which", ["second", "first of two", "only one", "none, one root"])
def test_nodes_outside_the_default_scene_are_excluded(
    blender: BlenderProcess, tmp_path: Path, which: str
):
    """Without a default scene, the first scene is used; without scenes, all roots are."""
    builder = two_squares()
    document = builder.document
    red, green = {"nodes": [0]}, {"nodes": [1]}
    if which == "second":
        document |= {"scene": 1, "scenes": [green, red]}
    elif which == "first of two":
        document["scenes"] = [red, green]
        del document["scene"]
    elif which == "only one":
        document["scenes"] = [red]
        del document["scene"]
    else:
        document["nodes"].pop()
        del document["scene"], document["scenes"]
    assert_shows_only_red(blender, builder.save(tmp_path / "scenes.glb"))


def test_without_scenes_all_roots_are_shown(blender: BlenderProcess, tmp_path: Path):
    builder = two_squares()
    del builder.document["scene"], builder.document["scenes"]
    assert blender.open(builder.save(tmp_path / "all.glb"), "cube").num_triangles == 4
