"""A child uses no more cores than its threads."""

import os
import time
from pathlib import Path

import psutil

from render.process import BlenderProcess
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig


def test_one_thread_costs_one_core(block: Path):
    """Otherwise Blender's idle threads spin, and children slow each other down."""
    cameras = get_rig("lrm32").cameras("objaverse:threads")[:2]
    config = RenderConfig(resolution=256, samples=32)
    with BlenderProcess(BlenderLimits(threads=1)) as blender:
        blender.open(block, "cube")
        child = psutil.Process(blender.pid)
        before, started = child.cpu_times(), time.monotonic()
        blender.render(cameras, config)
        wall, after = time.monotonic() - started, child.cpu_times()
        spent = after.user + after.system - before.user - before.system
        assert spent < 1.25 * wall + 0.05
        for thread in child.threads():
            assert os.sched_getaffinity(thread.id) == os.sched_getaffinity(0)
