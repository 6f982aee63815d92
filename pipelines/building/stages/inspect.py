"""The stage `inspect`: reads the structure of a GLB file, without Blender."""

from typing import Any

from filters.inspect_glb import inspect_glb
from pipelines.building.stages.fetch import SHA256, local_glb
from pipelines.building.stages.identity_keys import INSPECT_KEYS, identity_of
from pipelines.building.stages.max_seconds import OWN_SECONDS, transfer_seconds
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import FETCH_QUEUE
from pipelines.building.stages.stage import FirstEstimate, Stage
from pipelines.building.stages.worker_context import WorkerContext

__all__ = ["INSPECT"]

INSPECT_VERSION = 3
"""Increment when filters.inspect_glb gives another result for the same file."""


def _inspect(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    return inspect_glb(local_glb(state, context), context.config.inspect).to_dict()


INSPECT = Stage(
    name="inspect",
    inputs=("fetch",),
    input_version=SHA256,
    identity=lambda config, _: [INSPECT_VERSION, identity_of(config, INSPECT_KEYS)],
    version=INSPECT_VERSION,
    enabled_by=lambda _: True,
    queue=FETCH_QUEUE,
    run=_inspect,
    max_seconds=lambda config: transfer_seconds(config) + OWN_SECONDS,
    estimate=lambda _: FirstEstimate(seconds=0.1, share=0.95),
)
