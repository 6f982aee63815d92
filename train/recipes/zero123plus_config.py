"""The settings of the fine-tune of Zero123++ on white backgrounds."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from core.config import Config, Fraction
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
"""Where the published weights are looked for, if `init` names no others."""
UNET_KEYS = "denoiser.unet."
"""What the UNet's keys begin with in a checkpoint,"""
AVERAGE_KEYS = "ema."
"""and those of its moving average."""


class Zero123PlusOptimizerConfig(OptimizerConfig):
    """AdamW with a constant rate, as released: its scheduler was stepped once per epoch."""

    learning_rate: PositiveFloat = 1e-5
    """At the end of the warm-up."""
    final_learning_rate: NonNegativeFloat = 1e-5
    """At the last step of the schedule; between the two lies a half cosine."""
    beta2: Decay = 0.999


class DiffusionLossConfig(Config):
    """The v-prediction loss."""

    min_snr: NonNegativeFloat = 0.0
    """Gamma of the min-SNR weights min(SNR, gamma) / (SNR + 1) (arXiv 2303.09556); 0 weighs all
    timesteps alike."""


class SampleConfig(Config):
    """How previews and validation make views."""

    steps: PositiveInt = 30
    """Of Euler ancestral."""
    guidance: NonNegativeFloat = GUIDANCE_SCALE
    """1 or less: none."""
    margin: NonNegativeInt = 4
    """Pixels next to the object that count neither as object nor as background."""


class Zero123PlusTrainConfig(TrainConfig):
    """What the fine-tune adds to every run."""

    steps: PositiveInt = 1000
    """Optimizer steps of the whole run, earlier starts counted in."""
    batch_size: PositiveInt = 48
    """Objects per step over all workers."""
    checkpoint_every: PositiveInt = 250
    """Steps between checkpoints; the last step has one as well."""
    preview_every: NonNegativeInt = 100
    """Steps between preview pictures; 0 makes none."""
    validate_every: NonNegativeInt = 250
    """Steps between validations on the snapshot's validation split; 0 makes none."""
    preset: Literal["published", "tiny"] = "published"
    """Without `init`: published takes the weights of v1.2 from the hub's cache; tiny (a CPU) has
    random ones."""
    init: str | None = None
    """The pipeline to start from, also needed to go on: a folder in diffusers' layout, such as
    `lrm weights` writes, or a repository in the hub's cache."""
    data: SheetDataConfig = SheetDataConfig()
    loss: DiffusionLossConfig = DiffusionLossConfig()
    sample: SampleConfig = SampleConfig()
    optimizer: Zero123PlusOptimizerConfig = Zero123PlusOptimizerConfig()
    blank: Fraction = 0.5
    """Grey level of the picture in place of a dropped query: 0.5 as the published pipeline has it
    when it makes views; 0, black, as the released training."""
    ema: Decay = 0.0
    """Decay per step of a moving average of the weights, which previews, validation and
    `lrm weights --ema` take; 0 keeps none."""
    latent_cache: str | None = None
    """Folder or URI where the VAE's latents of the targets are kept, for this run and others;
    with one size of the query also its latents and CLIP's embedding."""

    @field_validator("init")
    @classmethod
    def _absolute_init(cls, source: str | None) -> str | None:
        # Workers stand in folders of their own; whatever is no folder is a repository's name.
        if source is None or not Path(source).expanduser().exists():
            return source
        return str(Path(source).expanduser().absolute())

    @field_validator("latent_cache")
    @classmethod
    def _absolute_cache(cls, uri: str | None) -> str | None:
        return None if uri is None else Storage(uri).uri

    @property
    def source(self) -> str | None:
        """The pipeline to load; None for random weights."""
        if self.init is None and self.preset == "published":
            return PUBLISHED_SOURCE
        return self.init

    def check(self) -> None:
        """Raise BadInput if the settings do not fit each other, or there is no pipeline."""
        super().check()
        self.data.check()
        if self.ema and self.zero_stage == 3:
            raise BadInput("ema needs zero_stage 0 to 2: stage 3 splits the weights")
        from train.recipes.zero123plus_start import check_pipeline

        check_pipeline(self.source, self.data.view_size)
