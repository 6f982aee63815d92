"""The pipeline that a run of Zero123++ starts from: found, checked, opened; its latents' cache."""

from typing import Any

from dataset.errors import BadInput
from train.latent_cache import LatentCache, weight_digest
from train.models.zero123plus import Zero123PlusPipeline, load_zero123plus
from train.models.zero123plus_latents import SHEET
from train.models.zero123plus_parts import (
    PUBLISHED,
    Settings,
    part_configs,
    pixels_per_latent,
    settings_of,
)
from train.models.zero123plus_tiny import tiny_pipeline
from train.recipes.zero123plus_config import Zero123PlusTrainConfig

__all__ = ["check_pipeline", "known_settings", "open_cache", "open_pipeline"]


def open_pipeline(config: Zero123PlusTrainConfig) -> Zero123PlusPipeline:
    """The pipeline that a run starts from, in float32. Raises BadInput."""
    source = config.source
    pipeline = tiny_pipeline(config.seed) if source is None else load_zero123plus(source)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_pipeline(config: Zero123PlusTrainConfig) -> None:
    """Raise BadInput if the pipeline is not there or cannot do what is asked of it."""
    settings = _tiny_settings() if config.source is None else part_configs(config.source)
    width = pixels_per_latent(settings["vae"])
    if config.data.view_size % width:
        raise BadInput(
            f"data.view_size {config.data.view_size} is no multiple of {width}, the width of one "
            "latent in pixels"
        )
    predicted = settings["scheduler"].get("prediction_type")
    if predicted != "v_prediction":
        raise BadInput(
            f"{config.source}: its scheduler says prediction_type {predicted}; Zero123++ v1.2 has "
            "v_prediction, earlier versions cannot be trained here"
        )


def known_settings(config: Zero123PlusTrainConfig) -> Settings:
    """The parts' settings; those of the published pipeline are known where it is not.

    Raises BadInput if `init` is not there.
    """
    if config.init is not None:
        return part_configs(config.init)
    return PUBLISHED if config.preset == "published" else _tiny_settings()


def open_cache(config: Zero123PlusTrainConfig, pipeline: Zero123PlusPipeline) -> LatentCache | None:
    """The cache, if one is wanted: what it holds depends on the encoders and the sizes."""
    if config.latent_cache is None:
        return None
    data, width = config.data, pipeline.pixels_per_latent
    channels = 2 * pipeline.vae.config.latent_channels  # mean and log variance
    rows, columns = (count * data.view_size // width for count in SHEET)
    shapes: dict[str, tuple[int, ...]] = {"targets": (channels, rows, columns)}
    made_by: dict[str, Any] = {
        "vae": weight_digest(pipeline.vae),
        "published_resize": data.published_resize,
    }
    if data.has_one_query_size:
        side = pipeline.feature_extractor_vae.crop_size["height"] // width
        shapes["condition"] = (channels, side, side)
        shapes["embedding"] = (pipeline.vision_encoder.config.projection_dim,)
        made_by |= {
            "query_size": data.query_size_max,
            "vision_encoder": weight_digest(pipeline.vision_encoder),
            "extractors": [
                part.to_dict()
                for part in (pipeline.feature_extractor_vae, pipeline.feature_extractor_clip)
            ],
        }
    return LatentCache(config.latent_cache, made_by, shapes, pipeline.dtype)


def _tiny_settings() -> Settings:
    return settings_of(tiny_pipeline(0))
