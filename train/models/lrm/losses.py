"""The training losses of InstantMesh (arXiv 2404.07191), term by term."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat
from torch import Tensor

from core.config import Config
from train.models.lrm.mesh import Geometry
from train.models.lrm.mesh_render import MeshViews
from train.models.surfaces.flexicubes import sdf_sign_loss

__all__ = ["Distance", "MeshLossConfig", "NerfLossConfig", "mesh_loss", "nerf_loss"]


Distance = Callable[[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]], Float[Tensor, "n"]]
"""Of each pair of RGB images in [-1, 1], such as `Lpips`."""
_REGULARIZERS = ("sdf_sign", "deviation", "weight_size")


class NerfLossConfig(Config):
    """Weights of the stage-1 terms; a term of weight 0 is left out."""

    mse: NonNegativeFloat = 1.0
    """Squared error of RGB, on images in [-1, 1]."""
    lpips: NonNegativeFloat = 2.0
    """Perceptual distance (VGG)."""
    mask: NonNegativeFloat = 1.0
    """Squared error of opacity."""


class MeshLossConfig(NerfLossConfig):
    """Weights of the stage-2 terms, which are those of stage 1 and more."""

    depth: NonNegativeFloat = 0.5
    """Absolute error of planar depth."""
    normal: NonNegativeFloat = 0.2
    """One minus the cosine between normals."""
    regularizer: NonNegativeFloat = 0.01
    """FlexiCubes' own terms together; each has its share below."""
    sdf_sign: NonNegativeFloat = 1.0
    """Share of the cross entropy of signs along the grid's edges."""
    deviation: NonNegativeFloat = 50.0
    """Share of L_dev: 0.5 of the whole, as released."""
    weight_size: NonNegativeFloat = 10.0
    """Share of the mean squared FlexiCubes weights: 0.1 of the whole, as released."""
    published_normal: bool = False
    """Do not tell a normal from its opposite, as released."""


def nerf_loss(
    rgb: Float[Tensor, "*n 3 h w"],
    alpha: Float[Tensor, "*n 1 h w"],
    target_rgb: Float[Tensor, "*n 3 h w"],
    target_alpha: Float[Tensor, "*n 1 h w"],
    config: NerfLossConfig,
    lpips: Distance | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Equation 1: the unweighted terms by name, and their weighted sum as `loss`.

    RGB on white, RGB and alpha in [0, 1]; what is rendered is clamped to that first. `lpips` is
    needed unless its weight is 0.
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
    """Equation 4: the unweighted terms by name, and their weighted sum as `loss`.

    Depth is planar and 0 where the target shows nothing; normals are unit vectors in world axes.
    Both are compared, in the mean, where the target has depth. What is left out is as in
    `nerf_loss`.
    """
    terms = _picture_terms(views.rgb, views.alpha, target_rgb, target_alpha, config, lpips)
    seen = target_depth > 0
    if config.depth:
        terms["depth"] = _mean_where((views.depth - target_depth).abs(), seen)
    if config.normal:
        cosines = (views.normals * target_normals).sum(dim=-3, keepdim=True)
        cosines = cosines.abs() if config.published_normal else cosines
        terms["normal"] = _mean_where(1 - cosines, seen)
    shares = {name: config.regularizer * getattr(config, name) for name in _REGULARIZERS}
    if shares["sdf_sign"]:
        terms["sdf_sign"] = sdf_sign_loss(geometry.sdf)
    if shares["deviation"]:
        terms["deviation"] = geometry.deviation
    if shares["weight_size"]:
        terms["weight_size"] = geometry.weight_size
    weights = {name: shares.get(name, getattr(config, name)) for name in terms}
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
            raise ValueError("the lpips term has a weight, but no Lpips was given")
        terms["lpips"] = lpips(rgb.flatten(0, -4), target_rgb.flatten(0, -4)).mean()
    if config.mask:
        terms["mask"] = F.mse_loss(alpha.float().clamp(0, 1), target_alpha.float())
    return terms


def _weighted(
    terms: dict[str, Tensor], weights: dict[str, float], like: Tensor
) -> dict[str, Tensor]:
    """The terms, and their weighted sum as `loss`; of no term, 0."""
    total = sum((weights[name] * term for name, term in terms.items()), like.new_zeros(()).float())
    return {"loss": total, **terms}


def _mean_where(values: Float[Tensor, "*n"], where: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """The mean over some places; of none, 0."""
    return (values * where).sum() / where.sum().clamp(min=1)


def _signed(images: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return images * 2 - 1
