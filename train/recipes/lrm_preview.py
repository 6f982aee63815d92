"""The preview image of both LRM stages: input views, targets, predictions."""

from dataclasses import dataclass

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from train.monitoring.depth_and_normals import depths_to_images, normals_to_images
from train.monitoring.preview import draw_rows

__all__ = ["ObjectViews", "comparison_picture"]

_KINDS = ("rgb", "alpha", "depth", "normals")


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectViews:
    """Target or predicted views of one object."""

    rgb: Float[Tensor, "v 3 h w"]
    alpha: Float[Tensor, "v 1 h w"]
    depth: Float[Tensor, "v 1 h w"]
    normals: Float[Tensor, "v 3 h w"]

    @classmethod
    def of_item(cls, item: dict[str, Tensor], views: slice) -> "ObjectViews":
        """Create from some of the target views of an item of stage 2."""
        return cls(**{name: item[f"target_{name}"][views] for name in _KINDS})

    def on_cpu(self) -> "ObjectViews":
        """Return the same views in float32 on the CPU."""
        return ObjectViews(**{name: getattr(self, name).cpu().float() for name in _KINDS})


def comparison_picture(
    inputs: Float[Tensor, "v 3 s s"],
    target: ObjectViews,
    prediction: ObjectViews,
    size: tuple[int, int],
) -> Image.Image:
    """Draw the input views, then rows of rgb, alpha, depth and normals.

    Each kind has a row of targets and a row of predictions, whose name ends with ^. `size` is
    (height, width) of a view.
    """
    rows = {"input": inputs.cpu()}
    target, prediction = target.on_cpu(), prediction.on_cpu()
    # Depth and normals are sampled at pixel centres, so their edges differ from those of alpha.
    target_mask = (target.depth > 0).float()
    predicted_mask = prediction.alpha * (prediction.depth > 0)
    depths = depths_to_images([target.depth, prediction.depth], [target_mask, predicted_mask])
    rows |= {"rgb": target.rgb, "rgb^": prediction.rgb}
    rows |= {"alpha": target.alpha, "alpha^": prediction.alpha}
    rows |= dict(zip(("depth", "depth^"), depths, strict=True))
    rows["normal"] = normals_to_images(target.normals, target_mask)
    rows["normal^"] = normals_to_images(prediction.normals, predicted_mask)
    return draw_rows(rows, size)
