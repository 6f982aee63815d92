"""Camera augmentation (InstantMesh, section 3.2): random rotation and scaling of the world."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.config import Config, Fraction, NonNegativeFloat, PositiveFloat

__all__ = ["AugmentConfig", "Augmentation", "draw_augmentation"]


class AugmentConfig(Config):
    """Strength of the camera augmentation; the defaults are the published settings."""

    rotation: Fraction = 1.0
    """Probability of a random rotation of the object about the z axis."""
    scaling: Fraction = 0.5
    """Probability of a random scaling of the object and its camera positions."""
    scale_min: PositiveFloat = 0.7
    """Smallest factor of the random scaling."""
    scale_max: PositiveFloat = 1.1
    """Largest factor of the random scaling."""
    camera_noise: NonNegativeFloat = 0.02
    """Half width of the uniform noise that is added to each of the 16 numbers of an input
    camera."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmentation:
    """The augmentation of one sample."""

    rotation: Float[Tensor, "3 3"]
    """Rotation about z, applied to world directions (cameras, normals)."""
    scale: float
    """Factor of world lengths (camera positions, depths)."""
    noise: Float[Tensor, "v 16"]
    """Noise of the input cameras: 12 numbers of camera_to_world, 4 of the intrinsics."""

    def transform(self, camera_to_world: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
        """Return the cameras whose views of the rotated and scaled object are unchanged."""
        moved = camera_to_world.clone()
        moved[..., :3, :] = self.rotation @ camera_to_world[..., :3, :]
        moved[..., :3, 3] *= self.scale
        return moved

    def turn(self, normals: Float[Tensor, "v 3 h w"]) -> Float[Tensor, "v 3 h w"]:
        """Return images of world directions, rotated with the object."""
        return torch.einsum("ij,vjhw->vihw", self.rotation, normals)

    def add_noise(
        self, camera_to_world: Float[Tensor, "v 4 4"], intrinsics: Float[Tensor, "v 4"]
    ) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, "v 4"]]:
        """Return the input cameras with noise, as the model receives them."""
        noisy = camera_to_world.clone()
        noisy[:, :3, :] += self.noise[:, :12].view(-1, 3, 4)
        return noisy, intrinsics + self.noise[:, 12:]


def draw_augmentation(
    config: AugmentConfig, rng: np.random.Generator, num_inputs: int
) -> Augmentation:
    """Draw an augmentation; the same generator state gives the same one."""
    rotation_draw, scaling_draw, angle, scale = rng.random(4)
    angle = 2 * math.pi * angle if rotation_draw < config.rotation else 0.0
    scale = config.scale_min + (config.scale_max - config.scale_min) * scale
    cos, sin = math.cos(angle), math.sin(angle)
    noise = rng.uniform(-config.camera_noise, config.camera_noise, size=(num_inputs, 16))
    return Augmentation(
        rotation=torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]),
        scale=float(scale) if scaling_draw < config.scaling else 1.0,
        noise=torch.from_numpy(noise).float(),
    )
