"""The scene that is open in a worker's Blender child, shared by the stages of a task."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.fetch import SHA256, local_glb
from pipelines.building.stages.identity_keys import SCENE_KEYS, identity_of
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.worker_context import WorkerContext
from render.render_config import RENDERER_VERSION
from render.rigs import Rig

__all__ = [
    "OPENING_PARTS",
    "OPENING_SECONDS",
    "camera_identity",
    "open_scene",
    "rounded",
    "scene_identity",
]

OPENING_PARTS = ("bring", "start", "import", "evaluate")
"""The timed parts of `open_scene`. Only the first stage of a task has them."""
OPENING_SECONDS = 0.8
"""Core-seconds of `open_scene`, from real models (docs/notes/scale.md)."""


def open_scene(
    state: ObjectState, context: WorkerContext
) -> tuple[dict[str, Any], dict[str, float]]:
    """Load an object into Blender, unless it is open already.

    Returns Blender's report on the scene, and the seconds of each part of the loading; empty if it
    was open. Raises StageFailed.
    """
    sha256 = state.require(SHA256)
    opened = context.open_object
    if opened is not None and opened[0] == sha256 and context.blender.has_scene:
        return opened[1], {}
    context.open_object = None
    began = time.monotonic()
    glb, cull_shells = local_glb(state, context), context.config.render.cull_shells
    report = asdict(context.blender.open(glb, context.rig.normalise, cull_shells))
    seconds = report.pop("timings")
    seconds["bring"] = time.monotonic() - began - sum(seconds.values())
    context.open_object = (sha256, report)
    return report, seconds


def camera_identity(rig: Rig) -> list[Any]:
    """Return the values of a rig that determine its cameras and the scene's frame."""
    return [rig.name, rig.version, rig.normalise]


def scene_identity(config: BuildConfig) -> list[Any]:
    """Return the version and the settings that determine how a file becomes a scene."""
    return [RENDERER_VERSION, identity_of(config, SCENE_KEYS)]


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return timings in seconds, rounded to milliseconds as they are stored."""
    return {name: round(spent, 3) for name, spent in seconds.items()}
