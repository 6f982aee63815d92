"""`lrm reconstruct` as a user runs it, and the mesh file as other programs read it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from PIL import Image

from core.errors import BadInput
from dataset.cameras import Camera, intrinsics_from_fov, look_at, orbit_eye
from pipelines.cli import main
from pipelines.cli.torch_options import open_device
from pipelines.evaluation.evaluate_meshes import MeshFolder
from render.render_config import RenderConfig
from tests.support import small_lrm
from tests.support.analytic_shapes import cast_rays_at_boxes, letter_block
from train.inference.families import open_model
from train.inference.family import ModelOptions
from train.inference.mesh_files import write_mesh
from train.inference.reconstruction import Shape
from train.inference.six_views import camera_tensors, input_cameras
from train.models.zero123plus.latents import tile_views

SIDE = 48


@pytest.fixture(scope="module")
def mesh_file(tmp_path_factory):
    return small_lrm.write_file(
        small_lrm.mesh_model(), tmp_path_factory.mktemp("weights") / "mesh.safetensors"
    )


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return small_lrm.write_views(tmp_path_factory.mktemp("views"))


def reconstruct(*words) -> list[str]:
    return ["reconstruct", *map(str, words)]


def test_a_folder_of_views_gives_a_mesh(mesh_file, views, tmp_path, capsys):
    out = tmp_path / "new" / "object.glb"
    words = reconstruct(views, "--mesh", mesh_file, "--out", out, "--json")
    assert main([*words, *small_lrm.options(small_lrm.MESH)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["watertight"] is True
    assert report["volume"] > 0
    mesh = trimesh.load_mesh(out, process=False)
    assert mesh.visual.kind == "vertex"
    assert (len(mesh.vertices), len(mesh.faces)) == (report["vertices"], report["faces"])
    assert [path.name for path in out.parent.iterdir()] == ["object.glb"]


def test_a_sheet_and_a_model_of_stage_1_give_a_mesh(tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    pixels = (tile_views(small_lrm.pictures())[0].movedim(0, -1) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(sheet)
    run = small_lrm.write_run(small_lrm.nerf_model(), small_lrm.NERF, tmp_path / "run")
    words = reconstruct(sheet, "--nerf", run, "--resolution", 24, "--out", tmp_path / "a.ply")
    assert main(words) == 0
    answer = capsys.readouterr()
    assert "watertight" in answer.out
    assert "NOT" not in answer.out
    assert "computing the triplanes" in answer.err
    assert trimesh.load_mesh(tmp_path / "a.ply").is_watertight


IMPORT = """
import json, sys, bpy
import numpy as np
imported = {}
for path in sys.argv[1:]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    ending = path.rpartition(".")[2]
    importer = {"glb": bpy.ops.import_scene.gltf, "obj": bpy.ops.wm.obj_import,
                "ply": bpy.ops.wm.ply_import}[ending]
    importer(filepath=path)
    (mesh,) = [item for item in bpy.context.scene.objects if item.type == "MESH"]
    positions = np.array([mesh.matrix_world @ v.co for v in mesh.data.vertices])
    colours = mesh.data.color_attributes
    srgb = [d.color_srgb[:3] for d in colours[0].data] if colours else []
    if srgb and colours[0].domain == "CORNER":
        corner = {loop.vertex_index: i for i, loop in enumerate(mesh.data.loops)}
        srgb = [srgb[corner[i]] for i in range(len(positions))]
    images = [list(image.size) for image in bpy.data.images if image.size[0]]
    colours = [list(colour) for colour in srgb]
    imported[path] = dict(positions=positions.tolist(), colours=colours, images=images)
json.dump(imported, open(sys.argv[1] + ".json", "w"))
"""


def test_blender_imports_the_same_object_from_every_format(mesh_file, tmp_path):
    """With the importers' defaults: positions in the world, sRGB colours, the texture."""
    options = {"preset": small_lrm.PRESET, "changes": small_lrm.MESH}
    model = open_model("mesh", mesh_file, ModelOptions(**options))
    shape = model.reconstruct(small_lrm.pictures(), *camera_tensors(input_cameras())).shape
    names = ["a.glb", "a.obj", "a.ply", "t.glb", "t 1.obj"]
    for name in names:
        write_mesh(shape, tmp_path / name, texture=64 if name[0] == "t" else None)
    paths = [str(tmp_path / name) for name in names]
    subprocess.run([sys.executable, "-c", IMPORT, *paths], check=True, capture_output=True)
    imported = json.loads((tmp_path / "a.glb.json").read_text())
    rgb = shape.colour(shape.vertices)
    for path in paths:
        scene = imported[path]
        positions = np.array(scene["positions"])
        assert np.allclose(positions.min(axis=0), shape.vertices.min(axis=0), atol=1e-5)
        assert np.allclose(positions.max(axis=0), shape.vertices.max(axis=0), atol=1e-5)
        if path.endswith(("t.glb", "t 1.obj")):
            assert scene["images"] == [[64, 64]]
        else:
            assert np.allclose(positions, shape.vertices, atol=1e-5)
            assert np.allclose(scene["colours"], rgb, atol=1.5 / 255)


def block_shape() -> Shape:
    """Return the block with the letter F, which differs from its mirror image."""
    meshes = [trimesh.creation.box(bounds=[box.low, box.high]) for box in letter_block()]
    mesh = trimesh.util.concatenate(meshes)
    body, letter, *_ = (np.array(box.colour, dtype=np.float32) / 255 for box in letter_block())
    return Shape(
        vertices=np.asarray(mesh.vertices, dtype=np.float32),
        faces=np.asarray(mesh.faces),
        # Only corners of the body have |x| of 0.9 or more.
        colour=lambda points: np.where(np.abs(points[:, :1]) < 0.9, letter, body),
    )


@pytest.mark.parametrize("ending", [".glb", ".obj", ".ply"])
def test_an_asymmetric_object_keeps_its_orientation_and_colours(blender, tmp_path, ending):
    """The written file renders at the position and in the colours of the object.

    It is not mirrored, not turned, and its colours are not lit a second time.
    """
    side = 96
    write_mesh(block_shape(), tmp_path / f"block{ending}")
    for azimuth in (-90, -60, 20):
        eye = orbit_eye(azimuth, 25, 3.2)
        camera = Camera(camera_to_world=look_at(eye), intrinsics=intrinsics_from_fov(50))
        rendering = MeshFolder(tmp_path, blender).render("block", [camera], "cube", side, 500, 0)
        expected = cast_rays_at_boxes(letter_block(), camera, side)
        inner = expected.inner
        assert inner.sum() > 300
        depth = rendering.views.depth[0]
        assert np.abs(depth - expected.depth)[inner & (expected.face >= 0)].max() < 5e-3
        assert not depth[inner & (expected.face < 0)].any()
        rgb = rendering.views.rgba[0, ..., :3].astype(int)
        letter = inner & (expected.face >= 6)
        body = inner & (expected.face >= 0) & (expected.face < 6)
        assert np.abs(np.median(rgb[body], axis=0) - (150, 150, 150)).max() <= 2
        if azimuth < 0:
            assert letter.sum() > 10
            assert np.abs(np.median(rgb[letter], axis=0) - (230, 20, 20)).max() <= 2


@pytest.mark.parametrize("texture", [None, 256])
def test_the_mesh_file_renders_as_the_model_does(mesh_file, blender, tmp_path, texture):
    """Compare the model's rendering of its triplanes with Blender's rendering of the file."""
    options = {"preset": small_lrm.PRESET, "changes": small_lrm.MESH}
    model = open_model("mesh", mesh_file, ModelOptions(**options))
    reconstruction = model.reconstruct(small_lrm.pictures(), *camera_tensors(input_cameras()))
    write_mesh(reconstruction.shape, tmp_path / "mesh.glb", texture=texture)
    cameras = input_cameras()[:3]
    rgb, alpha = reconstruction.render(*camera_tensors(cameras), (SIDE, SIDE))
    scene = blender.open(tmp_path / "mesh.glb", "cube")
    normalised_cameras = []
    for camera in cameras:  # Blender moved and scaled the object
        matrix = camera.camera_to_world.copy()
        matrix[:3, 3] = (matrix[:3, 3] - scene.centre) * scene.scale
        normalised_cameras.append(Camera(camera_to_world=matrix, intrinsics=camera.intrinsics))
    views, _ = blender.render(normalised_cameras, RenderConfig(resolution=SIDE))
    model_mask, file_mask = alpha[:, 0].numpy() > 0.5, views.rgba[..., 3] > 127
    assert (model_mask & file_mask).sum() / (model_mask | file_mask).sum() > 0.98
    mirrored = model_mask[:, :, ::-1]
    assert (mirrored & file_mask).sum() / (mirrored | file_mask).sum() < 0.95
    if texture is not None:
        solid = model_mask & file_mask
        difference = rgb.movedim(1, -1).numpy()[solid] - views.rgba[..., :3][solid] / 255
        assert np.abs(difference).mean() < 0.06


def test_bad_input_gives_one_line_of_error(mesh_file, views, tmp_path, capsys):
    sizes, out = small_lrm.options(small_lrm.MESH), tmp_path / "out.glb"
    model = ["--mesh", mesh_file, *sizes]
    empty = small_lrm.write_file(small_lrm.mesh_model(empty=True), tmp_path / "empty.ckpt")
    white = tmp_path / "white.png"
    Image.new("RGB", (40, 60), "white").save(white)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    few = small_lrm.write_views(tmp_path / "few")
    (few / "view-0.png").unlink()
    cases = [
        ([text, *model], "is not a picture"),
        ([few, *model], "has 5 views; a mesh needs exactly 6"),
        ([views / "view-0.png", *model], "not a sheet of 6 square views"),
        ([white, *model], "view 0 shows nothing"),
        ([tmp_path / "gone.png", *model], "no such picture"),
        ([views, "--mesh", tmp_path / "gone"], "no such checkpoint"),
        ([views, "--mesh", tmp_path], "is not a run with an intact checkpoint"),
        ([views, "--mesh", text], "no such checkpoint; give"),
        ([views, "--nerf", mesh_file], "is a model of mesh: give it as --use mesh:"),
        ([views], "give one model"),
        ([views, "--mesh", mesh_file, "--nerf", mesh_file], "give one model"),
        ([views, "--mesh", mesh_file, "--model", "7"], "give settings such as"),
        ([views, "--mesh", mesh_file, "--preset", "huge"], "preset 'huge' does not exist"),
        ([views, *model, "--device", "tpu"], "not a device"),
        ([views, *model, "--resolution", "9"], "resolution is for nerf"),
        ([views, *model, "--distance", "0.5"], "--distance 0.5"),
        ([views, *model, "--texture", "5"], "give 16 to 8192 texels"),
        ([views, "--mesh", empty, *sizes], "empty mesh"),
    ]
    for words, cause in cases:
        assert main(reconstruct(*words, "--out", out)) == 2, cause
        error = capsys.readouterr().err
        assert cause in error, error
        assert len([line for line in error.splitlines() if "error:" in line]) == 1
    assert main(reconstruct(views, *model, "--out", tmp_path / "out.stl")) == 2
    assert ".glb, .obj, .ply" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("name", ["cuda:99", "meta", "what"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(BadInput, match="--device"):
        open_device(name)
