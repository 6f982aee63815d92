"""What Zero123++ takes of a query picture; light enough for processes that only read."""

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
    """Query images for the VAE and for CLIP, as the extractors' own settings say; on white."""
    opaque = [_over_white(image) for image in images]
    vae, clip = (
        extractor(images=opaque, return_tensors="pt").pixel_values
        for extractor in (feature_extractor_vae, feature_extractor_clip)
    )
    return vae, clip


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
