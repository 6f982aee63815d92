"""The stage `geometry`: writes points on the surface and the mesh, in the frame of the rig."""

import time
from typing import Any

from dataset.columns import integer, text
from dataset.format.geometry import GEOMETRY_FOLDER, geometry_path, write_geometry
from dataset.maintenance.shard_check import check_geometry
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.blender_scene import open_scene, rounded, scene_identity
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.identity_keys import SURFACE_KEYS, identity_of
from pipelines.building.stages.max_seconds import OWN_SECONDS, scene_seconds
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import RENDER_QUEUE
from pipelines.building.stages.stage import (
    FirstEstimate,
    ResultFile,
    RigScope,
    Stage,
    StoredBytes,
)
from pipelines.building.stages.worker_context import WorkerContext
from render.rigs import Rig

__all__ = ["GEOMETRY", "PATH"]

GEOMETRY_VERSION = 1
"""Increment when the same scene gives other points or another mesh."""

_POINTS = 100_000
_MESH_SECONDS, _POINTS_SECONDS = 0.2, 0.3
"""Core-seconds of the mesh, and of 100,000 points."""
_MESH_BYTES, _POINTS_BYTES = 300_000, 1_200_000
"""The same in bytes."""

PATH = text("geometry", "path", "path of the companion file", detail=True)
BYTES = integer("geometry", "bytes", "size of the companion file")


def _geometry(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    _, seconds = open_scene(state, context)
    opened = time.monotonic()
    settings = context.config.surface
    surface = context.blender.geometry(settings.points, settings.seed)
    sampled = time.monotonic()
    path = geometry_path(context.rig.normalise, context.identities.key(GEOMETRY, state))
    size = write_geometry(context.root, path, surface)
    seconds |= {"surface": sampled - opened, "write": time.monotonic() - sampled}
    return {
        PATH.name: path,
        BYTES.name: size,
        "num_points": len(surface.points),
        "num_vertices": len(surface.vertices),
        "num_faces": len(surface.faces),
        "timings": rounded(seconds),
    }


def _identity(config: BuildConfig, rig: Rig) -> list[Any]:
    points = identity_of(config, SURFACE_KEYS)
    return [GEOMETRY_VERSION, *scene_identity(config), rig.normalise, points]


def _max_seconds(config: BuildConfig) -> float:
    return scene_seconds(config) + config.blender.measure_seconds + OWN_SECONDS


def _estimate(config: BuildConfig) -> FirstEstimate:
    points = config.surface.points / _POINTS
    return FirstEstimate(
        seconds=_MESH_SECONDS + _POINTS_SECONDS * points,
        num_bytes=_MESH_BYTES + _POINTS_BYTES * points,
    )


GEOMETRY = Stage(
    name="geometry",
    inputs=("fetch",),
    input_version=SHA256,
    identity=_identity,
    version=GEOMETRY_VERSION,
    rig=RigScope.FRAME,
    option="--geometry",
    enabled_by=lambda config: config.geometry,
    columns=(PATH, BYTES),
    queue=RENDER_QUEUE,
    run=_geometry,
    max_seconds=_max_seconds,
    uses_blender=True,
    estimate=_estimate,
    stores=StoredBytes(column=BYTES, label="geometry"),
    file=ResultFile(location=(PATH,), folder=GEOMETRY_FOLDER, check=check_geometry),
)
