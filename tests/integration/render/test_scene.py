"""What counts as the object in a file: its surfaces, at rest, in its default scene."""

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
from tests.support.bodies import Box, edit_glb, letter_block, look_at_boxes, write_boxes
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
    seen = look_at_boxes(letter_block(), FRONT, SIZE)
    front = seen.inner & (seen.face == 2)
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


def places(blender: BlenderProcess, glb: Path) -> dict[str, np.ndarray]:
    """Where red, green and blue surfaces are seen from the front, in units of the file.

    Low and high x, y, z in the world's axes (y is depth): [[x, y, z], [x, y, z]]. A pixel is 0.03.
    """
    report = blender.open(glb, "cube")
    views, _ = blender.render([STRAIGHT], CONFIG)
    points = unproject(STRAIGHT, views.depth[0]) / report.scale + np.array(report.centre)
    found = {}
    rgb = views.rgba[0, ..., :3].astype(int)
    for channel, name in enumerate(("red", "green", "blue")):
        others = np.delete(rgb, channel, axis=-1).max(axis=-1)
        seen = points[(views.depth[0] > 0) & (rgb[..., channel] > others + 40)]
        if len(seen):
            found[name] = np.array([seen.min(axis=0), seen.max(axis=0)])
    return found


def is_at(found: np.ndarray, x: tuple[float, float], z: tuple[float, float], y: float) -> None:
    """A rectangle seen from the front, to a pixel and a half."""
    np.testing.assert_allclose(found[:, 0], x, atol=0.05)
    np.testing.assert_allclose(found[:, 2], z, atol=0.05)
    np.testing.assert_allclose(found[:, 1], y, atol=0.02)


def skinned(turn: float = 0.0, joint_scale: float = 1.0) -> GltfBuilder:
    """A red stripe on two joints, the upper one turned by so many degrees, and a blue square.

    The stripe is modelled 0.4 wide and 1 high, upright from the origin. Scaled joints have bind
    matrices that make up for their scale.
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
    # Where the node of a skinned mesh is does not matter.
    builder.node(mesh=stripe, skin=0, translation=[5, 5, 5])
    builder.node(mesh=builder.quad(builder.material(BLUE), corners=((0.5, 0), (0.9, 1)), z=0.1))
    return builder


@pytest.mark.parametrize("joint_scale", [1.0, 0.01])
def test_skins_are_where_their_joints_put_them(
    blender: BlenderProcess, tmp_path: Path, joint_scale: float
):
    found = places(blender, skinned(joint_scale=joint_scale).save(tmp_path / "skin.glb"))
    is_at(found["red"], x=(-0.2, 0.2), z=(0, 1), y=0)
    is_at(found["blue"], x=(0.5, 0.9), z=(0, 1), y=-0.1)


@pytest.mark.parametrize("joint_scale", [1.0, 0.01])
def test_skins_take_the_pose_of_the_file(
    blender: BlenderProcess, tmp_path: Path, joint_scale: float
):
    """The upper joint is turned to the left about (0, 0.5): (0.2, 1) comes to (-0.5, 0.7)."""
    builder = skinned(turn=90.0, joint_scale=joint_scale)
    found = places(blender, builder.save(tmp_path / "skin.glb"))
    is_at(found["red"], x=(-0.5, 0.2), z=(0, 0.7), y=0)
    is_at(found["blue"], x=(0.5, 0.9), z=(0, 1), y=-0.1)


@pytest.mark.parametrize("of", ["mesh", "node"])
def test_weights_of_the_file_move_the_surface(blender: BlenderProcess, tmp_path: Path, of: str):
    builder = GltfBuilder()
    mesh = builder.quad(builder.material(RED), corners=((0, 0), (1, 1)))
    shift = builder.accessor([[2, 0, 0]] * 4)
    builder.document["meshes"][mesh]["primitives"][0]["targets"] = [{"POSITION": shift}]
    builder.document["meshes"][mesh]["weights"] = [0.5 if of == "mesh" else 0.0]
    builder.node(mesh=mesh, **({"weights": [0.5]} if of == "node" else {}))
    builder.node(mesh=builder.quad(builder.material(BLUE), corners=((0, 0), (0.5, 1))))
    found = places(blender, builder.save(tmp_path / "morph.glb"))
    is_at(found["red"], x=(1, 2), z=(0, 1), y=0)
    is_at(found["blue"], x=(0, 0.5), z=(0, 1), y=0)


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
    is_at(places(blender, glb)["red"], x=(-1, 1), z=(-0.25, 1), y=0)
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
    seen = look_at_boxes(boxes, FRONT, SIZE)
    inner = seen.inner & (seen.face >= 0)
    np.testing.assert_allclose(views.depth[0][inner], seen.depth[inner], atol=4e-3)
    np.testing.assert_allclose(views.normals[0][inner], seen.normals[inner], atol=0.02)
    rgb = views.rgba[0, ..., :3].astype(int)
    red = rgb[..., 0] - rgb[..., 1] > 60
    assert (red == (seen.face >= 6))[inner].mean() > 0.98  # one sample blurs the edges


def test_normals_that_contradict_the_corners_are_turned(blender: BlenderProcess, tmp_path: Path):
    """Cycles would show the inside's normals, and no light: exporters get them the wrong way."""
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


def test_an_object_too_far_away_to_keep_its_shape_is_refused(
    blender: BlenderProcess, tmp_path: Path
):
    builder = GltfBuilder()
    mesh = builder.quad(corners=((-1.3, -1.3), (1.3, 1.3)))
    builder.node(mesh=mesh, translation=[1e16, 1e5, 1e-9])
    with pytest.raises(RenderFailure, match="too far from the origin") as caught:
        blender.open(builder.save(tmp_path / "far.glb"), "cube")
    assert caught.value.kind == "refused"


def two_squares(**nodes: dict[str, Any]) -> GltfBuilder:
    """A red square, and a larger green one before it, each a root; values for their nodes."""
    builder = GltfBuilder()
    for name, colour, side in (("red", RED, 1), ("green", GREEN, 3)):
        corners = ((-side, -side), (side, side))
        mesh = builder.quad(builder.material(colour), corners=corners, z=0.5 * side)
        builder.node(mesh=mesh, **nodes.get(name, {}))
    return builder


def shows_only_red(blender: BlenderProcess, glb: Path) -> None:
    found = places(blender, glb)
    assert set(found) == {"red"}
    is_at(found["red"], x=(-1, 1), z=(-1, 1), y=-0.5)
    report = blender.open(glb, "cube")
    assert (report.num_triangles, report.scale) == (2, pytest.approx(1.0))


@pytest.mark.parametrize(("required", "listed"), [(False, False), (True, False), (True, True)])
def test_hidden_nodes_and_what_hangs_below_them_are_not_there(
    blender: BlenderProcess, tmp_path: Path, required: bool, listed: bool
):
    """Also if the scene lists a node below a hidden one as well."""
    builder = two_squares()
    hidden = builder.node(extensions={"KHR_node_visibility": {"visible": False}})
    builder.document["nodes"][hidden]["children"] = [1]
    builder.document["scenes"][0]["nodes"] = [0, hidden, *[1] * listed]
    name = ["KHR_node_visibility"]
    glb = builder.save(tmp_path / "hidden.glb", used=name, required=name if required else ())
    shows_only_red(blender, glb)


@pytest.mark.parametrize("listed", ["in no scene", "in the scene"])
def test_only_the_finest_level_of_detail_is_there(
    blender: BlenderProcess, tmp_path: Path, listed: str
):
    builder = two_squares(red={"extensions": {"MSFT_lod": {"ids": [1]}}})
    if listed == "in no scene":
        builder.document["scenes"][0]["nodes"] = [0]
    shows_only_red(blender, builder.save(tmp_path / "lod.glb", used=["MSFT_lod"]))


@pytest.mark.parametrize("which", ["second", "first of two", "only one", "none, one root"])
def test_what_the_default_scene_does_not_list_is_not_there(
    blender: BlenderProcess, tmp_path: Path, which: str
):
    """Without a default scene it is the first; without any scene, all roots are shown."""
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
    shows_only_red(blender, builder.save(tmp_path / "scenes.glb"))


def test_without_scenes_all_roots_are_shown(blender: BlenderProcess, tmp_path: Path):
    builder = two_squares()
    del builder.document["scene"], builder.document["scenes"]
    assert blender.open(builder.save(tmp_path / "all.glb"), "cube").num_triangles == 4
