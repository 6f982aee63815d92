"""Six views that Zero123++ makes of the first view of an object: the paper's input of an LRM."""

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
    """The query is centred as by `lrm multiview`; cameras are at `distance`, from its azimuth."""

    def generate(
        truth: Pictures, cameras: list[Camera]
    ) -> tuple[Float[Tensor, "6 3 s s"], list[Camera]]:
        query = prepare_query(_picture(truth))
        made = pipeline(
            [query.image],
            [seed],
            num_inference_steps=steps,
            guidance_scale=guidance,
            view_size=view_size,
        )
        return made.views[0].float().cpu(), input_cameras(distance, azimuth_of(cameras[0]))

    return generate


def _picture(truth: Pictures) -> Image.Image:
    """View 0 with straight alpha: its colours are taken off the white again."""
    rgb, alpha = truth.rgb[0], truth.alpha[0]
    straight = torch.where(alpha > 0, (rgb - (1 - alpha)) / alpha.clamp(min=1e-6), 1.0)
    rgba = torch.cat([straight.clamp(0, 1), alpha]).movedim(0, -1)
    return Image.fromarray((rgba * 255).round().byte().numpy())
