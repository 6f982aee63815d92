"""The training losses of InstantMesh (arXiv 2404.07191), term by term."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from core.config import Config, NonNegativeFloat
from train.models.lrm.mesh import Geometry
from train.models.lrm.mesh_render import MeshViews
from train.models.surfaces.flexicubes import sdf_sign_loss

__all__ = ["Distance", "MeshLossConfig", "NerfLossConfig", "mesh_loss", "nerf_loss"]


Distance = Callable[[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]], Float[Tensor, "n"]]
"""Returns the distance of each pair of RGB images in [-1, 1]; for example `Lpips`."""
_REGULARIZERS = ("sdf_sign", "deviation", "weight_size")


class NerfLossConfig(Config):
    """Weights of the stage-1 loss terms; a term of weight 0 is left out."""

    mse: NonNegativeFloat = 1.0
    """Weight of the mean squared error of RGB in [-1, 1]."""
    lpips: NonNegativeFloat = 2.0
    """Weight of the perceptual distance (LPIPS with VGG16)."""
    mask: NonNegativeFloat = 1.0
    """Weight of the mean squared error of opacity."""


class MeshLossConfig(NerfLossConfig):
    """Weights of the stage-2 loss terms: those of stage 1, geometry and regularizers."""

    depth: NonNegativeFloat = 0.5
    """Weight of the mean absolute error of planar depth."""
    normal: NonNegativeFloat = 0.2
    """Weight of one minus the cosine between normals."""
    regularizer: NonNegativeFloat = 0.01
    """Factor on the weights of the three FlexiCubes regularizers below."""
    sdf_sign: NonNegativeFloat = 1.0
    """Weight of the cross entropy of signs along the grid's edges, times `regularizer`."""
    deviation: NonNegativeFloat = 50.0
    """Weight of L_dev, times `regularizer`: 0.5 in total, as released."""
    weight_size: NonNegativeFloat = 10.0
    """Weight of the mean squared FlexiCubes weights, times `regularizer`: 0.1, as released."""
    published_normal: bool = False
    """Count opposite normals as equal, as in the released code."""


def nerf_loss(
    rgb: Float[Tensor, "*n 3 h w"],
    alpha: Float[Tensor, "*n 1 h w"],
    target_rgb: Float[Tensor, "*n 3 h w"],
    target_alpha: Float[Tensor, "*n 1 h w"],
    config: NerfLossConfig,
    lpips: Distance | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Return the unweighted terms of equation 1 by name, and their weighted sum as `loss`.

    RGB is on white; RGB and alpha are in [0, 1], and rendered values are clamped to that range.
    Raises ValueError if `lpips` is None and its weight is not 0.
    """
    terms = _picture_terms(rgb, alpha, target_rgb, target_alpha, config, lpips)
    return _weighted(terms, {name: getattr(config, name) for name in terms}, alpha)


def mesh_loss(
    views: MeshViews,
    geometry: Geometry,
    target_rgb: Float[Tensor, "*n 3 h w"],
    target_alpha: Float[Tensor, "*n 1 h w"],
    target_depth: Float[Tensor, "*n 1 h w"],
    target_normals: Float[Tensor, "*n 3 h w"],
    config: MeshLossConfig,
    lpips: Distance | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Return the unweighted terms of equation 4 by name, and their weighted sum as `loss`.

    Depth is planar and 0 for background; normals are unit vectors in world axes. Their terms are
    means over the pixels at which the target has depth. Images, alpha and `lpips` are as in
    `nerf_loss`.
    """
    terms = _picture_terms(views.rgb, views.alpha, target_rgb, target_alpha, config, lpips)
    foreground = target_depth > 0
    if config.depth:
        terms["depth"] = _mean_where((views.depth - target_depth).abs(), foreground)
    if config.normal:
        cosines = (views.normals * target_normals).sum(dim=-3, keepdim=True)
        cosines = cosines.abs() if config.published_normal else cosines
        terms["normal"] = _mean_where(1 - cosines, foreground)
    regularizers = {name: config.regularizer * getattr(config, name) for name in _REGULARIZERS}
    if regularizers["sdf_sign"]:
        terms["sdf_sign"] = sdf_sign_loss(geometry.sdf)
    if regularizers["deviation"]:
        terms["deviation"] = geometry.deviation
    if regularizers["weight_size"]:
        terms["weight_size"] = geometry.weight_size
    weights = {name: regularizers.get(name, getattr(config, name)) for name in terms}
    return _weighted(terms, weights, views.alpha)


def _picture_terms(
    rgb: Float[Tensor, "*n 3 h w"],
    alpha: Float[Tensor, "*n 1 h w"],
    target_rgb: Float[Tensor, "*n 3 h w"],
    target_alpha: Float[Tensor, "*n 1 h w"],
    config: NerfLossConfig,
    lpips: Distance | None,
) -> dict[str, Tensor]:
    rgb, target_rgb = _signed(rgb.float().clamp(0, 1)), _signed(target_rgb.float())
    terms: dict[str, Tensor] = {}
    if config.mse:
        terms["mse"] = F.mse_loss(rgb, target_rgb)
    if config.lpips:
        if lpips is None:
            raise ValueError("the weight of the lpips term is not 0, but no Lpips was given")
        terms["lpips"] = lpips(rgb.flatten(0, -4), target_rgb.flatten(0, -4)).mean()
    if config.mask:
        terms["mask"] = F.mse_loss(alpha.float().clamp(0, 1), target_alpha.float())
    return terms


def _weighted(
    terms: dict[str, Tensor], weights: dict[str, float], like: Tensor
) -> dict[str, Tensor]:
    """Return the terms, and their weighted sum as `loss`, which is 0 without terms."""
    total = sum((weights[name] * term for name, term in terms.items()), like.new_zeros(()).float())
    return {"loss": total, **terms}


def _mean_where(values: Float[Tensor, "*n"], where: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Return the mean of the values where the mask is true; 0 if it is false everywhere."""
    return (values * where).sum() / where.sum().clamp(min=1)


def _signed(images: Tensor) -> Tensor:
    """Map values from [0, 1] to [-1, 1]."""
    return images * 2 - 1
