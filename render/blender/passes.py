"""Cycles: cameras, light, and the two renders of every view.

Colour is sampled and denoised. Geometry (depth, normal) is one sample through each pixel's centre:
exact, where a pass of the colour render would be jittered (depth) or averaged (normals).
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
from mathutils import Euler, Matrix

from render.blender.opacity import round_opacity
from render.blender.scene import SceneFailure
from render.job import CameraSpec, MeasureRequest, RenderRequest

__all__ = ["place_cameras", "render_silhouettes", "render_views"]

_SENSOR = 36.0
"""Width of the sensor in mm; only its ratio to the focal length matters."""
_SUN_AZIMUTHS = (45.0, 135.0, 225.0, 315.0)
_SUN_ELEVATION = 35.0
_PIXEL_CENTRE = 0.01
"""Width of a pixel filter that lets rays through the centre only."""


def render_views(request: RenderRequest) -> dict[str, Any]:
    """Write geometry_NNNN.exr and colour_NNNN.exr for all cameras; seconds of each part."""
    scene = bpy.context.scene
    started = time.monotonic()
    _use_device(scene, request.device, request.threads)
    for image in bpy.data.images:
        _shrink(image, request.texture_size)
    _light(scene, request.world_strength, request.sun_strength)
    place_cameras(scene, request.cameras)
    _frame(scene, request.resolution)
    scene.cycles.seed = request.seed
    prepared = time.monotonic()
    _geometry_settings(scene)
    round_opacity(True)
    _render_all(scene, Path(request.out) / "geometry_")
    round_opacity(False)
    measured = time.monotonic()
    _colour_settings(scene, request.samples, request.denoise)
    _render_all(scene, Path(request.out) / "colour_")
    return {
        "timings": {
            "prepare": round(prepared - started, 3),
            "geometry": round(measured - prepared, 3),
            "colour": round(time.monotonic() - measured, 3),
        }
    }


def render_silhouettes(request: MeasureRequest) -> None:
    """Write silhouette_NNNN.exr: what the cameras see, one sample per pixel."""
    scene = bpy.context.scene
    _use_device(scene, "cpu", request.threads)
    place_cameras(scene, request.cameras)
    _frame(scene, request.resolution)
    _geometry_settings(scene)
    scene.cycles.filter_width = 1.0
    _render_all(scene, Path(request.out) / "silhouette_")


def place_cameras(scene: Any, cameras: Sequence[CameraSpec]) -> None:
    """One camera that stands where the n-th of `cameras` does at frame n, counted from 1."""
    old = scene.camera
    if old is not None:
        bpy.data.objects.remove(old, do_unlink=True)
    lens = bpy.data.cameras.new("camera")
    lens.sensor_fit = "HORIZONTAL"
    lens.sensor_width = _SENSOR
    lens.clip_start, lens.clip_end = 0.01, 100.0
    camera = bpy.data.objects.new("camera", lens)
    camera.rotation_mode = "QUATERNION"
    scene.collection.objects.link(camera)
    scene.camera = camera
    for frame, spec in enumerate(cameras, start=1):
        fx, fy, cx, cy = spec.intrinsics
        if abs(fx - fy) > 1e-6 * fx:
            raise SceneFailure("refused", f"view {frame - 1}: its pixels are not square")
        location, rotation, _ = Matrix(spec.camera_to_world).decompose()
        camera.location, camera.rotation_quaternion = location, rotation
        # The principal point moves against the shift of the image.
        lens.lens, lens.shift_x, lens.shift_y = fx * _SENSOR, 0.5 - cx, cy - 0.5
        for path in ("location", "rotation_quaternion"):
            camera.keyframe_insert(path, frame=frame)
        for path in ("lens", "shift_x", "shift_y"):
            lens.keyframe_insert(path, frame=frame)
    scene.frame_start, scene.frame_end = 1, len(cameras)


def _use_device(scene: Any, device: str, threads: int) -> None:
    scene.render.engine = "CYCLES"
    scene.render.threads_mode = "FIXED"
    scene.render.threads = threads
    if device == "cpu":
        scene.cycles.device = "CPU"
        return
    preferences = bpy.context.preferences.addons["cycles"].preferences
    for backend in ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL"):
        try:
            preferences.compute_device_type = backend
        except TypeError:
            continue  # this build has no such backend
        preferences.get_devices()
        found = [item for item in preferences.devices if item.type == backend]
        for item in preferences.devices:
            item.use = item in found
        if found:
            scene.cycles.device = "GPU"
            return
    raise SceneFailure("no_device", "a GPU was asked for, but Cycles finds none on this machine")


def _frame(scene: Any, resolution: int) -> None:
    render = scene.render
    render.resolution_x = render.resolution_y = resolution
    render.resolution_percentage = 100
    render.film_transparent = True
    render.use_persistent_data = True
    render.use_file_extension = True
    render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
    render.image_settings.exr_codec = "NONE"
    layer = scene.view_layers[0]
    layer.use_pass_z = layer.use_pass_normal = True
    cycles = scene.cycles
    cycles.use_adaptive_sampling = False
    cycles.use_animated_seed = False
    cycles.pixel_filter_type = "BOX"
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.transparent_max_bounces = 32


def _geometry_settings(scene: Any) -> None:
    scene.render.image_settings.color_depth = "32"
    cycles = scene.cycles
    cycles.samples = 1
    cycles.use_denoising = False
    cycles.filter_width = _PIXEL_CENTRE
    cycles.max_bounces = 0


def _colour_settings(scene: Any, samples: int, denoise: bool) -> None:
    scene.render.image_settings.color_depth = "16"
    cycles = scene.cycles
    cycles.samples = samples
    cycles.filter_width = 1.0
    cycles.max_bounces = 4
    cycles.use_denoising = denoise
    if denoise:
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
        cycles.denoising_prefilter = "NONE"
        cycles.denoising_quality = "BALANCED"


def _render_all(scene: Any, prefix: Path) -> None:
    """All cameras as the frames of one animation: the scene is built once.

    No Python handler may be set meanwhile: they deadlock with the render thread (bpy 4.5).
    """
    scene.render.filepath = f"{prefix}####"
    bpy.ops.render.render(animation=True)


def _light(scene: Any, world_strength: float, sun_strength: float) -> None:
    """Even light from everywhere, and four suns that give shapes some relief."""
    world = bpy.data.worlds.new("world")
    scene.world = world
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    background.inputs["Strength"].default_value = world_strength
    tilt = math.radians(90 - _SUN_ELEVATION)
    for azimuth in _SUN_AZIMUTHS if sun_strength else ():
        lamp = bpy.data.lights.new("sun", "SUN")
        lamp.energy = sun_strength
        lamp.angle = math.radians(20)
        sun = bpy.data.objects.new("sun", lamp)
        sun.rotation_euler = Euler((tilt, 0.0, math.radians(azimuth + 90)))
        scene.collection.objects.link(sun)


def _shrink(image: Any, side: int) -> None:
    width, height = image.size
    longest = max(width, height)
    if longest > side:
        image.scale(max(1, width * side // longest), max(1, height * side // longest))
