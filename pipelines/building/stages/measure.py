"""The stage `measure`: silhouettes at the rig's cameras, and the separate parts of the surface."""

import time
from typing import Any

from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.blender_scene import (
    OPENING_SECONDS,
    camera_identity,
    open_scene,
    rounded,
    scene_identity,
)
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.max_seconds import OWN_SECONDS, scene_seconds
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.picture_work import views
from pipelines.building.stages.queues import RENDER_QUEUE
from pipelines.building.stages.stage import FirstEstimate, RigScope, Stage
from pipelines.building.stages.worker_context import WorkerContext

__all__ = ["MEASURE"]

MEASURE_VERSION = 2
"""Increment when the stage (silhouettes, filters.islands) gives other measurements."""
_POINTS_SECONDS, _VIEWS_SECONDS, _ISLANDS_SECONDS = 0.2, 0.7, 0.3
"""Core-seconds of the surface points, of the silhouettes of 32 views, and of the islands."""


def _measure(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    # Imported here because these import SciPy, which only this stage needs.
    from filters.islands import measure_islands
    from filters.thickness import thickness

    scene, seconds = open_scene(state, context)
    opened = time.monotonic()
    measured = context.blender.measure(context.rig.cameras(state.asset_id))
    rendered = time.monotonic()
    islands, thin = measure_islands(measured.points), thickness(measured.points)
    seconds |= {"measure": rendered - opened, "islands": time.monotonic() - rendered}
    return {
        "scene": scene,
        "thickness": round(thin, 6),
        "coverage": [round(float(share), 6) for share in measured.coverage],
        "islands": islands,
        "timings": rounded(seconds),
    }


def _max_seconds(config: BuildConfig) -> float:
    return scene_seconds(config) + config.blender.measure_seconds + OWN_SECONDS


def _estimate(config: BuildConfig) -> FirstEstimate:
    silhouettes = _POINTS_SECONDS + _VIEWS_SECONDS * views(config)
    seconds = OPENING_SECONDS + silhouettes + _ISLANDS_SECONDS
    return FirstEstimate(seconds=seconds, parts={"measure": silhouettes}, share=0.5)


MEASURE = Stage(
    name="measure",
    inputs=("fetch",),
    input_version=SHA256,
    identity=lambda config, rig: [MEASURE_VERSION, *scene_identity(config), camera_identity(rig)],
    version=MEASURE_VERSION,
    rig=RigScope.CAMERAS,
    enabled_by=lambda _: True,
    queue=RENDER_QUEUE,
    run=_measure,
    max_seconds=_max_seconds,
    uses_blender=True,
    estimate=_estimate,
)
