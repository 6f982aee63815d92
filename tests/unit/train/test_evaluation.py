"""Scores against closed forms, and their summary."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from core.errors import BadInput
from render.rigs import RIGS, get_rig
from tests.support import small_lrm
from tests.support.shapes_and_pictures import pictures, sphere
from tests.support.spheres import sphere_views
from train.evaluation.generate import _first_view
from train.evaluation.metrics import psnr, ssim
from train.evaluation.predict import azimuth_of, choose_inputs, make_views, predict
from train.evaluation.scores import (
    Cloud,
    Pictures,
    score_pictures,
    score_surface,
    score_views,
)
from train.evaluation.summary import interval, summarise, write_objects
from train.inference.input_pictures import on_white
from train.inference.lrm import open_reconstructor
from train.inference.six_views import input_cameras


def cloud(points) -> Cloud:
    return Cloud.on(np.asarray(points), np.asarray(points))


def box_cloud(sides, seed, count=16_000) -> Cloud:
    mesh = trimesh.creation.box(sides)
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return Cloud.on(np.asarray(points), np.asarray(mesh.vertices))


@given(
    scale=st.floats(0.01, 100),
    shift=st.tuples(*[st.floats(-50, 50)] * 3),
)
def test_place_and_size_do_not_count(scale, shift):
    points = sphere(300, 1.0).numpy().astype(float) * [1, 0.5, 0.3]
    moved = cloud(points * scale + np.array(shift))
    assert moved.normalised().abs().max().item() == pytest.approx(1, abs=1e-4)
    found = score_surface(moved, cloud(points))
    assert found["chamfer"] == pytest.approx(0, abs=2e-4)
    assert found["f_score"] == 1


def test_views_that_are_the_truth_are_perfect_and_a_grey_background_is_seen():
    views = sphere_views(0, size=32, cameras=get_rig("zero123plus").cameras("x"))
    truth = Pictures.of_rgba(views.rgba)
    inputs = list(range(1, 7))

    def true_views(given, cameras):
        return given.rgb[inputs], cameras[1:]

    def grey(given, cameras):
        background = given.alpha[inputs] == 0
        return torch.where(background, 0.75, given.rgb[inputs]), cameras[1:]

    for generate, deviation in ((true_views, 0), (grey, 0.25)):
        made = make_views(truth, views.cameras, generate).made
        assert made.true_views == inputs
        found = score_views(made.rgb, truth.at(made.true_views), 2, None)
        assert found["background_deviation"] == pytest.approx(deviation)
        assert found["background_deviation_95"] == pytest.approx(deviation)
        assert found["background_spread"] == 0
        assert (found["views_psnr"] == 100) == (deviation == 0)
    with pytest.raises(BadInput, match="lrm build --rig zero123plus"):
        make_views(truth, views.cameras, lambda given, _: (given.rgb[inputs], views.cameras[:6]))


def test_a_shape_equals_itself():
    one = box_cloud((2, 1, 0.5), seed=0)
    assert score_surface(one, one) == {"chamfer": 0, "f_score": 1}
    # Other points of the same surface: what is left is the distance between samples.
    again = score_surface(one, box_cloud((2, 1, 0.5), seed=1))
    area = 2 * (2 * 1 + 2 * 0.5 + 1 * 0.5)
    # Mean distance to the nearest of n points spread at random over an area: 1 / (2 sqrt(n / A)).
    assert again["chamfer"] == pytest.approx(0.5 / math.sqrt(16_000 / area), rel=0.05)
    assert again["f_score"] == 1


def test_another_shape_by_its_closed_form():
    """Two plates beside a middle one, at height 0.4 above and below, within the same box."""
    rng = np.random.default_rng(0)
    plate = np.column_stack([rng.uniform(-1, 1, (16_000, 2)), np.zeros(16_000)])
    corners = np.array([[-1, -1, -1], [1, 1, 1.0]])
    shifted = plate.copy()
    shifted[:, 2] = np.where(np.arange(16_000) % 2, 0.4, -0.4)
    found = score_surface(Cloud.on(plate, corners), Cloud.on(shifted, corners))
    assert found["chamfer"] == pytest.approx(0.4, abs=1e-3)
    assert found["f_score"] == 0
    # Half of the points nearer than the threshold: precision and recall are 1/2.
    half = plate.copy()
    half[:, 2] = np.where(half[:, 0] > 0, 0.1, 0.9)
    found = score_surface(Cloud.on(half, corners), Cloud.on(plate, corners))
    precision = 0.5
    recall = (1 + math.sqrt(0.2**2 - 0.1**2)) / 2  # and a strip beside the near half
    expected = 2 * precision * recall / (precision + recall)
    assert found["f_score"] == pytest.approx(expected, abs=0.01)


def test_pictures_are_measured_as_torchmetrics_does():
    images, targets = pictures(0)
    for row in range(2):
        one, other = images[row : row + 1], targets[row : row + 1]
        expected = peak_signal_noise_ratio(one, other, data_range=1.0)
        assert psnr(one, other).item() == pytest.approx(expected.item(), abs=1e-4)
        # It also counts windows that reach over the border, into a mirrored picture.
        _, places = structural_similarity_index_measure(
            one, other, data_range=1.0, return_full_image=True
        )
        inner = places[..., 5:-5, 5:-5].mean().item()
        assert ssim(one, other).item() == pytest.approx(inner, abs=1e-4)


def test_pictures_by_closed_forms():
    rgba = np.zeros((5, 16, 16, 4), dtype=np.uint8)
    rgba[:, 4:12, 4:12] = (255, 0, 0, 255)
    truth = Pictures.of_rgba(rgba)
    assert truth.rgb[0, :, 0, 0].tolist() == [1, 1, 1]
    assert truth.rgb[0, :, 8, 8].tolist() == [1, 0, 0]
    same = score_pictures(truth, truth, None)
    assert same == {"psnr": 100, "ssim": pytest.approx(1), "mask_iou": 1}
    off = Pictures(rgb=(truth.rgb - 0.1).abs(), alpha=torch.zeros_like(truth.alpha))
    found = score_pictures(off, truth, None)
    assert found["psnr"] == pytest.approx(20, abs=1e-3)  # -10 log10(0.1^2)
    assert found["mask_iou"] == 0


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = interval(values, seed=0)
    spread = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - spread, abs=0.03)
    assert high == pytest.approx(values.mean() + spread, abs=0.03)
    assert interval(values, seed=0) == (low, high)
    assert interval(np.full(5, 0.3), seed=0) == (0.3, 0.3)
    assert interval(np.array([1.0]), seed=0) is None
    # Two values, one of them alone: nothing is left undefined.
    assert all(map(math.isfinite, interval(np.array([1.0, 2.0]), seed=0)))
    assert all(map(math.isfinite, interval(np.array([1.0] * 9 + [0.0]), seed=0)))


def test_the_summary_counts_what_is_there(tmp_path):
    rows = [
        {"object": "a", "error": None, "psnr": 10.0, "chamfer": 0.1},
        {"object": "b", "error": None, "psnr": 20.0},
        {"object": "c", "error": "broken"},
    ]
    found = summarise(rows, ("psnr", "chamfer", "lpips"), seed=0)
    assert found["psnr"]["mean"] == 15
    assert found["psnr"]["objects"] == 2
    assert 10 <= found["psnr"]["low"] <= found["psnr"]["high"] <= 20
    assert found["chamfer"] == {
        "mean": 0.1,
        "median": 0.1,
        "low": None,
        "high": None,
        "objects": 1,
    }
    assert "lpips" not in found
    write_objects(rows, ("psnr", "chamfer"), tmp_path / "objects.parquet")
    table = pq.read_table(tmp_path / "objects.parquet").to_pydict()
    assert table == {
        "object": ["a", "b", "c"],
        "error": [None, None, "broken"],
        "psnr": [10.0, 20.0, None],
        "chamfer": [0.1, None, None],
    }


def test_inputs_of_zero123plus_are_its_targets():
    cameras = get_rig("zero123plus").cameras("objaverse:x")
    assert choose_inputs(cameras) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(BadInput, match="has 6 views"):
        choose_inputs(cameras[:6])


@given(name=st.sampled_from([n for n in RIGS if n != "zero123plus"]), uid=st.integers(0, 99))
def test_inputs_are_six_different_views_all_around(name, uid):
    cameras = get_rig(name).cameras(f"objaverse:{uid}")
    chosen = choose_inputs(cameras)
    assert len(set(chosen)) == 6
    assert set(chosen) < set(range(len(cameras)))


def test_a_prediction_is_judged_by_what_it_did_not_see(tmp_path):
    file = small_lrm.write_file(small_lrm.mesh_model(), tmp_path / "model.safetensors")
    model = open_reconstructor("mesh", file, preset=small_lrm.PRESET, changes=small_lrm.MESH)
    cameras = get_rig("orbit21").cameras("x")
    rgba = np.random.default_rng(0).integers(0, 255, (21, 24, 24, 4), dtype=np.uint8)
    truth = Pictures.of_rgba(rgba)
    found = predict(model, truth, cameras, num_points=500, seed=0)
    assert sorted([*found.views, *choose_inputs(cameras)]) == list(range(21))
    assert found.pictures.rgb.shape == (15, 3, 24, 24)
    assert found.cloud.points.shape == (500, 3)
    # View by view what the model shows from there, whatever is rendered together.
    last = predict(model, truth, cameras, num_points=500, seed=0)
    assert torch.equal(last.pictures.rgb, found.pictures.rgb)
    assert np.array_equal(last.cloud.points, found.cloud.points)
    # The points lie on the surface, within the grid.
    assert np.abs(found.cloud.points).max() <= 1.06


def test_made_views_stand_where_those_of_the_truth_do(tmp_path, monkeypatch):
    """The rig's distance is not that of InstantMesh's cameras: a model told the wrong one makes
    everything larger."""
    file = small_lrm.write_file(small_lrm.mesh_model(), tmp_path / "model.safetensors")
    model = open_reconstructor("mesh", file, preset=small_lrm.PRESET, changes=small_lrm.MESH)
    cameras = get_rig("zero123plus").cameras("objaverse:x")
    rgba = np.zeros((len(cameras), 24, 24, 4), dtype=np.uint8)
    told, reconstruct = [], type(model).reconstruct

    def listening(self, images, camera_to_world, intrinsics):
        told.append(camera_to_world[0].numpy())
        return reconstruct(self, images, camera_to_world, intrinsics)

    monkeypatch.setattr(type(model), "reconstruct", listening)

    def generate(truth, cameras):
        return torch.zeros(6, 3, 24, 24), input_cameras(azimuth=azimuth_of(cameras[0]))

    truth = Pictures.of_rgba(rgba)
    predict(model, truth, cameras, num_points=9, seed=0, generate=generate)
    expected = np.stack([camera.camera_to_world for camera in cameras[1:7]])
    np.testing.assert_allclose(told[0], expected, atol=1e-6)


def test_a_query_is_laid_over_white_once():
    rgba = np.full((1, 8, 8, 4), (255, 0, 0, 128), dtype=np.uint8)
    truth = Pictures.of_rgba(rgba)
    torch.testing.assert_close(on_white(_first_view(truth)), truth.rgb[0], atol=0.006, rtol=0)
