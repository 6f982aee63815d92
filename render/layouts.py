"""Folder layouts of other trainers: the files of one object, made from its views.

docs/reference/conventions.md defines their numbers. To add a layout, write a function that checks
the views, one that makes the files, and a line in `LAYOUTS`.
"""

import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from core.choices import choose
from core.errors import BadInput
from dataset.cameras import Camera, world_to_camera
from dataset.views import ViewSet

__all__ = ["LAYOUTS", "Files", "Layout", "get_layout"]

Files = Iterator[tuple[str, bytes]]

_INSTANTMESH_VIEWS = 32
_INSTANTMESH_FOV = 50.0
_INSTANTMESH_DEPTH = 6.0
"""Depth of level 255 in InstantMesh's 8-bit files, in world units."""
_LENS_TOLERANCE = 1e-4
"""Of normalised intrinsics: a twentieth of a pixel at 512."""
_FOV_TOLERANCE = 0.01
"""In degrees."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A folder per object, and for some layouts a file that lists the folders."""

    name: str
    folder: str
    """Folder below the export's own that holds the objects' folders, named as readers expect."""
    check: Callable[[ViewSet, str | None], None]
    """(views, how the object was normalised): raises BadInput if the layout cannot hold the views.
    """
    files: Callable[[ViewSet], Files]
    """Yields the name and content of each file in the object's folder, given checked views."""
    listing: Callable[[Sequence[str]], tuple[str, bytes]] | None
    """Returns the name and content of the file that lists the given object folders."""


def get_layout(name: str) -> Layout:
    """Return a layout by its name. Raises BadInput with the closest name if there is none."""
    return choose("layout", name, LAYOUTS)


def _check_instantmesh(views: ViewSet, normalise: str | None) -> None:
    """Raise BadInput for views that InstantMesh's loader would misread.

    The folders do not store the lens, and the loader draws from the first 32 views.
    """
    _check_lens(views)
    for view, camera in enumerate(views.cameras):
        fov = math.degrees(_field_of_view(camera))
        if abs(fov - _INSTANTMESH_FOV) > _FOV_TOLERANCE:
            raise BadInput(
                f"view {view} has a field of view of {fov:.2f} degrees; the layout requires "
                f"{_INSTANTMESH_FOV:g}"
            )
    if normalise != "cube":
        actual = "not normalised" if normalise is None else f"normalised to the {normalise}"
        raise BadInput(f"the object is {actual}; the layout requires the cube [-1, 1]^3")
    if len(views.cameras) < _INSTANTMESH_VIEWS:
        raise BadInput(
            f"the sample has {len(views.cameras)} views; the layout requires {_INSTANTMESH_VIEWS}"
        )
    farthest = views.depth.max(axis=(1, 2))
    if farthest.max() > _INSTANTMESH_DEPTH:
        view = int(farthest.argmax())
        raise BadInput(
            f"view {view} shows a surface at depth {farthest[view]:.3f}; the layout stores depths "
            f"up to {_INSTANTMESH_DEPTH:g}"
        )


def _instantmesh_files(views: ViewSet) -> Files:
    """Yield `NNN.png`, `NNN_depth.png` and `NNN_normal.png` per view, then `cameras.npz`."""
    for view in range(len(views.cameras)):
        yield f"{view:03d}.png", _png(views.rgba[view])
        yield f"{view:03d}_depth.png", _png(_eight_bit_depth(views.depth[view]))
        yield f"{view:03d}_normal.png", _png(_rgba_normals(views.normals[view]))
    matrices = np.stack([camera.camera_to_world for camera in views.cameras]).astype(np.float64)
    out = io.BytesIO()
    np.savez(out, cam_poses=world_to_camera(matrices)[:, :3].astype(np.float32))
    yield "cameras.npz", out.getvalue()


def _eight_bit_depth(depth: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Return level = 255 depth / 6, at least 1 for a surface and 0 for background."""
    levels = np.rint(depth * (255 / _INSTANTMESH_DEPTH))
    return np.maximum(levels, depth > 0).astype(np.uint8)


def _rgba_normals(normals: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 4"]:
    """Return (n + 1) / 2 in world axes, with alpha: the loader fails on three channels."""
    hit = normals.any(axis=-1, keepdims=True)
    colours = np.where(hit, np.rint((normals + 1) * 127.5), 0)
    return np.concatenate([colours, hit * 255.0], axis=-1).astype(np.uint8)


def _instantmesh_listing(names: Sequence[str]) -> tuple[str, bytes]:
    return "filtered_obj_name.json", json.dumps({"good_objs": list(names)}, indent=1).encode()


def _check_trellis(views: ViewSet, _: str | None) -> None:
    """Raise BadInput for views that TRELLIS cannot read.

    Any field of view is allowed, since each frame stores its own. Objects in the cube and in the
    unit sphere both fit its box.
    """
    _check_lens(views)


def _trellis_files(views: ViewSet) -> Files:
    """Yield `NNN.png` per view, then `transforms.json`; the layout has no depth and no normals.

    Scale and offset in `transforms.json` map this project's world to the one of TRELLIS.
    """
    frames = []
    for view, camera in enumerate(views.cameras):
        name = f"{view:03d}.png"
        yield name, _png(views.rgba[view])
        frames.append(
            {
                "file_path": name,
                "camera_angle_x": _field_of_view(camera),
                "transform_matrix": _halved(camera.camera_to_world).tolist(),
            }
        )
    box = {"aabb": [[-0.5] * 3, [0.5] * 3], "scale": 0.5, "offset": [0.0, 0.0, 0.0]}
    yield "transforms.json", json.dumps({**box, "frames": frames}, indent=1).encode()


def _halved(camera_to_world: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    matrix = camera_to_world.astype(np.float64)
    matrix[:3, 3] *= 0.5
    return matrix


def _check_lens(views: ViewSet) -> None:
    """Raise BadInput unless images are square, with one focal length and a centred principal point.

    Neither layout can store anything else.
    """
    height, width = views.depth.shape[1:]
    if height != width:
        raise BadInput(f"the images are {width} x {height}; the layout requires square images")
    for view, camera in enumerate(views.cameras):
        fx, fy, cx, cy = camera.intrinsics.tolist()
        if max(abs(cx - 0.5), abs(cy - 0.5)) > _LENS_TOLERANCE:
            raise BadInput(
                f"view {view} has its principal point at ({cx:.4f}, {cy:.4f}); the layout requires "
                "the centre"
            )
        if abs(fx - fy) > _LENS_TOLERANCE:
            raise BadInput(
                f"view {view} has fx {fx:.4f} and fy {fy:.4f}; the layout requires equal values"
            )


def _field_of_view(camera: Camera) -> float:
    """Return the horizontal field of view in radians."""
    return 2 * math.atan(0.5 / float(camera.intrinsics[0]))


def _png(pixels: UInt8[np.ndarray, "h w *c"]) -> bytes:
    out = io.BytesIO()
    # Level 3 takes half the time of the default level 6, and makes files 10 to 25 % larger.
    Image.fromarray(pixels).save(out, "PNG", compress_level=3)
    return out.getvalue()


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            name="instantmesh",
            folder="rendering_random_32views",
            check=_check_instantmesh,
            files=_instantmesh_files,
            listing=_instantmesh_listing,
        ),
        Layout(
            name="trellis",
            folder="renders",
            check=_check_trellis,
            files=_trellis_files,
            listing=None,
        ),
    )
}
