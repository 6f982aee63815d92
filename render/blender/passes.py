"""Rendering with Cycles: the camera, and two renders of every view.

Colour is sampled and denoised. Geometry (depth and normals) is one sample through the centre of
each pixel, which is exact; passes of the colour render would be jittered or averaged.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from core.failures import FailureKind
from glb.geometry.surface import Surface
from render.blender.devices import use_device
from render.blender.failure import SceneFailure
from render.blender.framing import object_windows
from render.blender.light import set_light
from render.blender.meshes import create_meshes
from render.blender.opacity import round_opacity
from render.blender.quality import PROBE, choose_samples, probe_views
from render.blender.scene import OpenScene
from render.blender.transparency import pass_short_rays
from render.job import (
    COLOUR_MARK,
    CameraSpec,
    CompileRequest,
    MeasureRequest,
    Rendered,
    RenderRequest,
    Window,
)

__all__ = ["compile_kernels", "render_silhouettes", "render_views"]

_SENSOR = 36.0
"""Width of the sensor in mm. Only its ratio to the focal length matters."""
_FORMAT = "OPEN_EXR_MULTILAYER"
_MAX_LAYERS = 1024
"""Transparent surfaces that a ray passes: the maximum of Cycles. More are black."""
_PIXEL_CENTRE = 0.01
"""Width in pixels of a pixel filter that samples the centre only."""


def render_views(
    surface: Surface, request: RenderRequest, on_view: Callable[[Rendered], None]
) -> dict[str, Any]:
    """Write geometry_NNN.exr and colour_NNN.exr of every view.

    Returns `timings` (seconds per part) and `samples` (per pixel of the colours). `on_view` is
    called for every view as soon as both of its frames are written.
    """
    started = time.monotonic()
    scene = bpy.context.scene
    use_device(scene, request.device, request.threads)
    for image in bpy.data.images:
        _shrink(image, request.texture_size)
    set_light(scene, request.light_strength, request.light_gradient)
    _common_settings(scene)
    scene.cycles.seed = request.seed
    windows = object_windows(surface, request.cameras, request.resolution)
    views = [
        _View(*pair, request.resolution) for pair in zip(request.cameras, windows, strict=True)
    ]
    camera = _new_camera(scene)
    folder = Path(request.out)
    prepared = time.monotonic()
    _geometry_settings(scene)
    round_opacity(True)
    for number, view in enumerate(views):
        view.render(scene, camera, folder / f"geometry_{number:03d}.exr")
    round_opacity(False)
    measured = time.monotonic()
    samples = _needed_samples(request, views, camera)
    probed = time.monotonic()
    _colour_settings(scene, samples, request.denoise)
    print(COLOUR_MARK, flush=True)
    for number, view in enumerate(views):
        view.render(scene, camera, folder / f"colour_{number:03d}.exr")
        on_view(Rendered(view=number, window=view.window))
    return {
        "timings": {
            "prepare": prepared - started,
            "geometry": measured - prepared,
            "probe": probed - measured,
            "colour": time.monotonic() - probed,
        },
        "samples": samples,
    }


def _needed_samples(request: RenderRequest, views: Sequence["_View"], camera: Any) -> int:
    """Return the fewest samples that reach the requested quality, at most `request.samples`.

    Without a denoiser that is the maximum: the estimate measures the error after denoising.
    """
    if not request.denoise or request.samples <= request.min_samples:
        return request.samples
    scene = bpy.context.scene
    scene.render.image_settings.file_format = "OPEN_EXR"
    path = Path(request.out) / "probe.exr"
    probes = []
    for number in probe_views([view.window for view in views]):
        images = []
        for seed, (samples, denoise) in enumerate(PROBE, start=request.seed + 1):
            _colour_settings(scene, samples, denoise)
            scene.cycles.seed = seed
            views[number].render(scene, camera, path)
            images.append(_read_frame(path))
        probes.append((images[0], images[1], images[2]))
    scene.cycles.seed = request.seed
    scene.render.image_settings.file_format = _FORMAT
    return choose_samples(probes, request.quality, request.min_samples, request.samples)


def _read_frame(path: Path) -> np.ndarray:
    """Return a frame, linear and premultiplied (h, w, 4), bottom row first; remove the file."""
    image = bpy.data.images.load(str(path))
    pixels = np.empty(len(image.pixels), dtype=np.float32)
    image.pixels.foreach_get(pixels)
    width, height = image.size
    bpy.data.images.remove(image)
    path.unlink()
    return pixels.reshape(height, width, 4)


def render_silhouettes(opened: OpenScene, request: MeasureRequest) -> None:
    """Write silhouette_NNN.exr, the opacity in each camera's image with one sample per pixel.

    Shells around the object are left out.
    """
    scene = bpy.context.scene
    use_device(scene, "cpu", request.threads)
    _common_settings(scene)
    _geometry_settings(scene)
    scene.cycles.filter_width = 1.0
    camera = _new_camera(scene)
    whole = Window(left=0, top=0, width=request.resolution, height=request.resolution)
    with _hidden(opened.shell_objects):
        for number, spec in enumerate(request.cameras):
            view = _View(spec, whole, request.resolution)
            view.render(scene, camera, Path(request.out) / f"silhouette_{number:03d}.exr")


@contextmanager
def _hidden(objects: Sequence[Any]) -> Iterator[None]:
    """Leave objects out of renders until the end of the block."""
    for item in objects:
        item.hide_render = True
    try:
        yield
    finally:
        for item in objects:
            item.hide_render = False


def compile_kernels(request: CompileRequest) -> None:
    """Render a small cube with both settings, which compiles all kernels that renders need."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    material = bpy.data.materials.new("material")
    material.use_nodes = True
    pass_short_rays()
    surface = _cube()
    create_meshes(surface, [material], np.zeros(len(surface.faces), dtype=bool))
    in_front = [[1.0, 0, 0, 0], [0, 0, -1.0, -4.0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]]
    spec = CameraSpec(camera_to_world=in_front, intrinsics=[1.0, 1.0, 0.5, 0.5])
    small = RenderRequest(
        cameras=[spec],
        resolution=64,
        samples=2,
        min_samples=2,
        quality=40.0,
        denoise=True,
        device=request.device,
        threads=request.threads,
        texture_size=64,
        light_strength=1.0,
        light_gradient=0.0,
        seed=0,
        out=request.out,
    )
    render_views(surface, small, on_view=lambda _: None)


def _cube() -> Surface:
    """Return the surface of the cube [-1, 1]^3."""
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    sides = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = np.array([[a, b, c] for a, b, c, d in sides] + [[a, c, d] for a, b, c, d in sides])
    return Surface(
        positions=corners,
        normals=(corners / math.sqrt(3)).astype(np.float32),
        uvs={},
        colours=None,
        faces=faces.astype(np.int32),
        materials=np.zeros(len(faces), dtype=np.int32),
        parts=np.zeros(len(faces), dtype=np.int32),
        flat=np.zeros(len(faces), dtype=bool),
    )


class _View:
    """A camera, and the window of its image that can show the object."""

    def __init__(self, spec: CameraSpec, window: Window | None, resolution: int) -> None:
        self._spec = spec
        self.window = window
        self._resolution = resolution

    def render(self, scene: Any, camera: Any, path: Path) -> None:
        """Write the window as a frame of its own size; nothing if there is no window."""
        if self.window is None:
            return
        self._aim(camera)
        self._crop(scene.render, self.window)
        scene.render.filepath = str(path)
        bpy.ops.render.render(write_still=True)

    def _aim(self, camera: Any) -> None:
        fx, fy, cx, cy = self._spec.intrinsics
        if abs(fx - fy) > 1e-6 * fx:
            raise SceneFailure(FailureKind.REFUSED, f"pixels are not square: fx {fx:g}, fy {fy:g}")
        location, rotation, _ = Matrix(self._spec.camera_to_world).decompose()
        camera.location, camera.rotation_quaternion = location, rotation
        # A shift of the lens moves the principal point in the opposite direction.
        lens = camera.data
        lens.lens, lens.shift_x, lens.shift_y = fx * _SENSOR, 0.5 - cx, cy - 0.5

    def _crop(self, render: Any, window: Window) -> None:
        side = self._resolution
        render.resolution_x = render.resolution_y = side
        bottom = side - window.top - window.height  # Blender counts rows from the bottom
        # Blender truncates to whole pixels; half a pixel more makes that independent of rounding.
        render.border_min_x, render.border_min_y = (window.left + 0.5) / side, (bottom + 0.5) / side
        render.border_max_x = (window.left + window.width + 0.5) / side
        render.border_max_y = (bottom + window.height + 0.5) / side


def _new_camera(scene: Any) -> Any:
    """Create the scene's camera, and remove the one of an earlier request."""
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
    return camera


def _common_settings(scene: Any) -> None:
    render = scene.render
    render.resolution_percentage = 100
    render.film_transparent = True
    render.use_persistent_data = True
    render.use_border = render.use_crop_to_border = True
    render.image_settings.file_format = _FORMAT
    render.image_settings.exr_codec = "NONE"
    cycles = scene.cycles
    cycles.use_adaptive_sampling = False
    cycles.pixel_filter_type = "BOX"
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.transparent_max_bounces = _MAX_LAYERS


def _geometry_settings(scene: Any) -> None:
    scene.render.image_settings.color_depth = "32"
    layer = scene.view_layers[0]
    layer.use_pass_z = layer.use_pass_normal = True
    cycles = scene.cycles
    cycles.samples = 1
    cycles.use_denoising = False
    cycles.filter_width = _PIXEL_CENTRE
    cycles.max_bounces = 0


def _colour_settings(scene: Any, samples: int, denoise: bool) -> None:
    scene.render.image_settings.color_depth = "16"
    layer = scene.view_layers[0]
    layer.use_pass_z = layer.use_pass_normal = False
    cycles = scene.cycles
    cycles.samples = samples
    cycles.filter_width = 1.0
    cycles.max_bounces = 4
    cycles.use_denoising = denoise
    if denoise:
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
        cycles.denoising_prefilter = "FAST"
        cycles.denoising_quality = "BALANCED"


def _shrink(image: Any, side: int) -> None:
    width, height = image.size
    longest = max(width, height)
    if longest > side:
        image.scale(max(1, width * side // longest), max(1, height * side // longest))
