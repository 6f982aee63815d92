"""Rays, the box and the sample positions: against their oracle and against dataset.cameras."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataset import cameras
from train.models.lrm.rays import (
    Rays,
    Window,
    box_interval,
    camera_rays,
    coarse_depths,
    draw_jitter,
    importance_depths,
    intersect_box,
    window_intrinsics,
)


def rays_of(origins, directions):
    """Return rays with cosines of 1, for tests that do not use planar depth."""
    return Rays(origins=origins, directions=directions, cosines=torch.ones(origins.shape[:-1]))


@pytest.fixture
def camera():
    """Return a camera off every axis, with four different intrinsics."""
    return cameras.Camera(
        camera_to_world=cameras.look_at(np.array([1.2, -2.1, 0.9])),
        intrinsics=np.array([1.1, 0.9, 0.55, 0.46], dtype=np.float32),
    )


def test_camera_rays_and_their_box_interval_match_the_oracle(oracle):
    expected = oracle("nerf_rays")
    matrix = expected["in.intrinsics"]
    intrinsics = torch.stack(
        [matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 0, 2], matrix[:, 1, 2]], dim=-1
    )
    side = expected.config["render_size"]
    # The oracle's cameras have a skew, which this project's cameras do not have. A ray with
    # x + skew / fx * y along the right axis is one with y along an up axis sheared to the right.
    camera_to_world = expected["in.c2w"].clone()
    shear = (matrix[:, 0, 1] / matrix[:, 0, 0])[:, None]
    camera_to_world[:, :3, 1] += shear * camera_to_world[:, :3, 0]
    rays = camera_rays(camera_to_world, intrinsics, (side, side))
    expected.check(rays.origins, "out.ray_origins")
    expected.check(rays.directions, "out.ray_directions")
    near, far = intersect_box(rays)
    hit = expected["out.camera_far"] > expected["out.camera_near"]
    assert torch.equal((far > near)[..., None], hit)
    for distance, name in ((near, "out.camera_near"), (far, "out.camera_far")):
        torch.testing.assert_close(distance[..., None][hit], expected[name][hit], atol=1e-4, rtol=0)


def test_box_and_sampling_match_the_oracle(oracle):
    expected = oracle("nerf_rays")
    rays = rays_of(expected["in.box_origins"], expected["in.box_dirs"])
    near, far = intersect_box(rays)
    hit = (expected["out.far"] > expected["out.near"])[..., 0]
    assert torch.equal(far > near, hit)
    torch.testing.assert_close(near[hit], expected["out.near"][..., 0][hit])
    torch.testing.assert_close(far[hit], expected["out.far"][..., 0][hit])

    near, far = box_interval(rays, published=True)
    expected.check(near, "out.near_repaired")
    expected.check(far, "out.far_repaired")
    coarse = coarse_depths(near, far, expected["in.jitter"][..., 0], published=True)
    expected.check(coarse, "out.depths_coarse")
    weights = expected["in.weights"][..., 0]
    even = torch.linspace(0, 1, expected["in.u"].shape[-1]).expand_as(expected["in.u"])
    for quantiles, name in (
        (expected["in.u"], "out.depths_importance"),
        (even, "out.depths_importance_det"),
    ):
        fine = importance_depths(coarse, weights, quantiles.view_as(coarse), published=True)
        expected.check(fine, name)


def test_the_repaired_interval_is_in_the_box_and_in_front_of_the_camera_or_empty(oracle):
    expected = oracle("nerf_rays")
    near, far = box_interval(rays_of(expected["in.box_origins"], expected["in.box_dirs"]))
    raw_near, raw_far = expected["out.near"][..., 0], expected["out.far"][..., 0]
    valid = (raw_far > raw_near) & (raw_far > 0)
    torch.testing.assert_close(near[valid], raw_near[valid].clamp(min=0))
    torch.testing.assert_close(far[valid], raw_far[valid])
    assert not near[~valid].any()
    assert not far[~valid].any()


def test_published_intervals_of_rays_that_all_miss_are_minus_1_and_minus_2():
    rays = rays_of(torch.tensor([[[5.0, 5.0, 5.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
    near, far = box_interval(rays, published=True)
    assert (near.item(), far.item()) == (-1.0, -2.0)


def test_rays_agree_with_the_datasets_cameras(camera):
    height, width = 5, 7
    origin, directions = cameras.rays(camera, height, width)
    rays = camera_rays(
        torch.from_numpy(camera.camera_to_world), torch.from_numpy(camera.intrinsics), (5, 7)
    )
    expected = torch.from_numpy(directions).flatten(0, 1)
    torch.testing.assert_close(rays.directions / rays.cosines[:, None], expected)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(height * width))
    torch.testing.assert_close(rays.origins, torch.from_numpy(origin).expand(height * width, 3))


@given(data=st.data())
def test_the_rays_of_a_window_are_those_of_the_whole_image(data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(
        top,
        left,
        data.draw(st.integers(1, height - top)),
        data.draw(st.integers(1, width - left)),
    )
    camera_to_world = torch.from_numpy(cameras.look_at(np.array([1.5, 0.4, 1.0])))
    intrinsics = torch.tensor([1.07, 0.95, 0.52, 0.47])
    whole = camera_rays(camera_to_world, intrinsics, (height, width))
    inside = whole.directions.view(height, width, 3)[
        top : top + window.height, left : left + window.width
    ]
    part = camera_rays(
        camera_to_world,
        window_intrinsics(intrinsics, (height, width), window),
        (window.height, window.width),
    )
    torch.testing.assert_close(part.directions, inside.flatten(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [Window(-1, 0, 2, 2), Window(0, 3, 2, 2), Window(3, 0, 2, 2)])
def test_a_window_outside_the_image_is_an_error(window):
    with pytest.raises(ValueError, match="extends beyond the image of 4x4"):
        window_intrinsics(torch.tensor([1.0, 1.0, 0.5, 0.5]), (4, 4), window)


@given(seed=st.integers(0, 2**32 - 1))
def test_every_sample_is_inside_its_interval(seed):
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(1, 20, generator=generator) * 3
    far = near + torch.rand(1, 20, generator=generator) + 0.01
    rays = rays_of(torch.zeros(1, 20, 3), torch.ones(1, 20, 3))
    jitter = draw_jitter(rays, 16, generator)
    coarse = coarse_depths(near, far, jitter.offsets)
    edges = near[..., None] + (far - near)[..., None] * torch.arange(9) / 8
    assert (coarse >= edges[..., :-1] - 1e-5).all()
    assert (coarse <= edges[..., 1:] + 1e-5).all()
    weights = torch.rand(1, 20, 7, generator=generator)
    fine = importance_depths(coarse, weights, jitter.quantiles)
    assert (fine.diff(dim=-1) >= 0).all()
    assert (fine >= coarse[..., :1] - 1e-5).all()
    assert (fine <= coarse[..., -1:] + 1e-5).all()


def test_importance_samples_concentrate_where_the_weight_is():
    depths = torch.linspace(2.0, 4.0, 21).expand(1, 1, -1)
    weights = torch.zeros(1, 1, 20)
    weights[..., 12] = 1.0
    quantiles = (torch.arange(1000.0).expand(1, 1, -1) + 0.5) / 1000
    middle, length = depths[0, 0, 12:14].mean(), depths[0, 0, 1] - depths[0, 0, 0]
    fine = importance_depths(depths, weights, quantiles)
    torch.testing.assert_close(fine.median(), middle, atol=0.01, rtol=0)
    assert ((fine - middle).abs() < 1.5 * length).float().mean() > 0.8
    shifted = importance_depths(depths, weights, quantiles, published=True)
    torch.testing.assert_close(shifted.median(), middle - length / 2, atol=0.01, rtol=0)


def test_jitter_is_seeded_and_central_without_a_generator():
    rays = rays_of(torch.zeros(2, 3, 3), torch.ones(2, 3, 3))
    central = draw_jitter(rays, 8)
    assert central.offsets.unique().tolist() == [0.5]
    torch.testing.assert_close(central.quantiles[0, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    first, again, other = (
        draw_jitter(rays, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.offsets, again.offsets)
    assert torch.equal(first.quantiles, again.quantiles)
    assert not torch.equal(first.offsets, other.offsets)
    fractions = first.quantiles * 4 - torch.arange(4)
    assert (fractions >= 0).all()
    assert (fractions <= 1).all()
    assert not torch.equal(fractions, first.offsets)
