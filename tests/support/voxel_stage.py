"""A stage defined outside the project: occupied voxels of each object in a companion file."""

import io
import zipfile
import zlib
from typing import Any

import numpy as np
from pydantic import PositiveInt

from core.config import Config
from core.failures import FailureKind, StageFailed
from core.storage import Storage
from dataset.columns import integer, text
from dataset.maintenance.shard_check import CheckReport, Finding
from pipelines.building.stages.blender_scene import open_scene, rounded
from pipelines.building.stages.fetch import SHA256
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


class VoxelConfig(Config):
    """Settings of the voxel grid."""

    size: PositiveInt = 8
    """Voxels along each axis of [-1, 1]^3."""
    max_occupied: PositiveInt = 10**6
    """An object with more occupied voxels fails."""


PATH = text("voxels", "path", "the grid", detail=True)
BYTES = integer("voxels", "bytes", "size of the grid")
OCCUPIED = integer("voxels", "occupied", "voxels that the surface meets")


def _voxels(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    settings = VOXELS.settings_of(context.config)
    assert isinstance(settings, VoxelConfig)
    _, seconds = open_scene(state, context)
    points = context.blender.geometry(num_points=5000, seed=0).points
    cells = np.clip(((points + 1) / 2 * settings.size).astype(int), 0, settings.size - 1)
    grid = np.zeros((settings.size,) * 3, dtype=np.uint8)
    grid[tuple(cells.T)] = 1
    occupied = int(grid.sum())
    if occupied > settings.max_occupied:
        raise StageFailed(FailureKind.TOO_LARGE, f"{occupied} voxels are occupied")
    data = io.BytesIO()
    np.savez_compressed(data, grid=grid)
    path = f"voxels/{context.identities.key(VOXELS, state)}.npz"
    context.root.write(path, data.getvalue())
    size = len(data.getvalue())
    return {"path": path, "bytes": size, "occupied": occupied, "timings": rounded(seconds)}


def _check(root: Storage, path: str) -> CheckReport:
    try:
        np.load(io.BytesIO(root.read(path)))["grid"]
        return CheckReport(file=path, num_bytes=root.size(path))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        return CheckReport(file=path, findings=(Finding(file=path, problem=str(error)),))


VOXELS = Stage(
    name="voxels",
    inputs=("fetch",),
    input_version=SHA256,
    rig=RigScope.FRAME,
    settings=VoxelConfig,
    columns=(PATH, BYTES, OCCUPIED),
    queue=RENDER_QUEUE,
    run=_voxels,
    uses_blender=True,
    estimate=lambda _: FirstEstimate(seconds=0.5, num_bytes=300),
    stores=StoredBytes(column=BYTES, label="voxels"),
    file=ResultFile(location=(PATH,), folder="voxels", check=_check),
)
