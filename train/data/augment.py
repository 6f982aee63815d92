"""Augmentation of cameras (InstantMesh, section 3.2): the object turns and grows with them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from core.config import Config, Fraction

__all__ = ["AugmentConfig", "Augmentation", "draw_augmentation"]


class AugmentConfig(Config):
    """How far the augmentation goes; the defaults are the published settings."""

    rotation: Fraction = 1.0
    """Probability of a random rotation about the z axis."""
    scaling: Fraction = 0.5
    """Probability of a random scaling of the world."""
    scale_min: PositiveFloat = 0.7
    scale_max: PositiveFloat = 1.1
    camera_noise: NonNegativeFloat = 0.02
    """Half width of the uniform noise on all 16 numbers of an input camera."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmentation:
    """One drawn augmentation of one sample."""

    rotation: Float[Tensor, "3 3"]
    """About z; world directions (cameras, normals) turn by it."""
    scale: float
    """World lengths (camera positions, depths) are multiplied by it."""
    noise: Float[Tensor, "v 16"]

    def transform(self, camera_to_world: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
        """Cameras that see the turned and scaled object exactly as they saw it before."""
        moved = camera_to_world.clone()
        moved[..., :3, :] = self.rotation @ camera_to_world[..., :3, :]
        moved[..., :3, 3] *= self.scale
        return moved

    def turn(self, normals: Float[Tensor, "v 3 h w"]) -> Float[Tensor, "v 3 h w"]:
        """Pictures of world directions, turned with the object."""
        return torch.einsum("ij,vjhw->vihw", self.rotation, normals)

    def add_noise(
        self, camera_to_world: Float[Tensor, "v 4 4"], intrinsics: Float[Tensor, "v 4"]
    ) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, "v 4"]]:
        """The input cameras as the model is told them: not quite where they are."""
        noisy = camera_to_world.clone()
        noisy[:, :3, :] += self.noise[:, :12].view(-1, 3, 4)
        return noisy, intrinsics + self.noise[:, 12:]


def draw_augmentation(
    config: AugmentConfig, rng: np.random.Generator, num_inputs: int
) -> Augmentation:
    """Draw an augmentation; the same generator state gives the same one."""
    turns, grows, angle, scale = rng.random(4)
    angle = 2 * math.pi * angle if turns < config.rotation else 0.0
    grown = config.scale_min + (config.scale_max - config.scale_min) * scale
    cos, sin = math.cos(angle), math.sin(angle)
    noise = rng.uniform(-config.camera_noise, config.camera_noise, size=(num_inputs, 16))
    return Augmentation(
        rotation=torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]),
        scale=float(grown) if grows < config.scaling else 1.0,
        noise=torch.from_numpy(noise).float(),
    )
