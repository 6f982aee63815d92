"""Metrics against scikit-image and against closed forms."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.support.metric_inputs import noisy_images, sphere_points
from train.evaluation.metrics import (
    chamfer_distance,
    f_score,
    mask_iou,
    match_points,
    normal_angle,
    picture_metrics,
    psnr,
    squared_metrics,
    ssim,
)


def test_psnr_and_ssim_match_scikit_image():
    images, targets = noisy_images(0)
    values = psnr(images, targets), ssim(images, targets)
    for row in range(2):
        a, b = images[row].double().numpy(), targets[row].double().numpy()
        expected = structural_similarity(
            a,
            b,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=0,
        )
        assert values[0][row].item() == pytest.approx(
            peak_signal_noise_ratio(a, b, data_range=1), abs=1e-4
        )
        assert values[1][row].item() == pytest.approx(expected, abs=1e-5)
    assert values[1][0] > values[1][1] + 0.3


def test_a_picture_compared_with_itself_scores_best():
    images, _ = noisy_images(1)
    assert torch.allclose(ssim(images, images), torch.ones(2), atol=1e-5)
    assert torch.equal(psnr(images, images), torch.full((2,), 100.0))


def test_leading_dimensions_are_kept():
    images, targets = noisy_images(2)
    assert ssim(images[None], targets[None]).shape == psnr(images[None], targets[None]).shape
    assert ssim(images[None], targets[None]).shape == (1, 2)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, not 10 x 52"):
        ssim(images[..., :10, :], targets[..., :10, :])


def test_the_iou_of_masks_matches_its_closed_form():
    mask, other = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    mask[0, 0, :2], other[0, 0, 1:3] = 1, 1
    assert mask_iou(mask, other).tolist() == pytest.approx([1 / 3, 1])


def test_rendered_pictures_are_clamped_before_they_are_scored():
    images, targets = noisy_images(3)
    alpha = torch.ones(2, 1, *images.shape[-2:])
    bright = torch.where(targets == 1, 1.3, targets)
    assert (bright > 1).any()
    metrics = picture_metrics(bright[None], alpha[None], targets[None], alpha[None])
    assert metrics["psnr"] == 100
    assert set(metrics) == {"psnr", "ssim", "mask_iou"}


def test_the_distance_of_concentric_spheres_is_that_of_their_radii():
    inner, outer = sphere_points(6_000, 0.5)[None], sphere_points(6_000, 0.8)[None]
    match = match_points(inner, outer)
    assert chamfer_distance(match).item() == pytest.approx(0.3, abs=1e-3)
    assert f_score(match, 0.29).item() == 0
    assert f_score(match, 0.31).item() == 1
    assert normal_angle(match, inner / 0.5, outer / 0.8).item() < 1
    assert normal_angle(match, inner / 0.5, -outer / 0.8).item() > 179


def test_metrics_of_a_few_points_match_hand_computed_values():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    targets = torch.tensor([[[0.0, 0, 0.1]], [[0, 3, 4]]])
    match = match_points(points, targets)
    forward_distance = (0.1 + math.sqrt(1.01)) / 2
    assert chamfer_distance(match).tolist() == pytest.approx([(forward_distance + 0.1) / 2, 5])
    # Precision 1/2, recall 1.
    assert f_score(match, 0.2).tolist() == pytest.approx([2 / 3, 0])
    up, aside = torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])
    normals = torch.stack([up, aside]).expand(2, 2, 3)
    angle = normal_angle(match, normals, up.expand(2, 1, 3))
    # To the targets 0 and 90 degrees; back 0, the angle of the nearest point.
    assert angle[0].item() == pytest.approx(22.5)
    with pytest.raises(ValueError, match="without points"):
        match_points(points, targets[:, :0])


def test_squared_metrics_match_the_oracle_of_pixel2mesh(oracle):
    expected = oracle("p2m_losses")
    metrics = squared_metrics(match_points(expected["in.pred_3"], expected["in.points"]))
    expected.check(metrics["chamfer_squared"] / 1000, "out.eval.cd", tolerance=1e-5)
    expected.check(metrics["f_score_1e-4"], "out.eval.f1_tau", tolerance=1e-5)
    expected.check(metrics["f_score_2e-4"], "out.eval.f1_2tau", tolerance=1e-5)


def test_squared_metrics_of_concentric_spheres_are_those_of_their_radii():
    inner, outer = sphere_points(6_000, 0.2)[None], sphere_points(6_000, 0.212)[None]
    metrics = squared_metrics(match_points(inner, outer))
    # 1000 (0.012^2 + 0.012^2); 0.012 is between both limits, the square roots of 1e-4 and 2e-4.
    assert metrics["chamfer_squared"].item() == pytest.approx(0.288, rel=0.02)
    assert (metrics["f_score_1e-4"].item(), metrics["f_score_2e-4"].item()) == (0, 1)
