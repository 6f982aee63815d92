"""The scores of one object: of its pictures, of its shape, and of views made of a picture.

A shape is moved and scaled, by its bounding box, into [-1, 1]^3 before it is compared, and so is
the truth: where a thing stands and how large it is cannot be told from pictures.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from train.data.resize import resize
from train.evaluation.background import background_deviation, background_of, background_spread
from train.evaluation.metrics import (
    chamfer_distance,
    f_score,
    match_points,
    picture_metrics,
    psnr,
    ssim,
)
from train.evaluation.protocol import THRESHOLD
from train.models.lpips import Lpips

__all__ = [
    "SURFACE_METRICS",
    "VIEW_METRICS",
    "Cloud",
    "Pictures",
    "score_pictures",
    "score_surface",
    "score_views",
]

SURFACE_METRICS = ("chamfer", "f_score")
VIEW_METRICS = (
    "views_psnr",
    "views_ssim",
    "views_lpips",
    "background_deviation",
    "background_deviation_95",
    "background_spread",
)
"""Of the six views that Zero123++ makes."""
_VIEWS_AT_ONCE = 4
"""Bounds the memory of LPIPS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What v cameras see of an object."""

    rgb: Float[Tensor, "v 3 h w"]
    """On white, in [0, 1]."""
    alpha: Float[Tensor, "v 1 h w"]

    @classmethod
    def of_rgba(cls, rgba: UInt8[np.ndarray, "v h w 4"]) -> "Pictures":
        """From straight alpha."""
        values = torch.from_numpy(rgba).movedim(-1, 1).float() / 255
        alpha = values[:, 3:]
        return cls(rgb=values[:, :3] * alpha + (1 - alpha), alpha=alpha)

    def at(self, views: list[int]) -> "Pictures":
        """Some of the views."""
        return Pictures(rgb=self.rgb[views], alpha=self.alpha[views])


@dataclass(frozen=True, kw_only=True, eq=False)
class Cloud:
    """Points spread evenly over a surface, and the box that the surface fills."""

    points: Float[np.ndarray, "n 3"]
    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]

    @classmethod
    def on(cls, points: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "k 3"]) -> "Cloud":
        """Points of the surface that has these vertices."""
        return cls(points=points, low=vertices.min(axis=0), high=vertices.max(axis=0))

    def boxed(self) -> Float[Tensor, "1 n 3"]:
        """The points with the box's centre at the origin, its longest side 2."""
        longest = float((self.high - self.low).max())
        scaled = (self.points - (self.low + self.high) / 2) * (2 / max(longest, 1e-12))
        return torch.from_numpy(scaled.astype(np.float32))[None]


def score_pictures(shown: Pictures, truth: Pictures, lpips: Lpips | None) -> dict[str, float]:
    """psnr (dB, at most 100), ssim, mask_iou, and lpips if it is given: means over the views."""
    parts = torch.arange(len(truth.rgb)).split(_VIEWS_AT_ONCE)
    sums: dict[str, float] = {}
    for part in parts:
        one, other = shown.at(part.tolist()), truth.at(part.tolist())
        found = picture_metrics(one.rgb, one.alpha, other.rgb, other.alpha, lpips)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(part)
    return {name: total / len(truth.rgb) for name, total in sums.items()}


def score_views(
    made: Float[Tensor, "v 3 s s"], truth: Pictures, margin: int, lpips: Lpips | None
) -> dict[str, float]:
    """VIEW_METRICS of views that were made, at their size.

    The background is where the true views are clear, `margin` pixels away from the object; what has
    none has no score of it.
    """
    side = made.shape[-1]
    seen = resize({"rgb": truth.rgb, "alpha": truth.alpha}, side)
    background = background_of(seen["alpha"], margin)
    found = {
        "views_psnr": psnr(made, seen["rgb"]).mean(),
        "views_ssim": ssim(made, seen["rgb"]).mean(),
    }
    if background.any():
        mean, high = background_deviation(made, background)
        found |= {
            "background_deviation": mean,
            "background_deviation_95": high,
            "background_spread": background_spread(made, background),
        }
    if lpips is not None:
        found["views_lpips"] = lpips(made * 2 - 1, seen["rgb"] * 2 - 1).mean()
    return {name: float(value) for name, value in found.items()}


def score_surface(shape: Cloud, truth: Cloud, threshold: float = THRESHOLD) -> dict[str, float]:
    """chamfer (see `train.evaluation.metrics.chamfer_distance`: half of the sum) and f_score."""
    match = match_points(shape.boxed(), truth.boxed())
    return {
        "chamfer": float(chamfer_distance(match)),
        "f_score": float(f_score(match, threshold)),
    }
