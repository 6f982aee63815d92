"""The time that stages may take: the sums of the limits of the steps that they consist of."""

from pipelines.building.build_config import BuildConfig
from pipelines.sources import is_hub

__all__ = ["OWN_SECONDS", "default_seconds", "scene_seconds", "transfer_seconds"]

_START_SECONDS = 180.0
"""Limit for the start of a Blender child (render/process.py)."""
OWN_SECONDS = 600.0
"""For work without a limit of its own: arrays of bounded size, reads and writes of the storage."""


def transfer_seconds(config: BuildConfig) -> float:
    """Return the maximum seconds in which an object's file is fetched or copied."""
    fetch = config.fetch
    queue = fetch.rate_limit_wait_seconds if is_hub(config.source) else 0.0
    return fetch.total_seconds + queue + OWN_SECONDS


def scene_seconds(config: BuildConfig) -> float:
    """Return the maximum seconds in which an object is opened in Blender."""
    limits = config.blender
    compiling = limits.kernel_compile_seconds if config.render.device == "gpu" else 0.0
    return transfer_seconds(config) + _START_SECONDS + compiling + limits.import_seconds


def default_seconds(config: BuildConfig) -> float:
    """Return the maximum seconds of a stage that may use Blender for all that it offers."""
    limits = config.blender
    return scene_seconds(config) + limits.measure_seconds + limits.render_seconds + OWN_SECONDS
