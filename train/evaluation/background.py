"""Background metrics of generated views: how far from white, and how consistent between views.

They measure what the white-background fine-tune of Zero123++ is for.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["background_deviation", "background_of", "background_spread"]

_QUANTILE = 0.95


def background_of(alpha: Float[Tensor, "v 1 h w"], margin: int = 0) -> Bool[Tensor, "v h w"]:
    """Return the mask of background pixels.

    In x or in y, they are more than `margin` pixels away from every pixel of the object.
    """
    solid = (alpha > 0).float()
    if margin:
        solid = F.max_pool2d(solid, 2 * margin + 1, stride=1, padding=margin)
    return solid[:, 0] == 0


def background_deviation(
    views: Float[Tensor, "v 3 h w"], background: Bool[Tensor, "v h w"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean and 95th percentile of |pixel - white| over the background of all views.

    Views are in [0, 1]; a pixel's distance is the mean over its three channels. Both values are 0
    if no pixel is background.
    """
    distances = (1 - views.float()).abs().mean(dim=1)[background]
    if not len(distances):
        return distances.new_zeros(()), distances.new_zeros(())
    # torch.quantile takes at most 2^24 values.
    rank = 1 + int(_QUANTILE * (len(distances) - 1))
    return distances.mean(), distances.kthvalue(rank).values


def background_spread(
    views: Float[Tensor, "v 3 h w"], background: Bool[Tensor, "v h w"]
) -> Float[Tensor, ""]:
    """Return the largest difference between the mean background colours of any two views.

    It is the maximum over the three channels, and 0 if fewer than two views have background.
    """
    pairs = zip(views.float(), background, strict=True)
    means = [view[:, mask].mean(dim=1) for view, mask in pairs if mask.any()]
    if len(means) < 2:
        return views.new_zeros((), dtype=torch.float32)
    colours = torch.stack(means)
    return (colours.amax(dim=0) - colours.amin(dim=0)).amax()
