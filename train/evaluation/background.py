"""Is the background white, and the same in all views? What the fine-tune of Zero123++ is for."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["background_deviation", "background_of", "background_spread"]

_SHARE = 0.95


def background_of(alpha: Float[Tensor, "v 1 h w"], margin: int = 0) -> Bool[Tensor, "v h w"]:
    """Pixels where nothing of the object is, nor within `margin` pixels in x and y of it."""
    solid = (alpha > 0).float()
    if margin:
        solid = F.max_pool2d(solid, 2 * margin + 1, stride=1, padding=margin)
    return solid[:, 0] == 0


def background_deviation(
    views: Float[Tensor, "v 3 h w"], background: Bool[Tensor, "v h w"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean and 95th percentile of |pixel - white| over the background of all views together.

    Views in [0, 1]; a pixel's distance is the mean of its three channels'. 0 without background.
    """
    distances = (1 - views.float()).abs().mean(dim=1)[background]
    if not len(distances):
        return distances.new_zeros(()), distances.new_zeros(())
    # Not torch.quantile, which takes no more than 2^24 numbers.
    place = 1 + int(_SHARE * (len(distances) - 1))
    return distances.mean(), distances.kthvalue(place).values


def background_spread(
    views: Float[Tensor, "v 3 h w"], background: Bool[Tensor, "v h w"]
) -> Float[Tensor, ""]:
    """How far apart the views' backgrounds are: the largest difference of two views' mean colours.

    Over the three channels; 0 where fewer than two views have a background.
    """
    pairs = zip(views.float(), background, strict=True)
    means = [view[:, there].mean(dim=1) for view, there in pairs if there.any()]
    if len(means) < 2:
        return views.new_zeros((), dtype=torch.float32)
    colours = torch.stack(means)
    return (colours.amax(dim=0) - colours.amin(dim=0)).amax()
