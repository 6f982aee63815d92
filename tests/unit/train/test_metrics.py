"""Metrics against the library that everybody cites, and against closed forms."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.support.shapes_and_pictures import pictures, sphere
from train.evaluation.metrics import (
    chamfer_distance,
    f_score,
    mask_iou,
    match_points,
    normal_angle,
    picture_metrics,
    psnr,
    ssim,
)


def test_pictures_are_measured_as_scikit_image_does():
    images, targets = pictures(0)
    found = psnr(images, targets), ssim(images, targets)
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
        assert found[0][row].item() == pytest.approx(
            peak_signal_noise_ratio(a, b, data_range=1), abs=1e-4
        )
        assert found[1][row].item() == pytest.approx(expected, abs=1e-5)
    assert found[1][0] > found[1][1] + 0.3


def test_a_picture_equals_itself():
    images, _ = pictures(1)
    assert torch.allclose(ssim(images, images), torch.ones(2), atol=1e-5)
    assert torch.equal(psnr(images, images), torch.full((2,), 100.0))


def test_leading_dimensions_are_kept():
    images, targets = pictures(2)
    assert ssim(images[None], targets[None]).shape == psnr(images[None], targets[None]).shape
    assert ssim(images[None], targets[None]).shape == (1, 2)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, not 10 x 52"):
        ssim(images[..., :10, :], targets[..., :10, :])


def test_masks_overlap():
    mask, other = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    mask[0, 0, :2], other[0, 0, 1:3] = 1, 1
    assert mask_iou(mask, other).tolist() == pytest.approx([1 / 3, 1])


def test_what_is_rendered_is_clamped_before_it_is_measured():
    images, targets = pictures(3)
    alpha = torch.ones(2, 1, *images.shape[-2:])
    bright = torch.where(targets == 1, 1.3, targets)
    assert (bright > 1).any()
    found = picture_metrics(bright[None], alpha[None], targets[None], alpha[None])
    assert found["psnr"] == 100
    assert set(found) == {"psnr", "ssim", "mask_iou"}


def test_concentric_spheres_are_as_far_apart_as_their_radii():
    inner, outer = sphere(6_000, 0.5)[None], sphere(6_000, 0.8)[None]
    match = match_points(inner, outer)
    assert chamfer_distance(match).item() == pytest.approx(0.3, abs=1e-3)
    assert f_score(match, 0.29).item() == 0
    assert f_score(match, 0.31).item() == 1
    assert normal_angle(match, inner / 0.5, outer / 0.8).item() < 1
    assert normal_angle(match, inner / 0.5, -outer / 0.8).item() > 179


def test_distances_of_points_by_hand():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    targets = torch.tensor([[[0.0, 0, 0.1]], [[0, 3, 4]]])
    match = match_points(points, targets)
    there = (0.1 + math.sqrt(1.01)) / 2
    assert chamfer_distance(match).tolist() == pytest.approx([(there + 0.1) / 2, 5])
    # Precision 1/2, recall 1.
    assert f_score(match, 0.2).tolist() == pytest.approx([2 / 3, 0])
    up, aside = torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])
    normals = torch.stack([up, aside]).expand(2, 2, 3)
    angle = normal_angle(match, normals, up.expand(2, 1, 3))
    # There 0 and 90 degrees, back that of the nearest point: the first.
    assert angle[0].item() == pytest.approx(22.5)
    with pytest.raises(ValueError, match="without points"):
        match_points(points, targets[:, :0])
