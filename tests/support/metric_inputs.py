"""Inputs for tests of metrics: random images, and points on spheres."""

import math

import numpy as np
import torch


def noisy_images(seed: int, height: int = 37, width: int = 52) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two images and noisy copies of them: one slightly noisy, one almost only noise.

    Both are [2, 3, height, width] in [0, 1] and cover both ends of SSIM's range.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 5, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    noise = torch.rand(smooth.shape, generator=generator)
    return smooth, (smooth + torch.tensor([0.05, 0.8])[:, None, None, None] * noise).clamp(0, 1)


def sphere_points(count: int, radius: float) -> torch.Tensor:
    """Return points of a Fibonacci lattice on a sphere around the origin, [count, 3]."""
    i = np.arange(count) + 0.5
    z, angle = 1 - 2 * i / count, math.pi * (1 + math.sqrt(5)) * i
    ring = np.sqrt(1 - z**2)
    unit = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)
    return torch.from_numpy(radius * unit).float()
