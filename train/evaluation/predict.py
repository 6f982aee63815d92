"""What models give for an object of a dataset: a shape from six views, or the six views."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from core.errors import BadInput
from dataset.cameras import Camera
from dataset.zero123plus_cameras import NUM_TARGETS
from train.data.resize import resize
from train.evaluation.scores import Cloud, Pictures
from train.inference.lrm import Reconstruction, Reconstructor
from train.inference.six_views import camera_tensors, input_cameras

__all__ = [
    "Generate",
    "MadeViews",
    "Predicted",
    "azimuth_of",
    "choose_inputs",
    "make_views",
    "predict",
]

Generate = Callable[[Pictures, list[Camera]], tuple[Float[Tensor, "6 3 s s"], list[Camera]]]
"""Makes six views, and says where they were seen from, of the first picture of an object."""
_VIEWS_AT_ONCE = 3
_SAME_CAMERA = np.cos(np.radians(1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeViews:
    """Six views that were made of a picture, and which views of the truth show what they should."""

    rgb: Float[Tensor, "6 3 s s"]
    true_views: list[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """A prediction beside which views of the truth it is to be judged by; None: has no such."""

    views: list[int]
    pictures: Pictures | None
    cloud: Cloud | None
    made: MadeViews | None = None


def choose_inputs(cameras: Sequence[Camera]) -> list[int]:
    """Six views: those nearest to where Zero123++ would show the object of view 0.

    Of the rig zero123plus they are its six targets. Raises BadInput where there are too few.
    """
    if len(cameras) <= NUM_TARGETS:
        raise BadInput(
            f"it has {len(cameras)} views, and {NUM_TARGETS} are input: none is left to judge by"
        )
    wanted = _directions(input_cameras(azimuth=azimuth_of(cameras[0])))
    cosines = wanted @ _directions(cameras).T
    chosen: list[int] = []
    for row in cosines:
        order = np.argsort(-row, kind="stable")
        chosen.append(int(next(view for view in order if int(view) not in chosen)))
    return chosen


def azimuth_of(camera: Camera) -> float:
    """In degrees, 0 on +x."""
    x, y = camera.camera_to_world[:2, 3].astype(float)
    return float(np.degrees(np.arctan2(y, x)))


def predict(
    model: Reconstructor,
    truth: Pictures,
    cameras: Sequence[Camera],
    *,
    num_points: int,
    seed: int,
    generate: Generate | None = None,
) -> Predicted:
    """The model's own pictures from the cameras of the views that it did not see, and its surface.

    Its input are views of the truth, or with `generate` six made of view 0. Raises BadInput if
    there is no surface.
    """
    made = None
    if generate is None:
        chosen = choose_inputs(cameras)
        given = truth.rgb[chosen]
        inputs = [cameras[view] for view in chosen]
        judged = [view for view in range(len(cameras)) if view not in chosen]
    else:
        given, inputs = generate(truth, list(cameras))
        judged = list(range(len(cameras)))
        made = _beside_truth(given, inputs, cameras)
        if made is not None:
            # The truth says how far away they stand, and what its objects were fitted to.
            inputs = [cameras[view] for view in made.true_views]
    images = resize({"rgb": given}, model.image_size)["rgb"][None]
    seen = model.reconstruct(images, *camera_tensors(inputs))
    shape = seen.shape
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    points, _ = trimesh.sample.sample_surface(mesh, num_points, seed=seed)
    return Predicted(
        views=judged,
        pictures=_render(seen, [cameras[view] for view in judged], truth),
        cloud=Cloud.on(np.asarray(points), shape.vertices),
        made=made,
    )


def make_views(truth: Pictures, cameras: Sequence[Camera], generate: Generate) -> Predicted:
    """Six views made of view 0, without a shape. Raises BadInput if the truth has no such views."""
    given, inputs = generate(truth, list(cameras))
    made = _beside_truth(given, inputs, cameras)
    if made is None:
        raise BadInput(
            "it has no views from where Zero123++ shows objects: `lrm build --rig zero123plus` "
            "renders them"
        )
    return Predicted(views=[], pictures=None, cloud=None, made=made)


def _beside_truth(
    given: Float[Tensor, "6 3 s s"], inputs: Sequence[Camera], cameras: Sequence[Camera]
) -> MadeViews | None:
    """None where the truth was seen from elsewhere, by more than a degree."""
    if len(cameras) <= NUM_TARGETS:
        return None
    chosen = choose_inputs(cameras)
    there = [cameras[view] for view in chosen]
    cosines = (_directions(inputs) * _directions(there)).sum(axis=1)
    return MadeViews(rgb=given, true_views=chosen) if cosines.min() > _SAME_CAMERA else None


def _render(seen: Reconstruction, cameras: Sequence[Camera], like: Pictures) -> Pictures:
    size = (like.rgb.shape[-2], like.rgb.shape[-1])
    starts = range(0, len(cameras), _VIEWS_AT_ONCE)
    parts = [
        seen.render(*camera_tensors(cameras[start : start + _VIEWS_AT_ONCE]), size)
        for start in starts
    ]
    return Pictures(
        rgb=torch.cat([rgb for rgb, _ in parts]), alpha=torch.cat([alpha for _, alpha in parts])
    )


def _directions(cameras: Sequence[Camera]) -> Float[np.ndarray, "v 3"]:
    eyes = np.stack([camera.camera_to_world[:3, 3] for camera in cameras]).astype(float)
    return eyes / np.linalg.norm(eyes, axis=1, keepdims=True)
