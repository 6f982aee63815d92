"""The training losses of InstantMesh (arXiv 2404.07191), term by term."""

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeFloat
from torch import Tensor

from dataset.config import Config
from train.lpips import Lpips

__all__ = ["NerfLossConfig", "nerf_loss"]


class NerfLossConfig(Config):
    """Weights of the stage-1 terms; a term of weight 0 is left out."""

    mse: NonNegativeFloat = 1.0
    """Squared error of RGB, on images in [-1, 1]."""
    lpips: NonNegativeFloat = 2.0
    """Perceptual distance (VGG)."""
    mask: NonNegativeFloat = 1.0
    """Squared error of opacity."""


def nerf_loss(
    rgb: Float[Tensor, "*n 3 h w"],
    alpha: Float[Tensor, "*n 1 h w"],
    target_rgb: Float[Tensor, "*n 3 h w"],
    target_alpha: Float[Tensor, "*n 1 h w"],
    config: NerfLossConfig,
    lpips: Lpips | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Equation 1: the unweighted terms by name, and their weighted sum as `loss`.

    RGB on white, RGB and alpha in [0, 1]; what is rendered is clamped to that first. `lpips` is
    needed unless its weight is 0.
    """
    rgb, target_rgb = _signed(rgb.float().clamp(0, 1)), _signed(target_rgb.float())
    terms: dict[str, Tensor] = {}
    if config.mse:
        terms["mse"] = F.mse_loss(rgb, target_rgb)
    if config.lpips:
        if lpips is None:
            raise ValueError("the lpips term has a weight, but no Lpips was given")
        terms["lpips"] = lpips(rgb.flatten(0, -4), target_rgb.flatten(0, -4)).mean()
    if config.mask:
        terms["mask"] = F.mse_loss(alpha.float().clamp(0, 1), target_alpha.float())
    total = sum((getattr(config, name) * term for name, term in terms.items()), rgb.new_zeros(()))
    return {"loss": total, **terms}


def _signed(images: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return images * 2 - 1
