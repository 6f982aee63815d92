"""A typical render script, the baseline of the benchmark `render`; one process renders one object.

`python -m benchmarks.speed.baseline_render GLB CAMERAS.json OUT RESOLUTION THREADS` renders each
view with one call, 128 samples, denoising at the highest quality, four sun lamps, as PNG, without
depth and normals. The last line of its output is a JSON object with its seconds and its peak memory
in bytes.
"""

import json
import math
import os
import resource
import sys
import time
from typing import Any

import bpy
from mathutils import Euler, Matrix, Vector


def main() -> None:
    """Render an object's views as PNG."""
    glb, cameras, out, resolution, threads = sys.argv[1:6]
    started = time.monotonic()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=glb)
    _normalise()
    scene = bpy.context.scene
    _settings(scene, int(resolution), int(threads))
    _lamps(scene)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    prepared, cpu_before = time.monotonic(), time.process_time()
    with open(cameras) as file:
        specs = json.load(file)
    for view, spec in enumerate(specs):
        camera.matrix_world = Matrix(spec["camera_to_world"])
        camera.data.angle = 2 * math.atan(0.5 / spec["intrinsics"][0])
        scene.render.filepath = f"{out}/{view:03d}.png"
        bpy.ops.render.render(write_still=True)
    figures = {
        "prepare": prepared - started,
        "render": time.monotonic() - prepared,
        "render_cpu": time.process_time() - cpu_before,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print("\n" + json.dumps(figures), flush=True)
    os._exit(0)  # bpy 4.5 hangs when the interpreter shuts down


def _normalise() -> None:
    corners = [
        item.matrix_world @ Vector(corner)
        for item in bpy.data.objects
        if item.type == "MESH"
        for corner in item.bound_box
    ]
    low = Vector(min(corner[axis] for corner in corners) for axis in range(3))
    high = Vector(max(corner[axis] for corner in corners) for axis in range(3))
    root = bpy.data.objects.new("root", None)
    bpy.context.scene.collection.objects.link(root)
    for item in list(bpy.data.objects):
        if item.parent is None and item is not root:
            item.parent = root
    scale = 2 / max(high - low)
    root.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation(-(low + high) / 2)


def _settings(scene: Any, resolution: int, threads: int) -> None:
    scene.render.engine = "CYCLES"
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.resolution_x = scene.render.resolution_y = resolution
    scene.render.film_transparent = True
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.samples = 128
    cycles.diffuse_bounces = cycles.glossy_bounces = 1
    cycles.transparent_max_bounces = cycles.transmission_bounces = 3
    cycles.use_denoising = True
    cycles.filter_width = 1.0


def _lamps(scene: Any) -> None:
    for tilt, turn, strength in ((45, 0, 3.0), (45, 180, 2.0), (-45, 90, 2.0), (180, 0, 1.0)):
        lamp = bpy.data.lights.new("lamp", "SUN")
        lamp.energy = strength
        sun = bpy.data.objects.new("lamp", lamp)
        sun.rotation_euler = Euler((math.radians(tilt), 0, math.radians(turn)))
        scene.collection.objects.link(sun)


if __name__ == "__main__":
    main()
