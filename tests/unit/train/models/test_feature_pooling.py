"""Pooling of image features at points: exact positions, and the published conventions."""

import numpy as np
import pytest
import torch

from dataset import cameras
from train.models.pixel2mesh.feature_pooling import MIN_DEPTH, pool_features, project
from train.models.pixel2mesh.image_encoders import VggEncoder
from train.models.pixel2mesh.resnet import ResNetEncoder

ONES = (1,) * 6
ENCODERS = {
    "symmetric": lambda: VggEncoder(ONES),
    "tensorflow": lambda: VggEncoder(ONES, "tensorflow"),
    "resnet": lambda: ResNetEncoder(width=1),
}
NO_GRIDS = [(0, 0)] * 4
"""The published conventions take no positions of cells."""


def intrinsics(focal, centre, size, shift):
    """Return the project's intrinsics for lengths in pixels; `shift` is where pixel 0 has its
    centre."""
    values = [*focal, *(c + shift for c in centre)]
    return torch.tensor([[value / size for value in values]] * 2)


@pytest.mark.parametrize(
    ("published", "result"), [("align_corners", "torch"), ("half_pixel", "torch_today")]
)
def test_the_conventions_of_the_pytorch_port_match_the_oracle(published, result, oracle):
    expected = oracle("p2m_projection")
    config = expected.config
    points = expected["in.points"].requires_grad_()
    maps = [expected[f"in.feat{i}"].requires_grad_() for i in range(4)]
    camera = intrinsics(config["camera_f"], config["camera_c"], config["image"], 0.5)
    seen_at = project(points + torch.tensor(config["mesh_pos"]), camera)
    pooled = pool_features(maps, NO_GRIDS, seen_at, config["image"], published)
    joined = torch.cat([points, pooled], dim=-1)
    expected.check(joined, f"out.{result}", 1e-5)
    if published == "align_corners":
        (joined**2).mean().backward()
        expected.check(points.grad, "out.grad.points")
        expected.check(maps[0].grad, "out.grad.feat0")


def test_the_convention_of_the_tensorflow_code_matches_the_oracle(oracle):
    expected = oracle("p2m_projection")
    points, camera = expected["in.points_tf"], expected.config["tf_camera"]
    maps = [expected[f"in.feat{i}"] for i in range(4)]
    size = expected.config["image"]
    seen_at = project(points, intrinsics(camera["f"], camera["c"], size, 0))
    pooled = pool_features(maps, NO_GRIDS, seen_at, size, "tensorflow")
    expected.check(torch.cat([points, pooled], dim=-1), "out.tf", 1e-5)
    assert (pooled == 0).any()  # points beside the picture


def ramps(encoder, image_size):
    """Return maps whose cells have the x and y of their centre's pixel, as features."""
    maps = []
    for stride, offset in encoder.grids:
        centres = torch.arange(image_size // stride) * float(stride) + offset
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        maps.append(torch.stack([x, y])[None])
    return maps


@pytest.mark.parametrize("name", ENCODERS)
def test_features_are_those_of_the_exact_pixel(name):
    encoder, size = ENCODERS[name](), 224
    maps = ramps(encoder, size)
    coordinates = torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2
    pixels = coordinates * size - 0.5
    pooled = pool_features(maps, encoder.grids, coordinates, size).split(2, dim=-1)
    published = {
        mode: pool_features(maps, encoder.grids, coordinates, size, mode).split(2, dim=-1)
        for mode in ("align_corners", "half_pixel")
    }
    for i, (stride, offset) in enumerate(encoder.grids):
        last = offset + stride * (size // stride - 1)
        expected = pixels.clamp(offset, last)
        torch.testing.assert_close(pooled[i], expected, atol=2e-3, rtol=0)
        inside = (pixels == expected).all(dim=-1)
        assert inside.any()
        for values in published.values():
            assert (values[i] - expected)[inside].abs().max() > 1


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(2)
    maps = [
        torch.rand(2, 2, s, s, dtype=torch.float64, generator=generator, requires_grad=True)
        for s in (4, 2)
    ]
    offsets = torch.rand(2, 5, 3, dtype=torch.float64, generator=generator) * 0.5 - 0.25
    points = (offsets + torch.tensor([0, 0, -0.8])).requires_grad_()
    camera = torch.tensor([[1.1, 1.3, 0.47, 0.52], [0.9, 0.8, 0.5, 0.45]], dtype=torch.float64)

    def pooled(points, *maps):
        return pool_features(maps, [(4, 0), (8, 7)], project(points, camera), 16)

    assert torch.autograd.gradcheck(pooled, (points, *maps), eps=1e-7, atol=1e-5)


def test_points_are_seen_where_the_project_s_cameras_see_them():
    camera = cameras.Camera(
        camera_to_world=np.eye(4, dtype=np.float32),
        intrinsics=np.array([1.1, 1.3, 0.45, 0.55], dtype=np.float32),
    )
    points = np.random.RandomState(0).uniform(-0.3, 0.3, (2, 20, 3)).astype(np.float32)
    points[..., 2] -= 0.8
    values = torch.from_numpy(np.stack([camera.intrinsics, camera.intrinsics * 0.9]))
    seen_at = project(torch.from_numpy(points), values)
    expected, _ = cameras.project(camera, points[0])
    np.testing.assert_allclose(seen_at[0], expected, atol=1e-6)
    assert (seen_at[1] - torch.from_numpy(cameras.project(camera, points[1])[0])).abs().min() > 1e-3


def test_points_at_or_behind_the_camera_have_finite_features_and_gradients():
    depths = torch.tensor([0.5, 0.0, -MIN_DEPTH / 2, -0.5])
    points = torch.stack([torch.full((4,), 0.1), torch.zeros(4), depths], dim=-1)[None]
    points.requires_grad_()
    camera = torch.tensor([[1.1, 1.1, 0.5, 0.5]])
    pooled = pool_features([torch.rand(1, 3, 8, 8)], [(4, 0)], project(points, camera), 32)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all()
    assert torch.isfinite(points.grad).all()


def test_maps_of_bfloat16_are_pooled_at_exact_positions():
    maps, camera = [torch.rand(1, 2, 56, 56)], torch.tensor([[1.1, 1.1, 0.5, 0.5]])
    points = torch.rand(1, 30, 3) * 0.3 - torch.tensor([0, 0, 0.8])
    seen_at = project(points, camera)
    halves = [one.bfloat16() for one in maps]
    pooled = pool_features(halves, [(4, 0)], seen_at, 224)
    assert pooled.dtype == torch.bfloat16
    exact = pool_features([halves[0].float()], [(4, 0)], seen_at, 224)
    assert torch.equal(pooled, exact.bfloat16())
