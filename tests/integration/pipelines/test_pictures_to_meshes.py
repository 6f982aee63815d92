"""Families that take one picture, as a user runs them: `lrm reconstruct`, evaluate, weights."""

import json

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from core.options import Parser
from dataset.cameras import camera_at, orbit_eye
from pipelines.cli.commands.evaluate import COMMAND
from pipelines.cli.evaluation.evaluated import _model_identity
from pipelines.evaluation.evaluate_log import file_fingerprint
from pipelines.reconstruction import reconstruct_pictures
from tests.support import small_lrm, small_pixel2mesh
from tests.support.lrm import run_lrm
from tests.support.sphere_datasets import add_sphere_geometry, write_sphere_dataset
from train.checkpoints.initial_weights import initialize
from train.inference.families import open_model
from train.inference.input_pictures import read_picture
from train.inference.query import prepare_query
from train.inference.six_views import camera_tensors, stack_views
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh
from train.models.pixel2mesh.pixel2mesh_weights import PIXEL2MESH_WEIGHTS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    model = small_pixel2mesh.random_model()
    return small_pixel2mesh.write_run(model, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def picture(tmp_path):
    return small_pixel2mesh.write_picture(tmp_path / "chair.png")


def reconstruct(run, *words):
    return run_lrm("reconstruct", "--use", f"pixel2mesh:{run}", "--device", "cpu", *words)


def expected_vertices(run, picture, *, framing=False, **camera) -> np.ndarray:
    """Return the vertices in the frame whose azimuth 0 is the camera's."""
    model = open_model("pixel2mesh", run)
    query = prepare_query(read_picture(picture), keep_framing=framing)
    values = {"elevation": 10, "distance": 2.75, "fov": 50} | camera
    eye = orbit_eye(0, values["elevation"], values["distance"])
    cameras = camera_tensors([camera_at(eye, values["fov"])])
    return model.reconstruct(stack_views([query.image], 32), *cameras).shape.vertices


def test_a_picture_gives_a_mesh_in_the_frame_of_its_camera(run, picture, tmp_path):
    out = tmp_path / "new" / "chair.ply"
    report = reconstruct(run, picture, "--out", out, "--azimuth", 0, "--json").json()
    assert report["camera"] == {"azimuth": 0, "elevation": 10, "distance": 2.75, "fov": 50}
    assert report["scale"] == pytest.approx(0.8 / 2.75)
    assert (report["vertices"], report["faces"], report["bodies"]) == (162, 320, 1)
    assert report["watertight"] is True
    assert report["background"] == "alpha"
    vertices = trimesh.load_mesh(out, process=False).vertices
    np.testing.assert_allclose(vertices, expected_vertices(run, picture), atol=1e-6)
    # By default the picture shows the front of a glTF model: the camera is on its +z, y is up.
    answer = reconstruct(run, picture, "--out", tmp_path / "a.glb")
    assert answer.code == 0
    assert "camera: azimuth -90, elevation 10, field of view 50 degrees, 2.75" in answer.out
    scene = trimesh.load_mesh(tmp_path / "a.glb", process=False)
    np.testing.assert_allclose(scene.vertices, vertices[:, [1, 2, 0]], atol=1e-6)
    # Without colours, a plain material is shaded by light.
    glb = (tmp_path / "a.glb").read_bytes()
    tree = json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])
    (material,) = tree["materials"]
    assert "extensions" not in material
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert "COLOR_0" not in tree["meshes"][0]["primitives"][0]["attributes"]
    assert b"uchar red" not in out.read_bytes()
    # The camera of the options is used, and the framing of the picture kept.
    words = ["--elevation", -20, "--fov", 30, "--distance", 5, "--azimuth", 90, "--keep-framing"]
    assert reconstruct(run, picture, "--out", tmp_path / "b.obj", *words).code == 0
    camera = {"elevation": -20, "fov": 30, "distance": 5}
    other = expected_vertices(run, picture, framing=True, **camera)
    turned = np.stack([-other[:, 1], other[:, 0], other[:, 2]], axis=1)  # by 90 degrees about z
    text = (tmp_path / "b.obj").read_text()
    assert {len(line.split()) for line in text.splitlines() if line.startswith("v ")} == {4}
    found = trimesh.load_mesh(tmp_path / "b.obj", process=False).vertices
    np.testing.assert_allclose(found, turned[:, [0, 2, 1]] * [1, 1, -1], atol=1e-5)


def test_each_of_several_pictures_gives_a_mesh_and_a_failure_costs_itself(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(reconstruct_pictures, "_SECONDS_BETWEEN_LINES", 0.0)
    pictures = [
        small_pixel2mesh.write_picture(tmp_path / "in" / "a.png"),
        tmp_path / "in" / "text.png",
        tmp_path / "gone.png",
        small_pixel2mesh.write_picture(tmp_path / "in" / "b c.webp", "green", alpha=False),
    ]
    pictures[1].write_text("no picture")
    out = tmp_path / "out"
    answer = reconstruct(run, *pictures[1:3], "--out", out)
    assert (answer.code, out.exists()) == (1, False)
    answer = reconstruct(run, *pictures, "--out", out, "--format", "ply", "--json")
    assert answer.code == 1
    assert "2 pictures failed; the first: " in answer.err
    assert "1 of 4 pictures, " in answer.err
    assert " left" in answer.err
    assert "4 of 4 pictures, 2 failed" in answer.err
    report = json.loads(answer.out)
    assert [one["out"] for one in report["meshes"]] == [str(out / "a.ply"), str(out / "b c.ply")]
    assert [one["background"] for one in report["meshes"]] == ["alpha", "plain"]
    assert list(report["failed"]) == [str(pictures[1]), str(pictures[2])]
    assert report["failed"][str(pictures[2])].startswith("no such picture")
    assert answer.err.count(str(pictures[2])) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.ply", "b c.ply"]
    # Each mesh is the one that its picture alone gives; with a format, into a folder, too.
    assert reconstruct(run, pictures[3], "--out", tmp_path / "one", "--format", "ply").code == 0
    assert (tmp_path / "one" / "b c.ply").read_bytes() == (out / "b c.ply").read_bytes()


def test_bad_input_is_refused_with_one_line_and_nothing_is_written(run, picture, tmp_path):
    other = small_pixel2mesh.write_picture(tmp_path / "other" / "chair.webp")
    text, white = tmp_path / "text.png", tmp_path / "white.png"
    text.write_text("no picture")
    Image.new("RGB", (40, 60), "white").save(white)
    mesh_run = small_lrm.write_run(small_lrm.mesh_model(), small_lrm.MESH, tmp_path / "mesh")
    views = small_lrm.write_views(tmp_path / "views")
    use, glb = ["--use", f"pixel2mesh:{run}"], tmp_path / "out.glb"
    six = ["--use", f"mesh:{mesh_run}"]
    cases = [
        ([picture, "--use", f"pixel2mash:{run}"], glb, "did you mean 'pixel2mesh'"),
        ([picture, "--use", run], glb, "give FAMILY:CHECKPOINT; the families are nerf, mesh"),
        ([picture, "--use", "pixel2mesh:"], glb, "no such checkpoint"),
        ([picture, *use, "--mesh", mesh_run], glb, "give one model"),
        ([picture, "--use", f"pixel2mesh:{mesh_run}"], glb, f"give it as --use mesh:{mesh_run}"),
        ([views, "--mesh", run], glb, f"give it as --use pixel2mesh:{run}"),
        ([picture, *use, "--texture", 64], glb, "predicts no colours"),
        ([picture, *use, "--resolution", 64], glb, "--resolution is for nerf only"),
        ([picture, *six, "--template", text], glb, "--template is for pixel2mesh only"),
        ([picture, *use, "--preset", "tiny"], glb, "leave --preset and --model out"),
        ([picture, *use, "--template", text], glb, "is no template"),
        ([picture, *use, "--distance", 0.5], glb, "--distance 0.5"),
        ([picture, *use, "--elevation", -91], glb, "--elevation -91"),
        ([picture, *use, "--fov", 0], glb, "--fov 0"),
        ([text, *use], glb, "is not a picture"),
        ([white, *use], glb, "shows nothing"),
        ([tmp_path / "gone.png", *use], glb, "no such picture"),
        ([picture, *use], tmp_path / "out.stl", ".glb, .obj, .ply"),
        ([picture, text, *use], glb, "give a folder for the meshes"),
        ([picture, other, *use], tmp_path / "out", "would both become chair.glb"),
        ([picture, picture, *use], tmp_path / "out", "would both become chair.glb"),
        ([picture, *six, "--fov", 30], glb, "--fov: mesh takes the six views"),
        ([picture, *six, "--keep-framing"], glb, "--keep-framing: mesh takes the six views"),
        ([picture, other, *six], glb, "mesh makes one mesh of six views"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for words, out, cause in cases:
        answer = run_lrm("reconstruct", *words, "--out", out)
        assert answer.code == 2, cause
        assert cause in answer.err, answer.err
        assert len([line for line in answer.err.splitlines() if "error:" in line]) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_shape_of_view_0_is_evaluated_without_pictures(run, tmp_path):
    root, snapshot = write_sphere_dataset(tmp_path / "data", ["train"] * 3, size=32)
    words = ["--root", root.uri, "--split", "all", "--use", f"pixel2mesh:{run}", "--device", "cpu"]
    words += ["--out", tmp_path / "out", "--points", 500, "--json"]
    # No pictures are compared, so the weights of LPIPS are not needed.
    words += ["--lpips.vgg", tmp_path / "gone"]
    answer = run_lrm("evaluate", *words, "--snapshot", snapshot)
    assert answer.code == 2
    assert "compares shapes, but snapshot" in answer.err
    words += ["--snapshot", add_sphere_geometry(root, snapshot, numbers=(0, 1), num_points=600)]
    answer = run_lrm("evaluate", *words)
    # The third object has nothing to be compared with.
    assert answer.code == 1
    report = json.loads(answer.out)
    assert list(report["failed"]) == [f"{2:032x}"]
    assert "no geometry" in report["failed"][f"{2:032x}"]
    assert set(report["metrics"]) == {"chamfer", "f_score", "seconds"}
    assert report["metrics"]["chamfer"]["objects"] == 2
    # The objects are different pictures, so a model that sees them gives different meshes.
    assert report["metrics"]["chamfer"]["low"] < report["metrics"]["chamfer"]["high"]
    answer = run_lrm("evaluate", *words, "--pipeline", "folder")
    assert answer.code == 2
    assert "pixel2mesh takes one picture" in answer.err


def test_rows_of_an_evaluation_are_found_however_the_model_is_named(run):
    """Earlier versions stored the path as it was given, with --mesh and --nerf alone."""
    parser = Parser()
    COMMAND.options(parser)
    names = {"nerf": None, "mesh": f"{run}/", "preset": None, "model": "{}", "resolution": None}
    for words in (["--mesh", f"{run}/"], ["--use", f"mesh:{run}/"]):
        arguments = parser.parse_args([*words, "--out", "out", "--device", "cpu"])
        assert _model_identity(arguments) == [names, [file_fingerprint(run)], "cpu"]


def test_the_weights_of_a_run_start_another_with_the_same_outputs(run, tmp_path):
    file = tmp_path / "weights.pt"
    report = run_lrm("weights", "--run", run, "--out", file, "--json").json()
    trained = small_pixel2mesh.random_model()
    assert report["tensors"] == len(trained.state_dict())
    torch.manual_seed(1)
    model = Pixel2Mesh(trained.config)
    initialize(PIXEL2MESH_WEIGHTS, model, str(file))
    inputs = torch.rand(1, 3, 32, 32), torch.tensor([[1.0, 1.0, 0.5, 0.5]])
    with torch.no_grad():
        assert torch.equal(model(*inputs).meshes[-1], trained(*inputs).meshes[-1])


def test_weights_are_written_as_the_recipe_of_the_run_does(run, tmp_path):
    mesh = small_lrm.write_run(small_lrm.mesh_model(), small_lrm.MESH, tmp_path / "mesh")
    cases = [
        ((run, "w.ckpt"), "weights are written as .pt or .safetensors"),
        ((mesh, "w.pt"), "weights are written as .ckpt or .safetensors"),
        ((run, "w.pt", "--ema"), "--ema is only for recipes that keep a moving average"),
        ((mesh, "w.ckpt", "--ema"), "--ema is only for recipes that keep a moving average"),
    ]
    for (source, name, *more), cause in cases:
        answer = run_lrm("weights", "--run", source, "--out", tmp_path / name, *more)
        assert answer.code == 2, cause
        assert cause in answer.err
        assert not (tmp_path / name).exists()
