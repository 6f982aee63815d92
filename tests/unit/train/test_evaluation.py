"""Scores of a reconstruction against closed forms and torchmetrics, and their summary."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from core.errors import BadInput
from render.rigs import RIGS, get_rig
from tests.support import small_lrm
from tests.support.metric_inputs import noisy_images, sphere_points
from tests.support.sphere_datasets import sphere_views
from train.evaluation.generate import _first_view
from train.evaluation.metrics import psnr, ssim
from train.evaluation.predict import azimuth_of, choose_inputs, generate_views, predict
from train.evaluation.protocols.registry import PROTOCOLS, make_protocol
from train.evaluation.scores import (
    Pictures,
    PointCloud,
    score_pictures,
    score_views,
)
from train.evaluation.summary import (
    NO_CATEGORY,
    interval,
    summarise,
    summarise_categories,
    write_object_scores,
)
from train.inference.families import open_model
from train.inference.family import ModelOptions
from train.inference.input_pictures import on_white
from train.inference.six_views import input_cameras

SIZES = ModelOptions(preset=small_lrm.PRESET, changes=small_lrm.MESH)


def score_surface(shape: PointCloud, reference: PointCloud) -> dict[str, float]:
    return make_protocol("instantmesh", {}).scores(shape, reference)


def cloud(points) -> PointCloud:
    return PointCloud.from_surface(np.asarray(points), np.asarray(points))


def box_cloud(sides, seed, count=16_000) -> PointCloud:
    mesh = trimesh.creation.box(sides)
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return PointCloud.from_surface(np.asarray(points), np.asarray(mesh.vertices))


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.01, 100),
    shift=st.tuples(*[st.floats(-50, 50)] * 3),
)
def test_surface_scores_do_not_depend_on_position_and_size(scale, shift):
    points = sphere_points(300, 1.0).numpy().astype(float) * [1, 0.5, 0.3]
    moved = cloud(points * scale + np.array(shift))
    assert moved.normalised().abs().max().item() == pytest.approx(1, abs=1e-4)
    scores = score_surface(moved, cloud(points))
    assert scores["chamfer"] == pytest.approx(0, abs=2e-4)
    assert scores["f_score"] == 1


def test_generated_views_equal_to_the_truth_score_best_and_a_grey_background_is_measured():
    views = sphere_views(0, size=32, cameras=get_rig("zero123plus").cameras("x"))
    truth = Pictures.from_rgba(views.rgba)
    inputs = list(range(1, 7))

    def true_views(given, cameras):
        return given.rgb[inputs], cameras[1:]

    def grey(given, cameras):
        background = given.alpha[inputs] == 0
        return torch.where(background, 0.75, given.rgb[inputs]), cameras[1:]

    for generate, deviation in ((true_views, 0), (grey, 0.25)):
        generated = generate_views(truth, views.cameras, generate).generated
        assert generated.reference_views == inputs
        scores = score_views(generated.rgb, truth.select(generated.reference_views), 2, None)
        assert scores["background_deviation"] == pytest.approx(deviation)
        assert scores["background_deviation_95"] == pytest.approx(deviation)
        assert scores["background_spread"] == 0
        assert (scores["views_psnr"] == 100) == (deviation == 0)
    with pytest.raises(BadInput, match="lrm build --rig zero123plus"):
        generate_views(
            truth, views.cameras, lambda given, _: (given.rgb[inputs], views.cameras[:6])
        )


def test_a_shape_compared_with_itself_scores_best():
    cloud_of_box = box_cloud((2, 1, 0.5), seed=0)
    assert score_surface(cloud_of_box, cloud_of_box) == {"chamfer": 0, "f_score": 1}
    # Other points of the same surface: only the distance between sample points remains.
    scores = score_surface(cloud_of_box, box_cloud((2, 1, 0.5), seed=1))
    area = 2 * (2 * 1 + 2 * 0.5 + 1 * 0.5)
    # Mean distance to the nearest of n random points on an area A: 1 / (2 sqrt(n / A)).
    assert scores["chamfer"] == pytest.approx(0.5 / math.sqrt(16_000 / area), rel=0.05)
    assert scores["f_score"] == 1


def test_scores_of_another_shape_match_closed_forms():
    """A plate is compared with two half plates, 0.4 above and 0.4 below it, in the same box."""
    rng = np.random.default_rng(0)
    plate = np.column_stack([rng.uniform(-1, 1, (16_000, 2)), np.zeros(16_000)])
    corners = np.array([[-1, -1, -1], [1, 1, 1.0]])
    shifted = plate.copy()
    shifted[:, 2] = np.where(np.arange(16_000) % 2, 0.4, -0.4)
    scores = score_surface(
        PointCloud.from_surface(plate, corners), PointCloud.from_surface(shifted, corners)
    )
    assert scores["chamfer"] == pytest.approx(0.4, abs=1e-3)
    assert scores["f_score"] == 0
    # Half of the points are nearer than the threshold, so precision is 1/2.
    half = plate.copy()
    half[:, 2] = np.where(half[:, 0] > 0, 0.1, 0.9)
    scores = score_surface(
        PointCloud.from_surface(half, corners), PointCloud.from_surface(plate, corners)
    )
    precision = 0.5
    recall = (1 + math.sqrt(0.2**2 - 0.1**2)) / 2  # the near half and a strip next to it
    expected = 2 * precision * recall / (precision + recall)
    assert scores["f_score"] == pytest.approx(expected, abs=0.01)


def test_psnr_and_ssim_match_torchmetrics():
    images, targets = noisy_images(0)
    for row in range(2):
        image, target = images[row : row + 1], targets[row : row + 1]
        expected = peak_signal_noise_ratio(image, target, data_range=1.0)
        assert psnr(image, target).item() == pytest.approx(expected.item(), abs=1e-4)
        # torchmetrics also counts windows across the border, on the mirrored picture.
        _, ssim_map = structural_similarity_index_measure(
            image, target, data_range=1.0, return_full_image=True
        )
        inner = ssim_map[..., 5:-5, 5:-5].mean().item()
        assert ssim(image, target).item() == pytest.approx(inner, abs=1e-4)


def test_scores_of_pictures_match_closed_forms():
    rgba = np.zeros((5, 16, 16, 4), dtype=np.uint8)
    rgba[:, 4:12, 4:12] = (255, 0, 0, 255)
    truth = Pictures.from_rgba(rgba)
    assert truth.rgb[0, :, 0, 0].tolist() == [1, 1, 1]
    assert truth.rgb[0, :, 8, 8].tolist() == [1, 0, 0]
    perfect = score_pictures(truth, truth, None)
    assert perfect == {"psnr": 100, "ssim": pytest.approx(1), "mask_iou": 1}
    shifted = Pictures(rgb=(truth.rgb - 0.1).abs(), alpha=torch.zeros_like(truth.alpha))
    scores = score_pictures(shifted, truth, None)
    assert scores["psnr"] == pytest.approx(20, abs=1e-3)  # -10 log10(0.1^2)
    assert scores["mask_iou"] == 0


def test_the_interval_is_the_confidence_interval_of_the_mean():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = interval(values, seed=0)
    spread = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - spread, abs=0.03)
    assert high == pytest.approx(values.mean() + spread, abs=0.03)
    assert interval(values, seed=0) == (low, high)
    assert interval(np.full(5, 0.3), seed=0) == (0.3, 0.3)
    assert interval(np.array([1.0]), seed=0) is None
    # With only two values, or with one outlier, the interval is finite as well.
    assert all(map(math.isfinite, interval(np.array([1.0, 2.0]), seed=0)))
    assert all(map(math.isfinite, interval(np.array([1.0] * 9 + [0.0]), seed=0)))


def test_the_summary_counts_only_objects_with_a_value(tmp_path):
    rows = [
        {"object": "a", "error": None, "psnr": 10.0, "chamfer": 0.1},
        {"object": "b", "error": None, "psnr": 20.0},
        {"object": "c", "error": "broken"},
    ]
    summary = summarise(rows, ("psnr", "chamfer", "lpips"), seed=0)
    assert summary["psnr"]["mean"] == 15
    assert summary["psnr"]["objects"] == 2
    assert 10 <= summary["psnr"]["low"] <= summary["psnr"]["high"] <= 20
    assert summary["chamfer"] == {
        "mean": 0.1,
        "median": 0.1,
        "low": None,
        "high": None,
        "objects": 1,
    }
    assert "lpips" not in summary
    categories = {"a": ("mug", "cup"), "b": (), "c": ("mug",)}
    write_object_scores(rows, categories, ("psnr", "chamfer"), tmp_path / "objects.parquet")
    table = pq.read_table(tmp_path / "objects.parquet").to_pydict()
    assert table == {
        "object": ["a", "b", "c"],
        "error": [None, None, "broken"],
        "categories": [["mug", "cup"], [], ["mug"]],
        "psnr": [10.0, 20.0, None],
        "chamfer": [0.1, None, None],
    }


def test_categories_have_means_and_their_mean_leaves_out_objects_without_one():
    rows = [
        {"object": name, "score": value} for name, value in zip("abcd", (1, 2, 6, 9), strict=True)
    ]
    categories = {"a": ("mug",), "b": ("mug", "cup"), "c": ("cup", "cup"), "d": ()}
    summary = summarise_categories(rows, categories, ("score",))
    assert list(summary["categories"].items()) == [
        ("cup", {"objects": 2, "score": 4}),
        ("mug", {"objects": 2, "score": 1.5}),
        (NO_CATEGORY, {"objects": 1, "score": 9}),
    ]
    assert summary["category_mean"] == {"score": 2.75}
    assert summarise_categories(rows[3:], categories, ("score",))["category_mean"] is None


def test_the_protocol_of_pixel2mesh_counts_position_and_size_in_units_of_the_true_box():
    protocol = make_protocol("pixel2mesh", {})
    sphere = sphere_points(6_000, 1.0).numpy().astype(float)
    corners = np.array([[-1, -1, -1], [1, 1, 1.0]])
    truth = PointCloud.from_surface(sphere, corners)
    # The true box has the diagonal 2 sqrt(3), which becomes 0.57.
    unit = 0.57 / (2 * math.sqrt(3))
    assert protocol.scores(truth, truth) == {
        "chamfer_squared": 0,
        "f_score_1e-4": 1,
        "f_score_2e-4": 1,
    }
    # The predicted box is not used: a larger sphere in any box is 0.012 units away.
    larger = PointCloud.from_surface(sphere * (1 + 0.012 / unit), 3 * corners)
    scores = protocol.scores(larger, truth)
    assert scores["chamfer_squared"] == pytest.approx(2 * 1000 * 0.012**2, rel=0.02)
    assert (scores["f_score_1e-4"], scores["f_score_2e-4"]) == (0, 1)
    shift = np.array([1, 0, 0])
    moved = PointCloud.from_surface(sphere + shift, corners + shift)
    assert protocol.scores(moved, truth)["chamfer_squared"] > 1
    assert make_protocol("instantmesh", {}).scores(moved, truth)["chamfer"] < 1e-6


@given(scale=st.floats(0.01, 100), shift=st.tuples(*[st.floats(-50, 50)] * 3))
@settings(max_examples=10, deadline=None)
def test_scores_of_pixel2mesh_do_not_depend_on_the_world_of_both_shapes(scale, shift):
    points = sphere_points(300, 1.0).numpy().astype(float) * [1, 0.5, 0.3]
    other = points * 1.05 + 0.01
    protocol = make_protocol("pixel2mesh", {})
    before = protocol.scores(cloud(other), cloud(points))
    after = protocol.scores(cloud(other * scale + shift), cloud(points * scale + shift))
    assert after["chamfer_squared"] == pytest.approx(before["chamfer_squared"], rel=1e-3)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_computes_the_metrics_that_it_lists(name):
    protocol = make_protocol(name, {})
    points = cloud(sphere_points(100, 1.0).numpy())
    assert protocol.scores(points, points).keys() == protocol.metrics.keys()
    assert dict(PROTOCOLS[name].settings) == vars(protocol)


def test_a_setting_of_another_protocol_is_refused():
    assert make_protocol("instantmesh", {"threshold": 0.1}).threshold == 0.1
    with pytest.raises(BadInput, match="--threshold belongs to --protocol instantmesh; leave it"):
        make_protocol("pixel2mesh", {"threshold": 0.2})


def test_inputs_of_the_rig_zero123plus_are_its_targets():
    cameras = get_rig("zero123plus").cameras("objaverse:x")
    assert choose_inputs(cameras) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(BadInput, match="has 6 views"):
        choose_inputs(cameras[:6])


@given(name=st.sampled_from([n for n in RIGS if n != "zero123plus"]), uid=st.integers(0, 99))
def test_inputs_are_six_different_views(name, uid):
    cameras = get_rig(name).cameras(f"objaverse:{uid}")
    chosen = choose_inputs(cameras)
    assert len(set(chosen)) == 6
    assert set(chosen) < set(range(len(cameras)))


def test_a_prediction_is_scored_on_the_views_that_were_not_inputs(tmp_path):
    file = small_lrm.write_file(small_lrm.mesh_model(), tmp_path / "model.safetensors")
    model = open_model("mesh", file, SIZES)
    cameras = get_rig("orbit21").cameras("x")
    rgba = np.random.default_rng(0).integers(0, 255, (21, 24, 24, 4), dtype=np.uint8)
    truth = Pictures.from_rgba(rgba)
    prediction = predict(model, truth, cameras, num_points=500, seed=0)
    assert sorted([*prediction.views, *choose_inputs(cameras)]) == list(range(21))
    assert prediction.pictures.rgb.shape == (15, 3, 24, 24)
    assert prediction.cloud.points.shape == (500, 3)
    # A second prediction gives the same pictures and points.
    repeated = predict(model, truth, cameras, num_points=500, seed=0)
    assert torch.equal(repeated.pictures.rgb, prediction.pictures.rgb)
    assert np.array_equal(repeated.cloud.points, prediction.cloud.points)
    # The points are on the surface, so they are inside the grid.
    assert np.abs(prediction.cloud.points).max() <= 1.06


def test_generated_views_have_the_cameras_of_the_ground_truth(tmp_path, monkeypatch):
    """InstantMesh's cameras have another distance; with them the model would scale the object."""
    file = small_lrm.write_file(small_lrm.mesh_model(), tmp_path / "model.safetensors")
    model = open_model("mesh", file, SIZES)
    cameras = get_rig("zero123plus").cameras("objaverse:x")
    rgba = np.zeros((len(cameras), 24, 24, 4), dtype=np.uint8)
    received, reconstruct = [], type(model).reconstruct

    def record(self, images, camera_to_world, intrinsics):
        received.append(camera_to_world[0].numpy())
        return reconstruct(self, images, camera_to_world, intrinsics)

    monkeypatch.setattr(type(model), "reconstruct", record)

    def generate(truth, cameras):
        return torch.zeros(6, 3, 24, 24), input_cameras(azimuth=azimuth_of(cameras[0]))

    truth = Pictures.from_rgba(rgba)
    predict(model, truth, cameras, num_points=9, seed=0, generate=generate)
    expected = np.stack([camera.camera_to_world for camera in cameras[1:7]])
    np.testing.assert_allclose(received[0], expected, atol=1e-6)


def test_a_query_is_composited_on_white_once():
    rgba = np.full((1, 8, 8, 4), (255, 0, 0, 128), dtype=np.uint8)
    truth = Pictures.from_rgba(rgba)
    torch.testing.assert_close(on_white(_first_view(truth)), truth.rgb[0], atol=0.006, rtol=0)
