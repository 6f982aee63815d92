"""The stage `inspect`: reads a GLB file and decodes its images, in a confined process."""

from typing import Any

from core.failures import FailureKind
from filters.inspect_glb import inspect_confined
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.fetch import SHA256, local_glb
from pipelines.building.stages.identity_keys import INSPECT_KEYS, LIMIT_KEYS, identity_of
from pipelines.building.stages.max_seconds import OWN_SECONDS, transfer_seconds
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import FETCH_QUEUE
from pipelines.building.stages.stage import FirstEstimate, Stage
from pipelines.building.stages.worker_context import WorkerContext

__all__ = ["INSPECT"]

INSPECT_VERSION = 3
"""Increment when filters.inspection gives another result for the same file."""


def _inspect(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    config = context.config
    # The Blender child reads the same file later, with the same limits.
    return inspect_confined(
        context.inspector,
        local_glb(state, context),
        config.inspect,
        seconds=config.blender.import_seconds,
        max_bytes=config.blender.memory_bytes,
    )


def _max_seconds(config: BuildConfig) -> float:
    return transfer_seconds(config) + config.blender.import_seconds + OWN_SECONDS


INSPECT = Stage(
    name="inspect",
    inputs=("fetch",),
    input_version=SHA256,
    identity=lambda config, _: [INSPECT_VERSION, identity_of(config, INSPECT_KEYS)],
    version=INSPECT_VERSION,
    enabled_by=lambda _: True,
    queue=FETCH_QUEUE,
    run=_inspect,
    max_seconds=_max_seconds,
    limit_keys=LIMIT_KEYS,
    limited_kinds=frozenset({FailureKind.TIMEOUT, FailureKind.OUT_OF_MEMORY}),
    estimate=lambda _: FirstEstimate(seconds=0.1, share=0.95),
)
