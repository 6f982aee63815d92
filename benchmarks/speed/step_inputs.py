"""Inputs of `train_step`: random images with cameras on an orbit, and an initial mesh."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dataset.cameras import intrinsics_from_fov, look_at, orbit_eye
from train.models.lrm.lrm import MeshLRM
from train.models.lrm.vit import camera_vector
from train.models.surfaces.flexicubes import grid_vertices

__all__ = ["StepBatch", "random_batch", "start_as_sphere"]

_RADIUS = 0.75
"""Radius of the sphere in world units; it covers about the same area as a typical object."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepBatch:
    """The batch of a step: b objects with i input views and v supervised views."""

    images: Float[Tensor, "b i 3 s s"]
    cameras: Float[Tensor, "b i 16"]
    views: Float[Tensor, "b v 4 4"]
    lenses: Float[Tensor, "b v 4"]
    rgb: Float[Tensor, "b v 3 h w"]
    alpha: Float[Tensor, "b v 1 h w"]
    depth: Float[Tensor, "b v 1 h w"]
    normals: Float[Tensor, "b v 3 h w"]

    @property
    def size(self) -> tuple[int, int]:
        """The rows and columns of the targets."""
        return self.rgb.shape[-2], self.rgb.shape[-1]


def random_batch(
    objects: int, inputs: int, views: int, image_size: int, size: int, device: torch.device
) -> StepBatch:
    """Return random images, with cameras distributed as in the rig `lrm32`."""
    rng = np.random.default_rng(0)
    eyes = [
        orbit_eye(360 * i / views, rng.uniform(-20, 30), rng.uniform(2, 3.5))
        for _ in range(objects)
        for i in range(views)
    ]
    poses = torch.from_numpy(np.stack([look_at(eye) for eye in eyes])).unflatten(
        0, (objects, views)
    )
    lenses = torch.from_numpy(intrinsics_from_fov(50)).expand(objects, views, 4)
    shape = (objects, views)
    normals = nn.functional.normalize(torch.randn(*shape, 3, size, size), dim=2)
    return StepBatch(
        images=torch.rand(objects, inputs, 3, image_size, image_size).to(device),
        cameras=camera_vector(poses[:, :inputs], lenses[:, :inputs]).to(device),
        views=poses.to(device),
        lenses=lenses.contiguous().to(device),
        rgb=torch.rand(*shape, 3, size, size).to(device),
        alpha=torch.rand(*shape, 1, size, size).round().to(device),
        depth=torch.rand(*shape, 1, size, size).to(device) + 2,
        normals=normals.to(device),
    )


def start_as_sphere(model: MeshLRM, device: torch.device) -> None:
    """Add a sphere's distances to those that the model predicts, which are scaled down.

    So the number of triangles is realistic from the first step, and hardly changes.
    """
    synthesizer = model.synthesizer
    last = synthesizer.decoder.net_sdf[-1]
    assert isinstance(last, nn.Linear)
    last.weight.data.mul_(0.01)
    config, predicted = synthesizer.config, synthesizer.distances
    grid = grid_vertices(config.grid_resolution, config.grid_size, device)
    sphere = grid.norm(dim=1) - _RADIUS

    def distances(planes: Float[Tensor, "b 3 c r r"]) -> Float[Tensor, "b v"]:
        return predicted(planes) + sphere

    synthesizer.distances = distances  # type: ignore[method-assign]
