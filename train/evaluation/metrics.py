"""Metrics of images and shapes: PSNR, SSIM, mask IoU, Chamfer distance, F-score, normal angle.

They are not losses: the metrics of point sets have no gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train.models.lpips import Lpips
from train.models.surfaces.nearest_points import nearest_points, select_points

__all__ = [
    "PointMatch",
    "chamfer_distance",
    "f_score",
    "mask_iou",
    "match_points",
    "normal_angle",
    "picture_metrics",
    "psnr",
    "squared_metrics",
    "ssim",
]

_MIN_ERROR = 1e-10
"""Lower bound of the mean squared error: PSNR ends at 100 dB, because JSON has no infinity."""
_WINDOW = 11
"""Side of SSIM's window in pixels; this and the next constants are from Wang et al. 2004."""
_SIGMA = 1.5
"""Standard deviation of SSIM's Gaussian window in pixels."""
_K1, _K2 = 0.01, 0.03

_SQUARED_LIMITS = {"f_score_1e-4": 1e-4, "f_score_2e-4": 2e-4}
"""Limits on squared distances in Pixel2Mesh's F-scores: 1 cm and 1.4 cm in its metres."""


def psnr(
    images: Float[Tensor, "*n c h w"], targets: Float[Tensor, "*n c h w"]
) -> Float[Tensor, "*n"]:
    """Return the peak signal-to-noise ratio of images in [0, 1]: -10 log10(MSE) dB, at most 100."""
    error = (images.float() - targets.float()).square().mean(dim=(-3, -2, -1))
    return -10 * error.clamp(min=_MIN_ERROR).log10()


def ssim(
    images: Float[Tensor, "*n c h w"], targets: Float[Tensor, "*n c h w"]
) -> Float[Tensor, "*n"]:
    """Return the structural similarity of images in [0, 1] (Wang et al. 2004, equation 13).

    The window is a Gaussian of 11 pixels and sigma 1.5; K1 is 0.01, K2 0.03. The result is the mean
    over channels and over all positions at which the window lies inside the image. Raises
    ValueError if the images are smaller than the window.
    """
    if min(images.shape[-2:]) < _WINDOW:
        height, width = images.shape[-2:]
        raise ValueError(
            f"SSIM needs images of at least {_WINDOW} x {_WINDOW} pixels, not {height} x {width}"
        )
    x, y = images.float(), targets.float()
    stacked = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, square_x, square_y, product = _blur(stacked)
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x**2 + mean_y**2 + _K1**2)
    structure = (2 * covariance + _K2**2) / (variance_x + variance_y + _K2**2)
    return (luminance * structure).mean(dim=(-3, -2, -1))


def _blur(images: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c r s"]:
    """Return the means under the Gaussian window at all positions inside the image."""
    offsets = torch.arange(_WINDOW, device=images.device) - _WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    flat = images.flatten(0, -3)[:, None]
    blurred = F.conv2d(F.conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None, :])
    return blurred.view(*images.shape[:-2], *blurred.shape[-2:])


def mask_iou(
    alpha: Float[Tensor, "*n 1 h w"], target: Float[Tensor, "*n 1 h w"]
) -> Float[Tensor, "*n"]:
    """Return the intersection over union of the masks alpha > 0.5; 1 if both are empty."""
    mask, target_mask = alpha > 0.5, target > 0.5
    union = (mask | target_mask).sum(dim=(-3, -2, -1))
    intersection = (mask & target_mask).sum(dim=(-3, -2, -1))
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


def picture_metrics(
    rgb: Float[Tensor, "*n 3 h w"],
    alpha: Float[Tensor, "*n 1 h w"],
    target_rgb: Float[Tensor, "*n 3 h w"],
    target_alpha: Float[Tensor, "*n 1 h w"],
    lpips: Lpips | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Return psnr, ssim, mask_iou and lpips, each the mean over all views.

    RGB is on white; RGB and alpha are in [0, 1], and the rendered RGB is clamped to that range.
    The metric lpips is left out if `lpips` is None.
    """
    rgb, target_rgb = rgb.float().clamp(0, 1).flatten(0, -4), target_rgb.float().flatten(0, -4)
    metrics = {
        "psnr": psnr(rgb, target_rgb),
        "ssim": ssim(rgb, target_rgb),
        "mask_iou": mask_iou(alpha.float(), target_alpha.float()),
    }
    if lpips is not None:
        metrics["lpips"] = lpips(rgb * 2 - 1, target_rgb * 2 - 1)
    return {name: values.mean() for name, values in metrics.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class PointMatch:
    """Nearest neighbours between two point sets, in both directions."""

    to_target: Float[Tensor, "b n"]
    """Euclidean distance from each point to its nearest target, in world units."""
    to_points: Float[Tensor, "b m"]
    """Euclidean distance from each target to its nearest point, in world units."""
    target_index: Tensor
    """`b n`: index of each point's nearest target."""
    point_index: Tensor
    """`b m`: index of each target's nearest point."""


def match_points(points: Float[Tensor, "b n 3"], targets: Float[Tensor, "b m 3"]) -> PointMatch:
    """Find exact nearest neighbours in both directions with k-d trees on the CPU.

    The result has no gradient. Raises ValueError if a set is empty.
    """
    near = nearest_points(points.detach().cpu().double(), targets.detach().cpu().double())
    device = points.device
    return PointMatch(
        to_target=near.to_target.sqrt().float().to(device),
        to_points=near.to_points.sqrt().float().to(device),
        target_index=near.target_index.to(device),
        point_index=near.point_index.to(device),
    )


def chamfer_distance(match: PointMatch) -> Float[Tensor, "b"]:
    """Return the Chamfer-L1 distance (Mescheder et al. 2019).

    It is half the sum of the mean distance from points to targets and the mean distance from
    targets to points. Distances are Euclidean and not squared. InstantMesh does not say whether it
    halves the sum, so compare twice this value with its numbers, too.
    """
    return (match.to_target.mean(dim=1) + match.to_points.mean(dim=1)) / 2


def squared_metrics(match: PointMatch) -> dict[str, Float[Tensor, "b"]]:
    """Return the metrics of Pixel2Mesh (Wang et al. 2018, section 4).

    `chamfer_squared` is the mean squared distance from points to targets plus that from targets to
    points, times 1000. `f_score_1e-4` and `f_score_2e-4` are F-scores in which points match if
    their SQUARED distance is below 1e-4 and 2e-4. The paper's unit is 0.57 diagonals of the true
    object's bounding box.
    """
    squared = match.to_target.square().mean(dim=1) + match.to_points.square().mean(dim=1)
    scores = {name: f_score(match, limit**0.5) for name, limit in _SQUARED_LIMITS.items()}
    return {"chamfer_squared": 1000 * squared, **scores}


def f_score(match: PointMatch, threshold: float) -> Float[Tensor, "b"]:
    """Return the F-score: the harmonic mean of precision and recall (Knapitsch et al. 2017).

    Precision is the share of points nearer than `threshold` to a target, recall the share of
    targets nearer than that to a point. The result is 0 if both are 0. InstantMesh's threshold is
    0.2 in the box [-1, 1]^3.
    """
    precision = (match.to_target < threshold).float().mean(dim=1)
    recall = (match.to_points < threshold).float().mean(dim=1)
    return 2 * precision * recall / (precision + recall).clamp(min=torch.finfo(torch.float32).tiny)


def normal_angle(
    match: PointMatch, normals: Float[Tensor, "b n 3"], target_normals: Float[Tensor, "b m 3"]
) -> Float[Tensor, "b"]:
    """Return the mean angle in degrees between the unit normals of nearest neighbours.

    It is the average of the means in the two directions. Opposite normals are 180 degrees apart.
    """
    forward = _angles(normals, select_points(target_normals, match.target_index))
    backward = _angles(target_normals, select_points(normals, match.point_index))
    return torch.rad2deg(forward.mean(dim=1) + backward.mean(dim=1)) / 2


def _angles(a: Float[Tensor, "b n 3"], b: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
    # The arc cosine would be inaccurate for small angles in float32.
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(dim=-1))
