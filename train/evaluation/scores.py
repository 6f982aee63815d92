"""Scores of one object's rendered images and of its generated views.

Shapes are compared by the protocols of `train.evaluation.protocols`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from train.data.resize import resize
from train.evaluation.background import background_deviation, background_mask, background_spread
from train.evaluation.metrics import picture_metrics, psnr, ssim
from train.models.lpips import Lpips

__all__ = [
    "PICTURE_METRICS",
    "VIEW_METRICS",
    "Pictures",
    "PointCloud",
    "score_pictures",
    "score_views",
]

PICTURE_METRICS = {
    "psnr": "PSNR [dB]",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "mask_iou": "mask IoU",
}
"""Titles of the scores of rendered pictures, by key."""
VIEW_METRICS = {
    "views_psnr": "PSNR of the six views [dB]",
    "views_ssim": "SSIM of the six views",
    "views_lpips": "LPIPS of the six views",
    "background_deviation": "background deviation",
    "background_deviation_95": "background deviation, 95th percentile",
    "background_spread": "background spread",
}
"""Titles of the scores of the six views that Zero123++ generates, by key."""
_VIEWS_PER_CHUNK = 4
"""Views scored at once: bounds the memory of LPIPS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Images of an object from v cameras."""

    rgb: Float[Tensor, "v 3 h w"]
    """On white, in [0, 1]."""
    alpha: Float[Tensor, "v 1 h w"]

    @classmethod
    def from_rgba(cls, rgba: UInt8[np.ndarray, "v h w 4"]) -> "Pictures":
        """Return RGB on white and alpha from 8-bit RGBA with straight alpha."""
        values = torch.from_numpy(rgba).movedim(-1, 1).float() / 255
        alpha = values[:, 3:]
        return cls(rgb=values[:, :3] * alpha + (1 - alpha), alpha=alpha)

    def select(self, views: list[int]) -> "Pictures":
        """Return a subset of the views."""
        return Pictures(rgb=self.rgb[views], alpha=self.alpha[views])


@dataclass(frozen=True, kw_only=True, eq=False)
class PointCloud:
    """Points spread evenly over a surface, and the surface's bounding box."""

    points: Float[np.ndarray, "n 3"]
    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]

    @classmethod
    def from_surface(
        cls, points: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "k 3"]
    ) -> "PointCloud":
        """Return points of a surface with the bounding box of its vertices."""
        return cls(points=points, low=vertices.min(axis=0), high=vertices.max(axis=0))

    def normalised(self) -> Float[Tensor, "1 n 3"]:
        """Return the points moved and scaled so that the box is centred with longest side 2."""
        longest = float((self.high - self.low).max())
        scaled = (self.points - (self.low + self.high) / 2) * (2 / max(longest, 1e-12))
        return torch.from_numpy(scaled.astype(np.float32))[None]


def score_pictures(
    prediction: Pictures, reference: Pictures, lpips: Lpips | None
) -> dict[str, float]:
    """Return psnr (dB, at most 100), ssim and mask_iou, and lpips if given, as means over views."""
    chunks = torch.arange(len(reference.rgb)).split(_VIEWS_PER_CHUNK)
    sums: dict[str, float] = {}
    for chunk in chunks:
        views, targets = prediction.select(chunk.tolist()), reference.select(chunk.tolist())
        metrics = picture_metrics(views.rgb, views.alpha, targets.rgb, targets.alpha, lpips)
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(chunk)
    return {name: total / len(reference.rgb) for name, total in sums.items()}


def score_views(
    generated: Float[Tensor, "v 3 s s"], reference: Pictures, margin: int, lpips: Lpips | None
) -> dict[str, float]:
    """Return the VIEW_METRICS of generated views, at the generated size.

    Background pixels are transparent in the reference and more than `margin` pixels away from the
    object. Without such pixels the background scores are left out, and without `lpips` views_lpips.
    """
    side = generated.shape[-1]
    targets = resize({"rgb": reference.rgb, "alpha": reference.alpha}, side)
    background = background_mask(targets["alpha"], margin)
    scores = {
        "views_psnr": psnr(generated, targets["rgb"]).mean(),
        "views_ssim": ssim(generated, targets["rgb"]).mean(),
    }
    if background.any():
        mean, high = background_deviation(generated, background)
        scores |= {
            "background_deviation": mean,
            "background_deviation_95": high,
            "background_spread": background_spread(generated, background),
        }
    if lpips is not None:
        scores["views_lpips"] = lpips(generated * 2 - 1, targets["rgb"] * 2 - 1).mean()
    return {name: float(value) for name, value in scores.items()}
