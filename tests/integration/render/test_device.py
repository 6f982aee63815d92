"""Rendering on a GPU: kernels are compiled first, and a missing GPU fails before any object."""

import json
from pathlib import Path

import pytest

from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from tests.support.scripts import run_script

COMPILE_KERNELS = """
import os, sys
from render.blender import passes
from render.job import CompileRequest
passes.compile_kernels(CompileRequest(device="cpu", threads=1, out=sys.argv[1]))
sys.stdout.flush()
os._exit(0)
"""
LIST_DEVICES = """
import json, os
import bpy
cycles = bpy.context.preferences.addons["cycles"].preferences
devices = []
for backend in ("OPTIX", "CUDA", "HIP", "ONEAPI"):
    try:
        cycles.compute_device_type = backend
    except TypeError:
        continue
    cycles.get_devices()
    devices += [device.type for device in cycles.devices if device.type == backend]
print("devices", json.dumps(devices), flush=True)
os._exit(0)
"""


def in_blender(script: str, *words: str) -> str:
    """Run a script in a new process, because bpy must not be imported here; return its output."""
    result = run_script(script, *words, seconds=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def gpus() -> list[str]:
    lines = in_blender(LIST_DEVICES).splitlines()
    return json.loads(next(line for line in lines if line.startswith("devices ")).split(" ", 1)[1])


def test_a_missing_gpu_fails_before_an_object_is_opened(gpus: list[str], block: Path):
    if gpus:
        pytest.skip("this machine has a GPU")
    with BlenderProcess(BlenderLimits(), device="gpu") as blender:
        with pytest.raises(RenderFailure, match="GPU") as caught:
            blender.open(block, "cube")
        assert caught.value.kind == "no_device"
        assert blender.pid is None


def test_a_gpu_renders_the_same_as_the_cpu(gpus: list[str], block: Path):
    if not gpus:
        pytest.skip("this machine has no GPU")
    from render.rigs import get_rig

    cameras = get_rig("lrm32").cameras("objaverse:gpu")[:2]
    views = []
    for device in ("gpu", "cpu"):
        with BlenderProcess(BlenderLimits(threads=2), device=device) as blender:
            blender.open(block, "cube")
            views.append(blender.render(cameras, RenderConfig(resolution=128, device=device))[0])
    gpu, cpu = views
    same = (gpu.depth > 0) == (cpu.depth > 0)
    assert same.mean() > 0.999
    assert abs(gpu.depth - cpu.depth)[same].max() < 1e-3
    assert abs(gpu.rgba.astype(int) - cpu.rgba.astype(int)).mean() < 2


def test_compiling_kernels_renders_both_passes(tmp_path: Path):
    in_blender(COMPILE_KERNELS, str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"geometry_000.exr", "colour_000.exr"}
