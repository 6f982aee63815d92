"""The fine-tune of Zero123++ on white backgrounds (InstantMesh, section 3.1)."""

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
from train.estimate.outline import Outline
from train.evaluation.background import background_deviation, background_of, background_spread
from train.evaluation.metrics import psnr
from train.loop.validation import SEED, EachAlone
from train.models.recompute import recompute_blocks
from train.models.zero123plus.components import (
    EXTRACTORS,
    Settings,
    meta_parts,
)
from train.models.zero123plus.conditioning import extract_query
from train.models.zero123plus.latents import SHEET, image_from_vae
from train.models.zero123plus.pipeline import Zero123PlusPipeline
from train.monitoring.preview import picture_rows
from train.recipes.zero123plus_config import Zero123PlusTrainConfig
from train.recipes.zero123plus_encoders import Encoders
from train.recipes.zero123plus_objective import ViewDiffusion
from train.recipes.zero123plus_start import known_settings, open_cache, open_pipeline

__all__ = ["Zero123PlusRecipe"]

_JUDGED_AT = (0.125, 0.375, 0.625, 0.875)
"""Timesteps at which validation measures the loss, as shares of the schedule."""


class Zero123PlusRecipe:
    """Builds, judges and shows the fine-tune."""

    def __init__(self, config: Zero123PlusTrainConfig) -> None:
        self.config = config
        self._cache: LatentCache | None = None

    @functools.cached_property
    def pipeline(self) -> Zero123PlusPipeline:
        """The pipeline whose UNet is trained; the other parts in the run's precision."""
        pipeline = open_pipeline(self.config.source, self.config.seed)
        if self.config.precision == "bf16":
            for part in (pipeline.vae, pipeline.vision_encoder, pipeline.text_encoder):
                part.to(torch.bfloat16)
        return pipeline

    @functools.cached_property
    def _settings(self) -> Settings:
        return known_settings(self.config.init, self.config.preset)

    def build(self, *, fresh: bool = True) -> nn.Module:
        """The UNet inside its objective; its frozen parts come from the pipeline in any case."""
        config, pipeline = self.config, self.pipeline
        if config.activation_checkpointing:
            recompute_blocks(pipeline.unet)
        module = _objective(config, pipeline.unet, pipeline.scheduler.alphas_cumprod)
        self._cache = open_cache(config.latent_cache, config.data, pipeline)
        module.freeze(Encoders(pipeline, blank=config.blank, cache=self._cache))
        return module

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> SheetDataset:
        """Return queries and targets, or the targets' latents where a cache holds them."""
        reader = self._reader(self.config.data, cache=self._cache)
        return SheetDataset(root, samples, self._draws(self.config.data, self.config.seed), reader)

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> SheetDataset:
        """Return the same samples with all their pictures, whatever a cache holds."""
        reader = self._reader(self.config.data)
        return SheetDataset(root, samples, self._draws(self.config.data, self.config.seed), reader)

    def validation_dataset(
        self, root: Storage, samples: Sequence[Sample]
    ) -> Dataset[dict[str, Tensor]]:
        """Return queries at the largest size, and targets with their alpha."""
        data = self.config.data
        still = data.model_copy(update={"query_size_min": data.query_size_max})
        draws, reader = self._draws(still, SEED), self._reader(still, with_alpha=True)
        return EachAlone(lambda some: SheetDataset(root, some, draws, reader), samples)

    def evaluate(self, module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """v, the loss without weights at fixed timesteps, and of sampled views psnr,
        background_deviation, background_deviation_95 and background_spread.
        """
        assert isinstance(module, ViewDiffusion)
        kept, encoded = torch.zeros_like(batch["dropped"]), module.encode(batch)
        num_timesteps = self.pipeline.scheduler.config.num_train_timesteps
        losses = []
        with _averaged(module):
            for share in _JUDGED_AT:
                timesteps = torch.full_like(batch["timestep"], int(share * num_timesteps))
                losses.append(module.terms(batch, encoded, timesteps, kept)["v"])
            views = self._sample(batch)[0].float()
        background = background_of(batch["alpha"][0], self.config.sample.margin)
        mean, high = background_deviation(views, background)
        return {
            "v": torch.stack(losses).mean(),
            "psnr": psnr(views, batch["views"][0]).mean(),
            "background_deviation": mean,
            "background_deviation_95": high,
            "background_spread": background_spread(views, background),
        }

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Rows of pictures: the query as the VAE gets it, the targets, and six sampled views."""
        assert isinstance(module, ViewDiffusion)
        with _averaged(module):
            views = self._sample(batch)
        rows = {
            "query": image_from_vae(batch["query"]),
            "targets": batch["views"][0],
            "sampled": views[0],
        }
        side = self.config.preview_size
        return picture_rows({name: row.cpu().float() for name, row in rows.items()}, (side, side))

    def outline(self) -> Outline:
        """Six targets and a query as a step sees them, encoded without a cache."""
        config, settings = self.config, self._settings
        parts = meta_parts(settings)
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
            "seen": [int(settings["vision_encoder"]["image_size"])] * 2,
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
                vision(pixels["seen"])
            timesteps = torch.zeros(objects, dtype=torch.int64, device="meta")
            prompt = torch.empty(objects, *prompt_shape, device="meta", dtype=unet.dtype)
            noise, other = torch.empty_like(targets), torch.empty_like(condition)
            return module.denoise(targets, condition, noise, other, timesteps, prompt)["loss"]

        assumed = "the text encoder's one prompt is encoded once, which counts as nothing"
        return Outline(module=module, step=step, frozen=frozen, assumed=[assumed])

    def _draws(self, data: SheetDataConfig, seed: int) -> SheetDraws:
        return SheetDraws(
            config=data,
            num_timesteps=self._settings["scheduler"].get("num_train_timesteps", 1000),
            batch_size=self.config.batch_size,
            seed=seed,
        )

    def _reader(self, data: SheetDataConfig, **more: Any) -> SheetReader:
        # Made without the pipeline: what only reads needs no weights.
        extractors = {
            part: CLIPImageProcessor.from_dict(dict(self._settings[part])) for part in EXTRACTORS
        }
        prepare: Prepare = functools.partial(extract_query, **extractors)
        return SheetReader(config=data, prepare=prepare, **more)

    def _sample(self, batch: dict[str, Tensor]) -> Tensor:
        """Six views of each query, [b, 6, 3, h, w]."""
        config, pipeline = self.config, self.pipeline
        return pipeline.sample(
            batch["query"].to(pipeline.dtype),
            batch["query_clip"].to(pipeline.dtype),
            batch["seed"].tolist(),
            num_inference_steps=config.sample.steps,
            guidance_scale=config.sample.guidance,
            view_size=config.data.view_size,
            blank=config.blank,
        )


class _Encoder(nn.Module):
    """A VAE whose call encodes, so that what it costs is seen."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor) -> Tensor:
        """Mean latents in float32."""
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
        micro_batches=config.share // config.micro,
    )


def _averaged(module: ViewDiffusion) -> AbstractContextManager[None]:
    """The moving average in the place of the UNet's weights, if there is one."""
    return nullcontext() if module.ema is None else module.ema.worn_by(module.denoiser.unet)


def _query_side(settings: Settings) -> int:
    """What the extractor makes of a query for the VAE, in pixels."""
    return int(settings["feature_extractor_vae"]["crop_size"]["height"])
