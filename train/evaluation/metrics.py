"""How good pictures and shapes are: PSNR, SSIM, Chamfer distance, F-score and their companions.

Measures, not losses: those of point sets carry no gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from train.models.lpips import Lpips

__all__ = [
    "PointMatch",
    "chamfer_distance",
    "f_score",
    "mask_iou",
    "match_points",
    "normal_angle",
    "picture_metrics",
    "psnr",
    "ssim",
]

_LEAST_ERROR = 1e-10
"""Mean squared error below which PSNR stays at 100 dB: JSON knows no infinity."""
_WINDOW = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


def psnr(
    images: Float[Tensor, "*n c h w"], targets: Float[Tensor, "*n c h w"]
) -> Float[Tensor, "*n"]:
    """Peak signal-to-noise ratio of images in [0, 1], in dB: -10 log10(MSE); at most 100."""
    error = (images.float() - targets.float()).square().mean(dim=(-3, -2, -1))
    return -10 * error.clamp(min=_LEAST_ERROR).log10()


def ssim(
    images: Float[Tensor, "*n c h w"], targets: Float[Tensor, "*n c h w"]
) -> Float[Tensor, "*n"]:
    """Structural similarity of images in [0, 1] (Wang et al. 2004, equation 13).

    Gaussian window of 11 pixels and sigma 1.5, K1 0.01, K2 0.03; the mean over channels and over
    all places where the window lies inside the image. Raises ValueError for smaller images.
    """
    if min(images.shape[-2:]) < _WINDOW:
        height, width = images.shape[-2:]
        raise ValueError(f"SSIM needs images of {_WINDOW} pixels or more, not {height}x{width}")
    x, y = images.float(), targets.float()
    stacked = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, square_x, square_y, product = _blur(stacked)
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x**2 + mean_y**2 + _K1**2)
    structure = (2 * covariance + _K2**2) / (variance_x + variance_y + _K2**2)
    return (luminance * structure).mean(dim=(-3, -2, -1))


def _blur(images: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c r s"]:
    """Means under the Gaussian window, wherever it lies inside."""
    places = torch.arange(_WINDOW, device=images.device) - _WINDOW // 2
    kernel = torch.exp(-(places**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    flat = images.flatten(0, -3)[:, None]
    blurred = F.conv2d(F.conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None, :])
    return blurred.view(*images.shape[:-2], *blurred.shape[-2:])


def mask_iou(
    alpha: Float[Tensor, "*n 1 h w"], target: Float[Tensor, "*n 1 h w"]
) -> Float[Tensor, "*n"]:
    """Intersection over union of what is more than half opaque; 1 where both show nothing."""
    one, other = alpha > 0.5, target > 0.5
    union = (one | other).sum(dim=(-3, -2, -1))
    both = (one & other).sum(dim=(-3, -2, -1))
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


def picture_metrics(
    rgb: Float[Tensor, "*n 3 h w"],
    alpha: Float[Tensor, "*n 1 h w"],
    target_rgb: Float[Tensor, "*n 3 h w"],
    target_alpha: Float[Tensor, "*n 1 h w"],
    lpips: Lpips | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """What every stage is judged by, in the mean over its views: psnr, ssim, mask_iou, lpips.

    RGB on white, RGB and alpha in [0, 1]; what is rendered is clamped to that first. Without
    `lpips` that metric is left out.
    """
    rgb, target_rgb = rgb.float().clamp(0, 1).flatten(0, -4), target_rgb.float().flatten(0, -4)
    found = {
        "psnr": psnr(rgb, target_rgb),
        "ssim": ssim(rgb, target_rgb),
        "mask_iou": mask_iou(alpha.float(), target_alpha.float()),
    }
    if lpips is not None:
        found["lpips"] = lpips(rgb * 2 - 1, target_rgb * 2 - 1)
    return {name: values.mean() for name, values in found.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class PointMatch:
    """Each point's nearest point of the other set."""

    to_target: Float[Tensor, "b n"]
    """Euclidean distances, in world units."""
    to_points: Float[Tensor, "b m"]
    target_index: Tensor
    """`b n`: the place of the nearest target."""
    point_index: Tensor
    """`b m`: the place of the nearest point."""


def match_points(points: Float[Tensor, "b n 3"], targets: Float[Tensor, "b m 3"]) -> PointMatch:
    """Nearest neighbours both ways, exactly, by a k-d tree on the CPU; no gradient.

    Raises ValueError if a set is empty: an empty shape has no distance to anything.
    """
    if 0 in (points.shape[1], targets.shape[1]):
        raise ValueError("a set without points has no nearest point")
    there = [_nearest(one, other) for one, other in zip(points, targets, strict=True)]
    back = [_nearest(other, one) for one, other in zip(points, targets, strict=True)]
    return PointMatch(
        to_target=torch.stack([distance for distance, _ in there]),
        to_points=torch.stack([distance for distance, _ in back]),
        target_index=torch.stack([index for _, index in there]),
        point_index=torch.stack([index for _, index in back]),
    )


def _nearest(points: Float[Tensor, "n 3"], others: Float[Tensor, "m 3"]) -> tuple[Tensor, Tensor]:
    tree = cKDTree(others.detach().cpu().double().numpy())
    distance, index = tree.query(points.detach().cpu().double().numpy())
    device = points.device
    return torch.from_numpy(distance).float().to(device), torch.from_numpy(index).to(device)


def chamfer_distance(match: PointMatch) -> Float[Tensor, "b"]:
    """Chamfer-L1 (Mescheder et al. 2019): half of (mean distance of the points to the target plus
    mean distance of the target's points back); Euclidean distances, not squared.

    InstantMesh publishes neither its code for this nor whether it halves the sum: compare twice
    this value as well.
    """
    return (match.to_target.mean(dim=1) + match.to_points.mean(dim=1)) / 2


def f_score(match: PointMatch, threshold: float) -> Float[Tensor, "b"]:
    """Harmonic mean of precision and recall (Knapitsch et al. 2017): shares of points, and of the
    target's, that have the other set nearer than the threshold; 0 if none has.

    The paper's threshold is 0.2 in the box [-1, 1]^3.
    """
    precision = (match.to_target < threshold).float().mean(dim=1)
    recall = (match.to_points < threshold).float().mean(dim=1)
    return 2 * precision * recall / (precision + recall).clamp(min=torch.finfo(torch.float32).tiny)


def normal_angle(
    match: PointMatch, normals: Float[Tensor, "b n 3"], target_normals: Float[Tensor, "b m 3"]
) -> Float[Tensor, "b"]:
    """Angle in degrees between a point's unit normal and that of its nearest point: the mean of
    the means of both ways. A normal is told from its opposite."""
    there = _angles(normals, _take(target_normals, match.target_index))
    back = _angles(target_normals, _take(normals, match.point_index))
    return torch.rad2deg(there.mean(dim=1) + back.mean(dim=1)) / 2


def _take(values: Float[Tensor, "b n 3"], index: Tensor) -> Float[Tensor, "b m 3"]:
    return values.gather(1, index[..., None].expand(-1, -1, 3))


def _angles(a: Float[Tensor, "b n 3"], b: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
    # Not the arc cosine, which is blind to small angles in float32.
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(dim=-1))
