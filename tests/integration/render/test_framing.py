"""Render windows: they contain the whole object and little else."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from render.rigs import get_rig
from tests.support.analytic_shapes import cast_rays_at_boxes, letter_block
from tests.support.scripts import run_script

SIZE = 256
SCRIPT = """
import json, os, sys
from render.blender import framing, scene
from render.job import CameraSpec, OpenRequest
from glb.limits import GlbLimits
request = json.loads(sys.stdin.read())
limits = GlbLimits(max_nodes=99, max_triangles=999, max_total_pixels=9999)
opening = OpenRequest(glb=request["glb"], normalise="cube", cull_shells=True, limits=limits)
opened = scene.open_scene(opening)
cameras = [CameraSpec(**camera) for camera in request["cameras"]]
windows = framing.object_windows(opened.surface, cameras, request["size"])
bounds = [w and [w.left, w.top, w.left + w.width, w.top + w.height] for w in windows]
print("windows", json.dumps(bounds), flush=True)
os._exit(0)
"""


ASIDE = Camera(
    camera_to_world=look_at(np.array([0, -3.0, 0.5]), target=np.array([1.6, 0, 0])),
    intrinsics=intrinsics_from_fov(50),
)
SHIFTED = Camera(
    camera_to_world=look_at(np.array([2.0, -2.0, 1.0])),
    intrinsics=np.array([0.9, 0.9, 0.3, 0.62], dtype=np.float32),
)
CAMERAS_ON_OBJECT = [ASIDE, SHIFTED, *get_rig("lrm32").cameras("objaverse:framed")]
CAMERA_OFF_OBJECT = Camera(
    camera_to_world=look_at(np.array([0, -6.0, 0]), target=np.array([9.0, 0, 0])),
    intrinsics=intrinsics_from_fov(30),
)
CAMERA_INSIDE = Camera(
    camera_to_world=look_at(np.array([0, 0, 0.0]), target=np.array([1.0, 0, 0])),
    intrinsics=intrinsics_from_fov(30),
)


@pytest.fixture(scope="module")
def windows(block: Path) -> list[list[int] | None]:
    """Return the windows of the block, computed in a new process: bpy must not be imported here."""
    specs = [
        {"camera_to_world": c.camera_to_world.tolist(), "intrinsics": c.intrinsics.tolist()}
        for c in (*CAMERAS_ON_OBJECT, CAMERA_OFF_OBJECT, CAMERA_INSIDE)
    ]
    request = json.dumps({"glb": str(block), "cameras": specs, "size": SIZE})
    result = run_script(SCRIPT, seconds=120, text=request)
    line = next(line for line in result.stdout.splitlines() if line.startswith("windows "))
    return json.loads(line.removeprefix("windows "))


def test_windows_contain_the_object_with_a_small_margin(windows: list[list[int] | None]):
    for camera, window in zip(CAMERAS_ON_OBJECT, windows[:-2], strict=True):
        assert window is not None
        rows, columns = np.nonzero(cast_rays_at_boxes(letter_block(), camera, SIZE).face >= 0)
        bounds = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        outside = (np.array(window) - bounds) * [-1, -1, 1, 1]
        assert outside.min() >= 0
        cut_off = min(bounds) == 0 or max(bounds) == SIZE
        assert cut_off or outside.max() <= 10
        assert min(window) >= 0
        assert max(window) <= SIZE


def test_an_object_out_of_the_picture_has_no_window(windows: list[list[int] | None]):
    # Points behind a camera have no bounds in the picture, so the window is the whole picture.
    assert windows[-2:] == [None, [0, 0, SIZE, SIZE]]
