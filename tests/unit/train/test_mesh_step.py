"""The stand-in for stage 2's networks against a real step on a real surface."""

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


class Ball(MeshSynthesizer):
    """A synthesizer whose distances, computed as always, come out as those of a ball."""

    def distances(self, planes):
        grid = grid_vertices(self.config.grid_resolution, self.config.grid_size)
        return super().distances(planes) * 0 + grid.norm(dim=1) - 0.8


def count(run) -> tuple[float, float]:
    """Operations of the forward and of the backward pass."""
    meter = _Meter()
    with meter:
        loss = run()
        forward = meter.ops
        loss.backward()
    return forward, meter.ops - forward


def test_its_operations_are_those_of_a_real_step():
    eyes = [cameras.orbit_eye(angle, 20, 2.75) for angle in (0, 120, 240)]
    poses = torch.from_numpy(np.stack([cameras.look_at(eye) for eye in eyes]))[None].float()
    lenses = torch.tensor(cameras.intrinsics_from_fov(50)).expand(1, 3, 4).float()
    real, planes = Ball(CONFIG, 4), torch.randn(1, 3, 4, 16, 16, requires_grad=True)
    # The networks' last layers start at zero: their gradients must not be cut off by that.
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

    def stand():
        one = mesh_step_tensors(meta_step, cells, shapes, 3, SIZE)
        return one.rgb.mean() + one.alpha.mean() + one.regularizers

    for found, expected in zip(count(stand), count(step), strict=True):
        assert found == pytest.approx(expected, rel=0.1)


def test_nothing_is_computed():
    config = MeshConfig(grid_resolution=48)
    with torch.device("meta"):
        meta_step = MeshSynthesizer(config, 8)
        one = mesh_step_tensors(
            meta_step, sphere_cells(config), torch.empty(3, 8, 16, 16), 2, (32, 40)
        )
    assert one.rgb.is_meta and one.sdf.is_meta
    assert one.rgb.shape == (2, 3, 32, 40)
    assert one.sdf.shape == (49**3,)
    # A sphere crosses three halves as many cubes as it has faces of a cube in area.
    area = 4 * np.pi * (0.8 / (2.1 / 48)) ** 2
    assert len(one.weights) == pytest.approx(1.5 * area, rel=0.05)
