"""The initial pipeline of a Zero123++ run and the cache of its encoders' latents."""

from typing import Any

from core.errors import BadInput
from train.data.latent_cache import LatentCache, weight_digest
from train.data.zero123plus_sheets import SheetDataConfig
from train.models.zero123plus.components import (
    PUBLISHED,
    Settings,
    part_configs,
    pixels_per_latent,
    settings_of,
)
from train.models.zero123plus.latents import SHEET
from train.models.zero123plus.pipeline import Zero123PlusPipeline, load_zero123plus
from train.models.zero123plus.tiny import tiny_pipeline

__all__ = ["check_pipeline", "known_settings", "open_cache", "open_pipeline"]


def open_pipeline(source: str | None, seed: int) -> Zero123PlusPipeline:
    """Return the pipeline that a run starts from, in float32.

    Without a source it is a tiny one with random weights of this seed. Raises BadInput.
    """
    pipeline = tiny_pipeline(seed) if source is None else load_zero123plus(source)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_pipeline(source: str | None, view_size: int) -> None:
    """Raise BadInput if the pipeline is missing, or cannot be trained with this view size.

    `view_size` is in pixels.
    """
    settings = _tiny_settings() if source is None else part_configs(source)
    width = pixels_per_latent(settings["vae"])
    if view_size % width:
        raise BadInput(
            f"--data.view-size {view_size} is not a multiple of {width}, the width of one latent "
            "in pixels"
        )
    predicted = settings["scheduler"].get("prediction_type")
    if predicted != "v_prediction":
        raise BadInput(
            f"--init {source}: its scheduler has prediction_type {predicted}, but this recipe "
            "trains v_prediction only; use Zero123++ v1.2, not an earlier version"
        )


def known_settings(init: str | None, preset: str) -> Settings:
    """Return the settings of the pipeline's parts.

    Those of the published pipeline are built in, so it need not be installed. Raises BadInput if
    `init` does not exist.
    """
    if init is not None:
        return part_configs(init)
    return PUBLISHED if preset == "published" else _tiny_settings()


def open_cache(
    uri: str | None, data: SheetDataConfig, pipeline: Zero123PlusPipeline
) -> LatentCache | None:
    """Return the latent cache at a URI for these encoders and image sizes; None without a URI."""
    if uri is None:
        return None
    width = pipeline.pixels_per_latent
    channels = 2 * pipeline.vae.config.latent_channels  # mean and log variance
    rows, columns = (count * data.view_size // width for count in SHEET)
    shapes: dict[str, tuple[int, ...]] = {"targets": (channels, rows, columns)}
    dependencies: dict[str, Any] = {
        "vae": weight_digest(pipeline.vae),
        "published_resize": data.published_resize,
    }
    if data.has_one_query_size:
        side = pipeline.feature_extractor_vae.crop_size["height"] // width
        shapes["condition"] = (channels, side, side)
        shapes["embedding"] = (pipeline.vision_encoder.config.projection_dim,)
        dependencies |= {
            "query_size": data.query_size_max,
            "vision_encoder": weight_digest(pipeline.vision_encoder),
            "extractors": [
                part.to_dict()
                for part in (pipeline.feature_extractor_vae, pipeline.feature_extractor_clip)
            ],
        }
    return LatentCache(uri, dependencies, shapes, pipeline.dtype)


def _tiny_settings() -> Settings:
    return settings_of(tiny_pipeline(0))
