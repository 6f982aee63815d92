"""The estimated step of stage 2 on the meta device, against a real step on a real surface."""

import numpy as np
import pytest
import torch

from dataset import cameras
from train.estimate.mesh_step import mesh_step_tensors, sphere_cells
from train.estimate.step_cost import _Meter
from train.models.lrm.mesh import MeshConfig, MeshSynthesizer
from train.models.surfaces.flexicubes import grid_vertices

CONFIG = MeshConfig(decoder_width=16, grid_resolution=24, rasterizer="torch")
SIZE = (48, 48)


class BallSynthesizer(MeshSynthesizer):
    """A synthesizer that computes its distances, and then returns those of a ball."""

    def distances(self, planes):
        grid = grid_vertices(self.config.grid_resolution, self.config.grid_size)
        return super().distances(planes) * 0 + grid.norm(dim=1) - 0.8


def count_operations(run) -> tuple[float, float]:
    """Return the operations of the forward and of the backward pass."""
    meter = _Meter()
    with meter:
        loss = run()
        forward = meter.ops
        loss.backward()
    return forward, meter.ops - forward


def test_the_estimated_operations_are_those_of_a_real_step():
    eyes = [cameras.orbit_eye(angle, 20, 2.75) for angle in (0, 120, 240)]
    poses = torch.from_numpy(np.stack([cameras.look_at(eye) for eye in eyes]))[None].float()
    lenses = torch.tensor(cameras.intrinsics_from_fov(50)).expand(1, 3, 4).float()
    real, planes = BallSynthesizer(CONFIG, 4), torch.randn(1, 3, 4, 16, 16, requires_grad=True)
    # These last layers start at zero, which would stop the gradients.
    for net in (real.decoder.net_deformation, real.decoder.net_weight):
        torch.nn.init.normal_(net[-1].weight)

    def step():
        views, geometry = real(planes, poses, lenses, SIZE)
        pictures = views.rgb.mean() + views.alpha.mean() + views.depth.mean()
        return pictures + geometry.deviation + geometry.weight_size + geometry.sdf.mean()

    with torch.device("meta"):
        meta_step = MeshSynthesizer(CONFIG, 4)
        shapes = torch.empty(3, 4, 16, 16, requires_grad=True)

    cells = sphere_cells(CONFIG)

    def estimate():
        tensors = mesh_step_tensors(meta_step, cells, shapes, 3, SIZE)
        return tensors.rgb.mean() + tensors.alpha.mean() + tensors.regularizers

    for estimated, expected in zip(count_operations(estimate), count_operations(step), strict=True):
        assert estimated == pytest.approx(expected, rel=0.1)


def test_the_estimate_computes_no_values():
    config = MeshConfig(grid_resolution=48)
    with torch.device("meta"):
        meta_step = MeshSynthesizer(config, 8)
        tensors = mesh_step_tensors(
            meta_step, sphere_cells(config), torch.empty(3, 8, 16, 16), 2, (32, 40)
        )
    assert tensors.rgb.is_meta and tensors.sdf.is_meta
    assert tensors.rgb.shape == (2, 3, 32, 40)
    assert tensors.sdf.shape == (49**3,)
    # A sphere crosses 3/2 times as many cubes as its area has faces of a cube.
    area = 4 * np.pi * (0.8 / (2.1 / 48)) ** 2
    assert len(tensors.weights) == pytest.approx(1.5 * area, rel=0.05)
