"""Preparation of query pictures for Zero123++'s VAE and CLIP.

The module imports no model, so that loader workers can use it cheaply.
"""

from collections.abc import Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["extract_query"]


def extract_query(
    images: Sequence[Image.Image],
    feature_extractor_vae: BaseImageProcessor,
    feature_extractor_clip: BaseImageProcessor,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 hc wc"]]:
    """Return query images for the VAE and for CLIP, on white, as prepared by the extractors."""
    opaque = [_over_white(image) for image in images]
    vae, clip = (
        extractor(images=opaque, return_tensors="pt").pixel_values
        for extractor in (feature_extractor_vae, feature_extractor_clip)
    )
    return vae, clip


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
