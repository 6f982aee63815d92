"""Measure: silhouettes at the rig's own cameras, and how many separate objects there are."""

import time
from typing import Any

from pipelines.building.stages.blender_scene import camera_identity, open_scene, rounded
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import RENDER_QUEUE
from pipelines.building.stages.stage import FirstEstimate, RigScope, Stage
from pipelines.building.stages.worker_context import WorkerContext
from render.render_config import RENDERER_VERSION

__all__ = ["MEASURE"]

MEASURE_VERSION = 2
"""Raise it when the stage (silhouettes, filters.islands) measures something else."""


def _measure(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    # SciPy, which only this stage of this package needs.
    from filters.islands import measure_islands
    from filters.thickness import thickness

    scene, seconds = open_scene(state, context)
    opened = time.monotonic()
    measured = context.blender.measure(context.rig.cameras(state.asset_id))
    seen = time.monotonic()
    islands, thin = measure_islands(measured.points), thickness(measured.points)
    seconds |= {"measure": seen - opened, "islands": time.monotonic() - seen}
    return {
        "scene": scene,
        "thickness": round(thin, 6),
        "coverage": [round(float(share), 6) for share in measured.coverage],
        "islands": islands,
        "timings": rounded(seconds),
    }


MEASURE = Stage(
    name="measure",
    inputs=("fetch",),
    made_from=SHA256,
    identity=lambda _, rig: [MEASURE_VERSION, RENDERER_VERSION, camera_identity(rig)],
    rig=RigScope.CAMERAS,
    is_wanted=lambda _: True,
    queue=RENDER_QUEUE,
    run=_measure,
    uses_blender=True,
    estimate=lambda _: FirstEstimate(seconds=2.0, share=0.5),
)
