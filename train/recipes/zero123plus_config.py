"""Settings of the fine-tuning of Zero123++ on white backgrounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from core.config import (
    Config,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Renamed,
    nested_renames,
)
from core.errors import BadInput
from core.storage import Storage
from train.data.zero123plus_sheets import SheetDataConfig
from train.models.zero123plus.sampling_defaults import GUIDANCE_SCALE
from train.settings.train_config import Decay, OptimizerConfig, TrainConfig

__all__ = [
    "AVERAGE_KEYS",
    "PUBLISHED_SOURCE",
    "UNET_KEYS",
    "DiffusionLossConfig",
    "SampleConfig",
    "Zero123PlusTrainConfig",
]

PUBLISHED_SOURCE = "sudo-ai/zero123plus-v1.2"
"""Repository on the Hugging Face hub of the published weights, the default of `init`."""
UNET_KEYS = "denoiser.unet."
"""Prefix of the UNet's keys in a checkpoint."""
AVERAGE_KEYS = "ema."
"""Prefix of the keys of the UNet's moving average in a checkpoint."""


class Zero123PlusOptimizerConfig(OptimizerConfig):
    """AdamW with a constant learning rate by default.

    The released training has a scheduler, but steps it only once per epoch.
    """

    learning_rate: PositiveFloat = 1e-5
    """Learning rate at the end of the warm-up."""
    final_learning_rate: NonNegativeFloat = 1e-5
    """Learning rate at the last step of the schedule, reached along a half cosine."""
    beta2: Decay = 0.999
    """AdamW's decay of the second moment."""


class DiffusionLossConfig(Config):
    """The v-prediction loss."""

    min_snr: NonNegativeFloat = 0.0
    """Gamma of the min-SNR loss weights min(SNR, gamma) / (SNR + 1) (arXiv 2303.09556), such as 5;
    0 gives all timesteps the same weight."""


class SampleConfig(Config):
    """Sampling of the views for previews and validation."""

    steps: Annotated[int, Field(gt=0, le=1000)] = 30
    """Number of sampling steps (Euler ancestral)."""
    guidance: NonNegativeFloat = GUIDANCE_SCALE
    """Scale of classifier-free guidance; 1 or less turns it off."""
    margin: NonNegativeInt = 4
    """Width in pixels of the border around the object that the background metrics leave out."""


class Zero123PlusTrainConfig(TrainConfig):
    """Settings of the fine-tuning, in addition to those of every run."""

    recipe: ClassVar[str] = "zero123plus"
    renamed: ClassVar[Mapping[str, Renamed]] = {
        **TrainConfig.renamed,
        "blank": Renamed("unconditional_level"),
        **nested_renames("data", SheetDataConfig.renamed),
    }

    steps: PositiveInt = 1000
    """Number of optimizer steps of the whole run, including those of earlier starts."""
    batch_size: PositiveInt = 48
    """Number of objects per step, over all training workers."""
    checkpoint_every: PositiveInt = 250
    """Number of steps between checkpoints; the last step always writes one."""
    preview_every: NonNegativeInt = 100
    """Number of steps between preview images; 0 draws none."""
    validate_every: NonNegativeInt = 250
    """Number of steps between validations on the snapshot's validation split; 0 turns validation
    off."""
    preset: Literal["published", "tiny"] = "published"
    """Initial weights if --init is not given: `published` reads those of Zero123++ v1.2 from the
    Hugging Face cache; `tiny` creates a small model with random weights, for a CPU."""
    init: str | None = None
    """Pipeline to start from: a folder in diffusers' layout, such as `lrm weights` writes, or a
    repository in the Hugging Face cache, such as sudo-ai/zero123plus-v1.2. Also needed to resume,
    for the frozen parts."""
    data: SheetDataConfig = SheetDataConfig()
    loss: DiffusionLossConfig = DiffusionLossConfig()
    sample: SampleConfig = SampleConfig()
    optimizer: Zero123PlusOptimizerConfig = Zero123PlusOptimizerConfig()
    unconditional_level: Fraction = 0.5
    """Grey level, from 0 (black) to 1 (white), of the image that replaces a dropped query. 0.5 is
    that of the published pipeline when it samples views, 0 that of the released training."""
    ema: Decay = 0.0
    """Decay per step of a moving average of the weights, such as 0.999, which previews, validation
    and `lrm weights --ema` use; 0 turns it off."""
    latent_cache: str | None = None
    """Folder or URI of a cache of the targets' VAE latents, which runs can share. If the query has
    one size, the cache also has its latents and CLIP embedding. By default there is no cache."""

    @field_validator("init")
    @classmethod
    def _absolute_init(cls, source: str | None) -> str | None:
        # Workers have other working directories. A source that is not a folder names a repository.
        if source is None or not Path(source).expanduser().exists():
            return source
        return str(Path(source).expanduser().absolute())

    @field_validator("latent_cache")
    @classmethod
    def _absolute_cache(cls, uri: str | None) -> str | None:
        return None if uri is None else Storage(uri).uri

    @property
    def source(self) -> str | None:
        """The pipeline to load; None for the tiny one with random weights."""
        if self.init is None and self.preset == "published":
            return PUBLISHED_SOURCE
        return self.init

    def check(self) -> None:
        """Raise BadInput if the settings do not fit each other, or the pipeline is missing."""
        super().check()
        self.data.check()
        if self.ema and self.zero_stage == 3:
            raise BadInput(
                "--ema needs --zero-stage 0, 1 or 2, because stage 3 splits the weights over ranks"
            )
        from train.recipes.zero123plus_start import check_pipeline

        check_pipeline(self.source, self.data.view_size)
