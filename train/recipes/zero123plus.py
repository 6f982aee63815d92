"""Fine-tuning of Zero123++ on white backgrounds (InstantMesh, section 3.1)."""

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import CLIPImageProcessor

from core.storage import Storage
from dataset.snapshots.snapshot import Sample
from train.data.latent_cache import LatentCache
from train.data.zero123plus_sheets import (
    Prepare,
    SheetDataConfig,
    SheetDataset,
    SheetDraws,
    SheetReader,
)
from train.estimate.step_cost import MetaStep
from train.evaluation.background import background_deviation, background_mask, background_spread
from train.evaluation.metrics import psnr
from train.loop.validation import SEED, SingleSampleDataset
from train.models.recompute import recompute_blocks
from train.models.zero123plus.components import (
    EXTRACTORS,
    Settings,
    meta_networks,
)
from train.models.zero123plus.conditioning import extract_query
from train.models.zero123plus.latents import SHEET, image_from_vae
from train.models.zero123plus.pipeline import Zero123PlusPipeline
from train.monitoring.preview import draw_rows
from train.recipes.zero123plus_config import Zero123PlusTrainConfig
from train.recipes.zero123plus_encoders import Encoders
from train.recipes.zero123plus_objective import ViewDiffusion
from train.recipes.zero123plus_start import known_settings, open_cache, open_pipeline

__all__ = ["Zero123PlusRecipe"]

_VALIDATION_TIMES = (0.125, 0.375, 0.625, 0.875)
"""Timesteps of the validation loss, as fractions of the noise schedule's length."""


class Zero123PlusRecipe:
    """The recipe of the Zero123++ fine-tuning."""

    def __init__(self, config: Zero123PlusTrainConfig) -> None:
        self.config = config
        self._cache: LatentCache | None = None

    @functools.cached_property
    def pipeline(self) -> Zero123PlusPipeline:
        """The pipeline whose UNet is trained; its other parts have the run's precision."""
        pipeline = open_pipeline(self.config.source, self.config.seed)
        if self.config.precision == "bf16":
            for part in (pipeline.vae, pipeline.vision_encoder, pipeline.text_encoder):
                part.to(torch.bfloat16)
        return pipeline

    @functools.cached_property
    def _settings(self) -> Settings:
        return known_settings(self.config.init, self.config.preset)

    def build(self, *, fresh: bool = True) -> nn.Module:
        """Return the objective with the UNet; the frozen parts are always those of the pipeline."""
        config, pipeline = self.config, self.pipeline
        if config.activation_checkpointing:
            recompute_blocks(pipeline.unet)
        module = _objective(config, pipeline.unet, pipeline.scheduler.alphas_cumprod)
        self._cache = open_cache(config.latent_cache, config.data, pipeline)
        encoders = Encoders(
            pipeline, unconditional_level=config.unconditional_level, cache=self._cache
        )
        module.set_encoders(encoders)
        return module

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> SheetDataset:
        """Return queries and targets; for objects in the cache, latents instead of targets."""
        reader = self._reader(self.config.data, cache=self._cache)
        return SheetDataset(root, samples, self._draws(self.config.data, self.config.seed), reader)

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> SheetDataset:
        """Return the same samples with all their images, without the cache."""
        reader = self._reader(self.config.data)
        return SheetDataset(root, samples, self._draws(self.config.data, self.config.seed), reader)

    def validation_dataset(
        self, root: Storage, samples: Sequence[Sample]
    ) -> Dataset[dict[str, Tensor]]:
        """Return queries at the largest size, and targets with their alpha."""
        data = self.config.data
        still = data.model_copy(update={"query_size_min": data.query_size_max})
        draws, reader = self._draws(still, SEED), self._reader(still, with_alpha=True)
        return SingleSampleDataset(lambda some: SheetDataset(root, some, draws, reader), samples)

    def evaluate(self, module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the validation loss and the metrics of sampled views.

        v is the unweighted loss at fixed timesteps; psnr, background_deviation,
        background_deviation_95 and background_spread are of the views.
        """
        assert isinstance(module, ViewDiffusion)
        none_dropped, encoded = torch.zeros_like(batch["dropped"]), module.encode(batch)
        num_timesteps = self.pipeline.scheduler.config.num_train_timesteps
        losses = []
        with _averaged(module):
            for time in _VALIDATION_TIMES:
                timesteps = torch.full_like(batch["timestep"], int(time * num_timesteps))
                losses.append(module.terms(batch, encoded, timesteps, none_dropped)["v"])
            views = self._sample(batch)[0].float()
        background = background_mask(batch["alpha"][0], self.config.sample.margin)
        mean, high = background_deviation(views, background)
        return {
            "v": torch.stack(losses).mean(),
            "psnr": psnr(views, batch["views"][0]).mean(),
            "background_deviation": mean,
            "background_deviation_95": high,
            "background_spread": background_spread(views, background),
        }

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Draw the query as the VAE's input, the targets, and six sampled views."""
        assert isinstance(module, ViewDiffusion)
        with _averaged(module):
            views = self._sample(batch)
        rows = {
            "query": image_from_vae(batch["query"]),
            "targets": batch["views"][0],
            "sampled": views[0],
        }
        side = self.config.preview_size
        return draw_rows({name: row.cpu().float() for name, row in rows.items()}, (side, side))

    def meta_step(self) -> MetaStep:
        """Return a step on the meta device for the FLOPs and memory estimate.

        It encodes six targets and a query per object, without the cache.
        """
        config, settings = self.config, self._settings
        parts = meta_networks(settings)
        unet, vision = parts["unet"], parts["vision_encoder"]
        assert isinstance(unet, UNet2DConditionModel)
        assert isinstance(parts["vae"], AutoencoderKL)
        vae = parts["vae"] = _Encoder(parts["vae"])
        if config.activation_checkpointing:
            recompute_blocks(unet)
        frozen = {
            name: part.requires_grad_(False) for name, part in parts.items() if name != "unet"
        }
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        for part in frozen.values():
            part.to(dtype)
        with torch.device("meta"):
            module = _objective(config.model_copy(update={"ema": 0.0}), unet, torch.ones(1000))
        module.train()
        sides = {
            "targets": [count * config.data.view_size for count in SHEET],
            "condition": [_query_side(settings)] * 2,
            "query_clip": [int(settings["vision_encoder"]["image_size"])] * 2,
        }
        prompt_shape = (
            settings["text_encoder"]["max_position_embeddings"],
            settings["unet"]["cross_attention_dim"],
        )

        def step(objects: int) -> Tensor:
            pixels = {
                name: torch.empty(objects, 3, *size, device="meta", dtype=dtype)
                for name, size in sides.items()
            }
            with torch.no_grad():
                targets, condition = (vae(pixels[name]) for name in ("targets", "condition"))
                vision(pixels["query_clip"])
            timesteps = torch.zeros(objects, dtype=torch.int64, device="meta")
            prompt = torch.empty(objects, *prompt_shape, device="meta", dtype=unet.dtype)
            noise, other = torch.empty_like(targets), torch.empty_like(condition)
            return module.denoise(targets, condition, noise, other, timesteps, prompt)["loss"]

        assumed = "the text encoder is not counted, because it encodes one prompt per run"
        return MetaStep(module=module, step=step, frozen=frozen, assumed=[assumed])

    def _draws(self, data: SheetDataConfig, seed: int) -> SheetDraws:
        return SheetDraws(
            config=data,
            num_timesteps=self._settings["scheduler"].get("num_train_timesteps", 1000),
            batch_size=self.config.batch_size,
            seed=seed,
        )

    def _reader(self, data: SheetDataConfig, **more: Any) -> SheetReader:
        # Created from the settings alone: reading samples needs no weights.
        extractors = {
            part: CLIPImageProcessor.from_dict(dict(self._settings[part])) for part in EXTRACTORS
        }
        prepare: Prepare = functools.partial(extract_query, **extractors)
        return SheetReader(config=data, prepare=prepare, **more)

    def _sample(self, batch: dict[str, Tensor]) -> Tensor:
        """Sample six views of each query, [b, 6, 3, h, w]."""
        config, pipeline = self.config, self.pipeline
        return pipeline.sample(
            batch["query"].to(pipeline.dtype),
            batch["query_clip"].to(pipeline.dtype),
            batch["seed"].tolist(),
            num_inference_steps=config.sample.steps,
            guidance_scale=config.sample.guidance,
            view_size=config.data.view_size,
            unconditional_level=config.unconditional_level,
        )


class _Encoder(nn.Module):
    """Module that encodes with a VAE when called, so that the estimate counts its operations."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the mean latents in float32."""
        mean: Tensor = self.vae.encode(pixels).latent_dist.mean
        return mean.float()


def _objective(
    config: Zero123PlusTrainConfig, unet: UNet2DConditionModel, alphas_cumprod: Tensor
) -> ViewDiffusion:
    return ViewDiffusion(
        unet,
        alphas_cumprod,
        min_snr=config.loss.min_snr,
        ema=config.ema,
        micro_batches=config.per_rank_batch // config.micro_batch_size,
    )


def _averaged(module: ViewDiffusion) -> AbstractContextManager[None]:
    """Replace the UNet's weights by their moving average, if there is one, for a block."""
    return nullcontext() if module.ema is None else module.ema.applied_to(module.denoiser.unet)


def _query_side(settings: Settings) -> int:
    """Return the side in pixels of the query image that the VAE gets."""
    return int(settings["feature_extractor_vae"]["crop_size"]["height"])
