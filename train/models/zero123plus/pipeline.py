"""Zero123++ v1.2 as a diffusers pipeline: from one picture of an object to six views.

Report: arXiv 2310.15110. The parts are classes of diffusers and transformers, named after the
folders of the published weights. Specific to Zero123++ are the reference attention, the ranges of
images and latents, and the ramped prompt, each in its own module of this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    UNet2DConditionModel,
)
from diffusers.utils import BaseOutput
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)
from transformers.image_processing_utils import BaseImageProcessor

from core.errors import BadInput, LrmError
from train.models.zero123plus.components import (
    checked_folder,
    pixels_per_latent,
    weights_error,
)
from train.models.zero123plus.conditioning import extract_query
from train.models.zero123plus.latents import (
    SHEET,
    image_from_vae,
    image_to_vae,
    latents_from_target,
    latents_to_target,
    ramped_prompt,
    tile_views,
    untile_views,
)
from train.models.zero123plus.pipeline_files import check_finite
from train.models.zero123plus.reference_attention import ReferenceUNet
from train.models.zero123plus.sampling import denoising_steps, first_latents, sampling_scheduler
from train.models.zero123plus.sampling_defaults import GUIDANCE_SCALE, NUM_STEPS, VIEW_SIZE

__all__ = [
    "SixViews",
    "Zero123PlusPipeline",
    "load_zero123plus",
]


@dataclass
class SixViews(BaseOutput):
    """Output of the pipeline: six views of each query, and their sheets."""

    images: list[Image.Image]
    """One sheet of 3 rows and 2 columns of views for each query."""
    views: Float[Tensor, "b 6 3 h w"]
    """RGB in [0, 1]. View i: azimuth 30° + 60° · i from the query's, elevation 20° or -10°."""


class Zero123PlusPipeline(DiffusionPipeline):
    """The parts of Zero123++, saved and loaded by their names (`from_pretrained`)."""

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: EulerAncestralDiscreteScheduler,
        vision_encoder: CLIPVisionModelWithProjection,
        feature_extractor_clip: BaseImageProcessor,
        feature_extractor_vae: BaseImageProcessor,
        ramping_coefficients: list[float] | None = None,
    ) -> None:
        """Register the parts.

        Raises BadInput unless `ramping_coefficients` has one number per token of the prompt.
        """
        super().__init__()
        tokens = tokenizer.model_max_length
        if ramping_coefficients is None or len(ramping_coefficients) != tokens:
            count = "no" if ramping_coefficients is None else f"{len(ramping_coefficients)}"
            raise BadInput(
                f"Zero123++: model_index.json has {count} ramping_coefficients, but the prompt has "
                f"{tokens} tokens; use the model_index.json that came with the weights"
            )
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            vision_encoder=vision_encoder,
            feature_extractor_clip=feature_extractor_clip,
            feature_extractor_vae=feature_extractor_vae,
        )
        self.register_to_config(ramping_coefficients=list(ramping_coefficients))
        # Without torchvision the class has a name that other versions of transformers lack.
        processor = ("transformers", "CLIPImageProcessor")
        self.register_to_config(feature_extractor_clip=processor, feature_extractor_vae=processor)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the pipeline with the file and key names of the published folder.

        Earlier versions of transformers would not find some keys that transformers 5 writes by
        default, and would use a randomly initialised text encoder.
        """
        folder = Path(save_directory)
        super().save_pretrained(folder, **kwargs)
        self.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
        weights = self.text_encoder.state_dict()
        published = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in weights.items()}
        options = {k: v for k, v in kwargs.items() if k in ("variant", "max_shard_size")}
        self.text_encoder.save_pretrained(folder / "text_encoder", state_dict=published, **options)

    # Encoding of pictures

    def query_pixels(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 hc wc"]]:
        """Return query images for the VAE and for CLIP, resized and cropped to squares.

        Images with alpha are composited over white.
        """
        extractors = (self.feature_extractor_vae, self.feature_extractor_clip)
        vae, clip = extract_query(images, *extractors)
        return vae.to(self.device, self.dtype), clip.to(self.device, self.dtype)

    def unconditional_pixels(
        self, like: Float[Tensor, "b 3 h w"], level: float
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the VAE input of an unconditional image: one grey level, given in [0, 1]."""
        return image_to_vae(torch.full_like(like, level))

    @torch.no_grad()
    def encode_condition(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        generators: Sequence[torch.Generator] | None = None,
    ) -> Float[Tensor, "b c hr wr"]:
        """Return condition latents, sampled from the VAE's posterior and not scaled."""
        return _sample_latents(self.vae, pixels, generators)

    @torch.no_grad()
    def encode_targets(
        self,
        views: Float[Tensor, "b 6 3 h w"],
        generators: Sequence[torch.Generator] | None = None,
    ) -> Float[Tensor, "b c hs ws"]:
        """Return the latents that are denoised, from six views in [0, 1]."""
        pixels = image_to_vae(tile_views(views)).to(self.device, self.dtype)
        return latents_to_target(
            _sample_latents(self.vae, pixels, generators), self.vae.config.scaling_factor
        )

    @torch.no_grad()
    def decode_targets(self, latents: Float[Tensor, "b c hs ws"]) -> Float[Tensor, "b 6 3 h w"]:
        """Return six views in [0, 1] from denoised latents."""
        decoded = self.vae.decode(latents_from_target(latents, self.vae.config.scaling_factor))
        return untile_views(image_from_vae(decoded.sample))

    @torch.no_grad()
    def empty_prompt(self) -> Float[Tensor, "1 t d"]:
        """Return the text embedding of the empty prompt: the unconditional global condition."""
        tokens = self.tokenizer("", padding="max_length", return_tensors="pt").input_ids
        return self.text_encoder(tokens.to(self.device)).last_hidden_state

    @torch.no_grad()
    def encode_prompt(self, pixels: Float[Tensor, "b 3 hc wc"]) -> Float[Tensor, "b t d"]:
        """Return the global condition of query images that `query_pixels` prepared for CLIP."""
        embeddings = self.vision_encoder(pixels).image_embeds
        ramp = embeddings.new_tensor(self.config.ramping_coefficients)
        return ramped_prompt(self.empty_prompt(), embeddings, ramp)

    # Sampling of views

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[Image.Image],
        seeds: Sequence[int],
        *,
        num_inference_steps: int = NUM_STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        view_size: int = VIEW_SIZE,
        unconditional_level: float = 0.5,
    ) -> SixViews:
        """Generate six views of the object in each query image.

        `seeds` has one seed per image, so that results do not depend on the other images of the
        call. `view_size` is a view's side in pixels. `unconditional_level` is the grey level in
        [0, 1] of the unconditional image, by default that of the published pipeline. A
        `guidance_scale` of 1 or less turns guidance off. Raises BadInput for a wrong number of
        seeds, steps or pixels.
        """
        if not images or len(seeds) != len(images):
            raise BadInput(
                f"Zero123++: {len(images)} images and {len(seeds)} seeds; give one seed per image"
            )
        views = self.sample(
            *self.query_pixels(images),
            seeds,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            view_size=view_size,
            unconditional_level=unconditional_level,
        )
        return SixViews(images=[_to_image(sheet) for sheet in tile_views(views)], views=views)

    @torch.no_grad()
    def sample(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        clip_pixels: Float[Tensor, "b 3 hc wc"],
        seeds: Sequence[int],
        *,
        num_inference_steps: int,
        guidance_scale: float,
        view_size: int,
        unconditional_level: float,
    ) -> Float[Tensor, "b 6 3 h6 w6"]:
        """Generate views in [0, 1] of queries that `query_pixels` prepared; see `__call__`."""
        self._check(num_inference_steps, view_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        prompt = self.encode_prompt(clip_pixels)
        condition = self.encode_condition(pixels, generators)
        if guidance_scale > 1:
            empty = self.empty_prompt().expand(len(pixels), -1, -1)
            prompt = torch.cat([empty, prompt])
            unconditional = self.encode_condition(
                self.unconditional_pixels(pixels, unconditional_level), generators
            )
            condition = torch.cat([unconditional, condition])
        scheduler = sampling_scheduler(self.scheduler.config, num_inference_steps, self.device)
        latents = first_latents(
            self._latent_shape(len(pixels), view_size), scheduler, generators, condition
        )
        unet = ReferenceUNet(self.unet)
        steps = denoising_steps(
            unet, scheduler, latents, prompt, condition, guidance_scale, generators
        )
        with self.progress_bar(total=num_inference_steps) as bar:
            for step_latents in steps:
                latents = step_latents
                bar.update()
        return self.decode_targets(latents)

    @property
    def pixels_per_latent(self) -> int:
        """Width of a latent in pixels: 8 for Stable Diffusion's VAE."""
        return pixels_per_latent(self.vae.config)

    def _latent_shape(self, num: int, view_size: int) -> tuple[int, int, int, int]:
        side = view_size // self.pixels_per_latent
        rows, columns = SHEET
        return num, self.unet.config.in_channels, rows * side, columns * side

    def _check(self, num_steps: int, view_size: int) -> None:
        if num_steps < 1:
            raise BadInput(f"Zero123++: {num_steps} inference steps; give at least 1")
        if view_size < 1 or view_size % self.pixels_per_latent:
            raise BadInput(
                f"Zero123++: view_size {view_size} is not a positive multiple of "
                f"{self.pixels_per_latent}, the width of a latent in pixels"
            )


def load_zero123plus(source: str | Path, **kwargs: Any) -> Zero123PlusPipeline:
    """Load the pipeline from a local folder, or from a repository in the hub's cache.

    Nothing is downloaded. `kwargs` are passed to `from_pretrained` (`torch_dtype`, a custom `unet`,
    ...). Raises BadInput if the weights are missing, incomplete or not finite.
    """
    folder = checked_folder(source)
    try:
        # low_cpu_mem_usage=True would require accelerate.
        pipeline = Zero123PlusPipeline.from_pretrained(
            str(folder), local_files_only=True, low_cpu_mem_usage=False, **kwargs
        )
    except LrmError:
        raise
    except Exception as error:  # the libraries raise any error for odd files
        raise weights_error(source, error) from error
    check_finite(source, pipeline.components)
    return pipeline


def _sample_latents(
    vae: AutoencoderKL,
    pixels: Float[Tensor, "b 3 h w"],
    generators: Sequence[torch.Generator] | None,
) -> Float[Tensor, "b c hr wr"]:
    """Sample the VAE's latents with one generator per image, or with torch's global one."""
    per_image = None if generators is None else list(generators)
    return vae.encode(pixels).latent_dist.sample(per_image)


def _to_image(sheet: Float[Tensor, "3 h w"]) -> Image.Image:
    pixels = (sheet.float() * 255).round().byte().permute(1, 2, 0).cpu()
    return Image.fromarray(np.asarray(pixels))
