"""Zero123++ v1.2: one picture of an object in, six views of it out, as a diffusers pipeline.

Report: arXiv 2310.15110. The parts are stock ones, and their names are the folders of the published
weights; what is Zero123++'s own is the reference attention, the ranges of images and latents, and
the ramped prompt, each in a file beside this.
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

from core.errors import BadInput
from train.models.zero123plus.components import not_there, pixels_per_latent
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
    """What the pipeline gives: the sheets, and the views that they are made of."""

    images: list[Image.Image]
    """One sheet for each query, 3 rows and 2 columns of views."""
    views: Float[Tensor, "b 6 3 h w"]
    """In [0, 1]. View i: azimuth 30° + 60° · i from the query's, elevation 20° or -10°."""


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
        """`ramping_coefficients`: one number per token of the prompt. Raises BadInput."""
        super().__init__()
        tokens = tokenizer.model_max_length
        if ramping_coefficients is None or len(ramping_coefficients) != tokens:
            given = "none" if ramping_coefficients is None else f"{len(ramping_coefficients)}"
            raise BadInput(
                f"Zero123++: model_index.json has {given} ramping_coefficients, and the prompt has "
                f"{tokens} tokens; take the model_index.json that came with the weights"
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
        # Without torchvision the class has another name, which other versions would not find.
        processor = ("transformers", "CLIPImageProcessor")
        self.register_to_config(feature_extractor_clip=processor, feature_extractor_vae=processor)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """The usual folder, with the file and key names of the published one.

        What transformers 5 writes by itself, earlier versions would not find: they would start
        with a random text encoder.
        """
        folder = Path(save_directory)
        super().save_pretrained(folder, **kwargs)
        self.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
        weights = self.text_encoder.state_dict()
        published = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in weights.items()}
        options = {k: v for k, v in kwargs.items() if k in ("variant", "max_shard_size")}
        self.text_encoder.save_pretrained(folder / "text_encoder", state_dict=published, **options)

    # What a picture is to the UNet

    def query_pixels(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 hc wc"]]:
        """Query images for the VAE and for CLIP, resized and cropped to a square by the extractors.

        Alpha is laid over white.
        """
        extractors = (self.feature_extractor_vae, self.feature_extractor_clip)
        vae, clip = extract_query(images, *extractors)
        return vae.to(self.device, self.dtype), clip.to(self.device, self.dtype)

    def blank_pixels(
        self, like: Float[Tensor, "b 3 h w"], level: float
    ) -> Float[Tensor, "b 3 h w"]:
        """For the VAE: pictures of one grey level in [0, 1], in place of a dropped query."""
        return image_to_vae(torch.full_like(like, level))

    @torch.no_grad()
    def encode_condition(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        generators: Sequence[torch.Generator] | None = None,
    ) -> Float[Tensor, "b c hr wr"]:
        """Condition latents: a sample of the VAE's, without its scaling factor and ours."""
        return _sampled(self.vae, pixels, generators)

    @torch.no_grad()
    def encode_targets(
        self,
        views: Float[Tensor, "b 6 3 h w"],
        generators: Sequence[torch.Generator] | None = None,
    ) -> Float[Tensor, "b c hs ws"]:
        """The latents that are denoised, from six views in [0, 1]."""
        pixels = image_to_vae(tile_views(views)).to(self.device, self.dtype)
        return latents_to_target(
            _sampled(self.vae, pixels, generators), self.vae.config.scaling_factor
        )

    @torch.no_grad()
    def decode_targets(self, latents: Float[Tensor, "b c hs ws"]) -> Float[Tensor, "b 6 3 h w"]:
        """Six views in [0, 1], from denoised latents."""
        decoded = self.vae.decode(latents_from_target(latents, self.vae.config.scaling_factor))
        return untile_views(image_from_vae(decoded.sample))

    @torch.no_grad()
    def empty_prompt(self) -> Float[Tensor, "1 t d"]:
        """The text embedding of the empty prompt: the global condition of a dropped query."""
        tokens = self.tokenizer("", padding="max_length", return_tensors="pt").input_ids
        return self.text_encoder(tokens.to(self.device)).last_hidden_state

    @torch.no_grad()
    def encode_prompt(self, pixels: Float[Tensor, "b 3 hc wc"]) -> Float[Tensor, "b t d"]:
        """The global condition of query images, as `query_pixels` prepared them for CLIP."""
        embeddings = self.vision_encoder(pixels).image_embeds
        ramp = embeddings.new_tensor(self.config.ramping_coefficients)
        return ramped_prompt(self.empty_prompt(), embeddings, ramp)

    # From a picture to six

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[Image.Image],
        seeds: Sequence[int],
        *,
        num_inference_steps: int = NUM_STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        view_size: int = VIEW_SIZE,
        blank: float = 0.5,
    ) -> SixViews:
        """Six views of the object in each query image.

        `seeds` has one number per image: a picture depends on it, not on the others of the call.
        `view_size` is a view's side in pixels; `blank` the grey level of the unconditional query,
        0.5 as the published pipeline has it. A `guidance_scale` of 1 or less means none. Raises
        BadInput.
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
            blank=blank,
        )
        return SixViews(images=[_picture(sheet) for sheet in tile_views(views)], views=views)

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
        blank: float,
    ) -> Float[Tensor, "b 6 3 h6 w6"]:
        """Six views in [0, 1] of queries that `query_pixels` prepared; as `__call__` otherwise."""
        self._check(num_inference_steps, view_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        prompt = self.encode_prompt(clip_pixels)
        condition = self.encode_condition(pixels, generators)
        if guidance_scale > 1:
            empty = self.empty_prompt().expand(len(pixels), -1, -1)
            prompt = torch.cat([empty, prompt])
            unseen = self.encode_condition(self.blank_pixels(pixels, blank), generators)
            condition = torch.cat([unseen, condition])
        scheduler = sampling_scheduler(self.scheduler.config, num_inference_steps, self.device)
        latents = first_latents(
            self._latent_shape(len(pixels), view_size), scheduler, generators, condition
        )
        unet = ReferenceUNet(self.unet)
        steps = denoising_steps(
            unet, scheduler, latents, prompt, condition, guidance_scale, generators
        )
        with self.progress_bar(total=num_inference_steps) as bar:
            for step in steps:
                latents = step
                bar.update()
        return self.decode_targets(latents)

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels wide a latent is: 8 in Stable Diffusion's VAE."""
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
                f"Zero123++: view_size {view_size} is no multiple of {self.pixels_per_latent}, "
                "the width of one latent in pixels"
            )


def load_zero123plus(source: str | Path, **kwargs: Any) -> Zero123PlusPipeline:
    """The pipeline in a local folder, or of a repository that is in the hub's cache already.

    Nothing is downloaded. `kwargs` go to `from_pretrained` (`torch_dtype`, `revision`, a `unet` of
    one's own ...). Raises BadInput where the weights are not there or not whole.
    """
    try:
        # Else it asks for accelerate, with which nothing here is gained.
        return Zero123PlusPipeline.from_pretrained(
            str(source), local_files_only=True, low_cpu_mem_usage=False, **kwargs
        )
    except (OSError, ValueError) as error:
        raise not_there(source, error) from error


def _sampled(
    vae: AutoencoderKL,
    pixels: Float[Tensor, "b 3 h w"],
    generators: Sequence[torch.Generator] | None,
) -> Float[Tensor, "b c hr wr"]:
    """A sample of the VAE's latents, each with its generator, or with torch's."""
    drawn_with = None if generators is None else list(generators)
    return vae.encode(pixels).latent_dist.sample(drawn_with)


def _picture(sheet: Float[Tensor, "3 h w"]) -> Image.Image:
    pixels = (sheet.float() * 255).round().byte().permute(1, 2, 0).cpu()
    return Image.fromarray(np.asarray(pixels))
