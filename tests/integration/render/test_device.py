"""Asking for a GPU: kernels are compiled before any object's time counts, or it is said why not."""

import json
from pathlib import Path

import pytest

from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from tests.support.scripts import run_script

WARM_UP = """
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
found = []
for backend in ("OPTIX", "CUDA", "HIP", "ONEAPI"):
    try:
        cycles.compute_device_type = backend
    except TypeError:
        continue
    cycles.get_devices()
    found += [device.type for device in cycles.devices if device.type == backend]
print("devices", json.dumps(found), flush=True)
os._exit(0)
"""


def in_blender(script: str, *words: str) -> str:
    """What a script prints that runs with bpy, which must not be imported here."""
    done = run_script(script, *words, seconds=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def gpus() -> list[str]:
    lines = in_blender(LIST_DEVICES).splitlines()
    return json.loads(next(line for line in lines if line.startswith("devices ")).split(" ", 1)[1])


def test_a_gpu_that_is_not_there_is_said_before_an_object_is_touched(gpus: list[str], block: Path):
    if gpus:
        pytest.skip("this machine has a GPU")
    with BlenderProcess(BlenderLimits(), device="gpu") as blender:
        with pytest.raises(RenderFailure, match="GPU") as caught:
            blender.open(block, "cube")
        assert caught.value.kind == "no_device"
        assert blender.pid is None


def test_a_gpu_renders_what_the_cpu_does(gpus: list[str], block: Path):
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


def test_warming_up_renders_with_all_settings(tmp_path: Path):
    in_blender(WARM_UP, str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"geometry_000.exr", "colour_000.exr"}
