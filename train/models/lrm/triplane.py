"""Triplanes: the transformer that computes them from image tokens, and sampling at points.

See InstantMesh (arXiv 2404.07191), section 3.2, and LRM (arXiv 2311.04400). Module names are the
keys of the published checkpoints.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from core.config import Config, PositiveInt
from train.models.recompute import recompute_in_backward

__all__ = ["TriplaneConfig", "TriplaneTransformer", "sample_planes"]

_MLP_RATIO = 4


class TriplaneConfig(Config):
    """Sizes of the transformer and its planes; the defaults are InstantMesh base."""

    num_layers: Annotated[int, Field(gt=0, le=256)] = 12
    """Number of layers."""
    width: PositiveInt = 1024
    """Number of features per token."""
    num_heads: PositiveInt = 16
    """Number of attention heads; must divide `width`."""
    low_resolution: PositiveInt = 32
    """Number of tokens along a side of a plane."""
    high_resolution: PositiveInt = 64
    """Number of texels along a side of an output plane; a multiple of `low_resolution`."""
    channels: PositiveInt = 40
    """Number of channels of an output plane."""

    @model_validator(mode="after")
    def _sizes_divide(self) -> "TriplaneConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.high_resolution % self.low_resolution:
            raise ValueError(
                f"high_resolution {self.high_resolution} is not a multiple of low_resolution "
                f"{self.low_resolution}"
            )
        return self


class TriplaneTransformer(nn.Module):
    """Transformer from image tokens to three feature planes: the model's `transformer`."""

    def __init__(self, config: TriplaneConfig, feature_width: int) -> None:
        """Initialise the weights; `feature_width` is the number of features per image token."""
        super().__init__()
        low, width = config.low_resolution, config.width
        self._low_resolution = low
        self._recompute = False
        self.pos_embed = nn.Parameter(torch.randn(1, 3 * low**2, width) * width**-0.5)
        self.layers = nn.ModuleList(
            _Block(width, config.num_heads, feature_width) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        factor = config.high_resolution // low
        self.deconv = nn.ConvTranspose2d(width, config.channels, kernel_size=factor, stride=factor)

    def recompute_layers(self) -> None:
        """Turn on activation checkpointing of each layer, to save memory."""
        self._recompute = True

    def forward(self, features: Float[Tensor, "b t f"]) -> Float[Tensor, "b 3 c r r"]:
        """Return the planes of each object from the tokens of all its views."""
        x = self.pos_embed.expand(len(features), -1, -1)
        for layer in self.layers:
            x = recompute_in_backward(layer, self._recompute)(x, features)
        side = self._low_resolution
        grids = self.norm(x).reshape(-1, side, side, x.shape[-1]).permute(0, 3, 1, 2)
        return self.deconv(grids.contiguous()).unflatten(0, (-1, 3))


class _Block(nn.Module):
    """Layer of cross-attention to the image, self-attention over the planes and MLP; pre-norm."""

    def __init__(self, width: int, num_heads: int, feature_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = nn.MultiheadAttention(
            width, num_heads, kdim=feature_width, vdim=feature_width, bias=False, batch_first=True
        )
        self.norm2 = nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, num_heads, bias=False, batch_first=True)
        self.norm3 = nn.LayerNorm(width)
        # The published keys are mlp.0 and mlp.3, with a dropout of rate 0 at mlp.2.
        self.mlp = nn.Sequential(
            nn.Linear(width, _MLP_RATIO * width),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(_MLP_RATIO * width, width),
        )

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        x = x + self.cross_attn(self.norm1(x), features, features, need_weights=False)[0]
        h = self.norm2(x)
        x = x + self.self_attn(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm3(x))


def sample_planes(
    planes: Float[Tensor, "b 3 c r r"], points: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b n f"]:
    """Return the features of world points: the bilinear samples of three planes, f = 3 c.

    The planes' (width, height) axes are world (x, y), (x, z) and (z, y). They span [-1, 1];
    features fade to zero from half a texel inside the faces to half a texel outside them.
    Sampling is done in float32, because bfloat16 coordinates are too coarse.
    """
    x, y, z = points.float().unbind(-1)
    positions = torch.stack([x, y, x, z, z, y], dim=-1).unflatten(-1, (3, 1, 2)).transpose(1, 2)
    sampled = F.grid_sample(
        planes.float().flatten(0, 1), positions.flatten(0, 1), mode="bilinear", align_corners=False
    )
    return sampled.unflatten(0, (-1, 3)).flatten(1, 2).squeeze(-1).transpose(1, 2)
