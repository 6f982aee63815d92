"""Six views that Zero123++ generates from an object's first view: the LRM's input in the paper."""

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dataset.cameras import Camera
from train.evaluation.predict import Generate, azimuth_of
from train.evaluation.scores import Pictures
from train.inference.query import prepare_query
from train.inference.six_views import DISTANCE, input_cameras
from train.models.zero123plus.pipeline import Zero123PlusPipeline
from train.models.zero123plus.sampling_defaults import GUIDANCE_SCALE

__all__ = ["six_views_of_first"]


def six_views_of_first(
    pipeline: Zero123PlusPipeline,
    *,
    steps: int,
    seed: int,
    view_size: int,
    guidance: float = GUIDANCE_SCALE,
    distance: float = DISTANCE,
) -> Generate:
    """Return a function that generates six views of an object from its view 0.

    The query is centred as by `lrm multiview`. The returned cameras are `distance` world units from
    the origin, and their azimuths are relative to that of view 0.
    """

    def generate(
        reference: Pictures, cameras: list[Camera]
    ) -> tuple[Float[Tensor, "6 3 s s"], list[Camera]]:
        query = prepare_query(_first_view(reference))
        result = pipeline(
            [query.image],
            [seed],
            num_inference_steps=steps,
            guidance_scale=guidance,
            view_size=view_size,
        )
        return result.views[0].float().cpu(), input_cameras(distance, azimuth_of(cameras[0]))

    return generate


def _first_view(reference: Pictures) -> Image.Image:
    """Return view 0 with straight alpha, by removing the white background from its colours."""
    rgb, alpha = reference.rgb[0], reference.alpha[0]
    straight = torch.where(alpha > 0, (rgb - (1 - alpha)) / alpha.clamp(min=1e-6), 1.0)
    rgba = torch.cat([straight.clamp(0, 1), alpha]).movedim(0, -1)
    return Image.fromarray((rgba * 255).round().byte().numpy())
