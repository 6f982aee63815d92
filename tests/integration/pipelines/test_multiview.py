"""`lrm multiview` as a user runs it, and `lrm reconstruct` on its views."""

import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipelines.cli import main
from tests.support import small_lrm
from train.inference.views_file import VIEWS_FILE, write_distance
from train.models.zero123plus.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def mesh_file(tmp_path_factory):
    return small_lrm.write_file(
        small_lrm.mesh_model(), tmp_path_factory.mktemp("weights") / "mesh.safetensors"
    )


def reconstruct(*words) -> list[str]:
    return ["reconstruct", *map(str, words)]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline(0).save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    pixels = np.full((40, 60, 4), (0, 0, 255, 0), dtype=np.uint8)
    pixels[10:30, 20:50] = (200, 30, 40, 255)
    Image.fromarray(pixels).save(tmp_path / "query.png")
    return tmp_path / "query.png"


def test_one_picture_gives_six_views_and_then_a_mesh(
    pipeline, picture, mesh_file, tmp_path, capsys
):
    quick = ["--pipeline", str(pipeline), "--steps", "2", "--view-size", "32", "--json"]
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = [str(picture), "--out", str(tmp_path / folder), "--seed", str(seed)]
        assert main(["multiview", *words, *quick]) == 0
        assert json.loads(capsys.readouterr().out)["background"] == "alpha"
    views = [tmp_path / "a" / f"view-{i}.png" for i in range(6)]
    sheet = np.asarray(Image.open(tmp_path / "a" / "sheet.png"))
    assert sheet.shape == (96, 64, 3)
    for i, path in enumerate(views):
        top, left = 32 * (i // 2), 32 * (i % 2)
        tile = sheet[top : top + 32, left : left + 32]
        assert np.array_equal(np.asarray(Image.open(path)), tile)
    same, other = (Image.open(tmp_path / name / "sheet.png") for name in "bc")
    assert np.array_equal(np.asarray(same), sheet)
    assert not np.array_equal(np.asarray(other), sheet)
    query = np.asarray(Image.open(tmp_path / "a" / "query.png"))
    assert query.shape[0] == query.shape[1]
    words = reconstruct(tmp_path / "a", "--mesh", mesh_file, "--out", tmp_path / "a.obj")
    assert main([*words, *small_lrm.options(small_lrm.MESH)]) == 0
    assert trimesh.load_mesh(tmp_path / "a.obj").is_watertight


def test_a_white_object_with_alpha_is_accepted(pipeline, tmp_path, capsys):
    pixels = np.full((40, 60, 4), (255, 255, 255, 0), dtype=np.uint8)
    pixels[10:30, 20:50, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "white.png")
    words = [str(tmp_path / "white.png"), "--out", str(tmp_path / "out"), "--json"]
    quick = ["--pipeline", str(pipeline), "--steps", "1", "--view-size", "32"]
    assert main(["multiview", *words, *quick]) == 0
    assert json.loads(capsys.readouterr().out)["background"] == "alpha"


def test_the_camera_distance_of_a_pipeline_is_used_for_the_mesh(
    picture, mesh_file, tmp_path, capsys
):
    folder = tmp_path / "tuned"
    tiny_pipeline(0).save_pretrained(folder)
    write_distance(folder, 3.5)
    out = tmp_path / "out"
    words = [str(picture), "--out", str(out), "--pipeline", str(folder)]
    assert main(["multiview", *words, "--steps", "1", "--view-size", "32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["distance"] == 3.5

    def run_reconstruct(source, *more) -> dict:
        words = reconstruct(source, "--mesh", mesh_file, "--out", tmp_path / "a.ply", *more)
        assert main([*words, "--json", *small_lrm.options(small_lrm.MESH)]) == 0
        return json.loads(capsys.readouterr().out)

    from_file, from_option = run_reconstruct(out), run_reconstruct(out, "--distance", 4)
    assert (from_file["distance"], from_option["distance"]) == (3.5, 4)
    assert from_file["volume"] != from_option["volume"]
    assert run_reconstruct(out / "sheet.png")["distance"] == 3.5
    (out / VIEWS_FILE).write_text('{"distance": "far"}')
    answer = main(reconstruct(out, "--mesh", mesh_file, "--out", tmp_path / "b.ply"))
    assert answer == 2
    assert "'far' is not a valid distance" in capsys.readouterr().err


def test_multiview_refuses_bad_input(pipeline, picture, tmp_path, capsys):
    black = tmp_path / "black.png"
    Image.new("RGB", (20, 20)).save(black)
    out = ["--out", str(tmp_path / "out")]
    cases = [
        ([tmp_path / "gone.png", "--pipeline", pipeline], "no such picture"),
        ([black, "--pipeline", pipeline], "shows nothing"),
        ([picture, "--pipeline", tmp_path], "has no model_index.json"),
        ([picture, "--pipeline", pipeline, "--steps", "0"], "0 inference steps"),
        ([picture, "--pipeline", pipeline, "--view-size", "33"], "view_size 33"),
        ([picture, "--pipeline", pipeline, "--seed", str(2**64)], "64 bits"),
    ]
    for words, cause in cases:
        assert main(["multiview", *map(str, words), *out]) == 2, cause
        assert cause in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["multiview", str(picture), "--pipeline", str(pipeline), "--guidance", "nan", *out])
    assert "--guidance: must be at most" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for out in (black, black / "below"):
        command = ["multiview", str(picture), "--pipeline", str(pipeline), "--out", str(out)]
        assert main(command) == 2
        assert f"{black} is not a folder" in capsys.readouterr().err
