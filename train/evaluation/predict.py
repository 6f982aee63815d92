"""Predictions of models for an object of a dataset: a shape, or six generated views."""

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
from train.evaluation.scores import Pictures, PointCloud
from train.inference.reconstruction import Reconstruction, Reconstructor
from train.inference.six_views import camera_tensors, input_cameras

__all__ = [
    "Generate",
    "GeneratedViews",
    "Prediction",
    "azimuth_of",
    "choose_inputs",
    "generate_views",
    "predict",
]

Generate = Callable[[Pictures, list[Camera]], tuple[Float[Tensor, "6 3 s s"], list[Camera]]]
"""Generates six views from an object's view 0, and returns them with their cameras."""
_VIEWS_PER_CHUNK = 3
"""Views rendered at once: bounds the memory."""
_MIN_COSINE = np.cos(np.radians(1.0))
"""Cosine of the largest angle between two directions that count as the same: one degree."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedViews:
    """Six generated views, and the indices of the reference views from the same directions."""

    rgb: Float[Tensor, "6 3 s s"]
    reference_views: list[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A prediction for one object; a part that the model does not predict is None."""

    views: list[int]
    """Indices of the reference views that `pictures` are compared with."""
    pictures: Pictures | None
    cloud: PointCloud | None
    """Points on the predicted surface."""
    generated: GeneratedViews | None = None


def choose_inputs(cameras: Sequence[Camera]) -> list[int]:
    """Return the indices of the six views nearest to those that Zero123++ generates from view 0.

    With the rig zero123plus these are its six target views. Raises BadInput if the object has no
    view besides six inputs.
    """
    if len(cameras) <= NUM_TARGETS:
        raise BadInput(
            f"the object has {len(cameras)} views, but {NUM_TARGETS} are input and at least one "
            "more is needed for evaluation"
        )
    wanted = _directions(input_cameras(azimuth=azimuth_of(cameras[0])))
    cosines = wanted @ _directions(cameras).T
    chosen: list[int] = []
    for row in cosines:
        order = np.argsort(-row, kind="stable")
        chosen.append(int(next(view for view in order if int(view) not in chosen)))
    return chosen


def azimuth_of(camera: Camera) -> float:
    """Return the azimuth of a camera's position in degrees: 0 on +x, 90 on +y."""
    x, y = camera.camera_to_world[:2, 3].astype(float)
    return float(np.degrees(np.arctan2(y, x)))


def predict(
    model: Reconstructor,
    reference: Pictures,
    cameras: Sequence[Camera],
    *,
    num_points: int,
    seed: int,
    generate: Generate | None = None,
    pictures: bool = True,
) -> Prediction:
    """Return a model's surface, and its renderings from the cameras of views that are not input.

    The model's input is view 0 or six reference views, as its family takes, or with `generate` six
    views generated from view 0; in that case all reference views are used for evaluation. A family
    without colours has no renderings, and without `pictures` none are made. `num_points` are
    sampled on the surface with `seed`. Raises BadInput if the model predicts no surface.
    """
    generated = None
    if generate is None:
        chosen = [0] if model.family.num_views == 1 else choose_inputs(cameras)
        rgb = reference.rgb[chosen]
        input_views = [cameras[view] for view in chosen]
        evaluated = [view for view in range(len(cameras)) if view not in chosen]
    else:
        rgb, input_views = generate(reference, list(cameras))
        evaluated = list(range(len(cameras)))
        generated = _match_reference(rgb, input_views, cameras)
        if generated is not None:
            # The reference cameras have the distance that the object was scaled for.
            input_views = [cameras[view] for view in generated.reference_views]
    images = resize({"rgb": rgb}, model.image_size)["rgb"][None]
    reconstruction = model.reconstruct(images, *camera_tensors(input_views))
    shape = reconstruction.shape
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    points, _ = trimesh.sample.sample_surface(mesh, num_points, seed=seed)
    return Prediction(
        views=evaluated,
        pictures=_render(reconstruction, [cameras[view] for view in evaluated], reference)
        if pictures
        else None,
        cloud=PointCloud.from_surface(np.asarray(points), shape.vertices),
        generated=generated,
    )


def generate_views(
    reference: Pictures, cameras: Sequence[Camera], generate: Generate
) -> Prediction:
    """Return six views generated from view 0, without a shape.

    Raises BadInput if the object has no reference views from the same directions.
    """
    rgb, generated_cameras = generate(reference, list(cameras))
    generated = _match_reference(rgb, generated_cameras, cameras)
    if generated is None:
        raise BadInput(
            "the object has no views from the directions of Zero123++'s six views; render them "
            "with `lrm build --rig zero123plus`"
        )
    return Prediction(views=[], pictures=None, cloud=None, generated=generated)


def _match_reference(
    rgb: Float[Tensor, "6 3 s s"], generated_cameras: Sequence[Camera], cameras: Sequence[Camera]
) -> GeneratedViews | None:
    """Match generated views with reference views; None if a direction differs by over a degree."""
    if len(cameras) <= NUM_TARGETS:
        return None
    chosen = choose_inputs(cameras)
    matched = [cameras[view] for view in chosen]
    cosines = (_directions(generated_cameras) * _directions(matched)).sum(axis=1)
    return GeneratedViews(rgb=rgb, reference_views=chosen) if cosines.min() > _MIN_COSINE else None


def _render(
    reconstruction: Reconstruction, cameras: Sequence[Camera], like: Pictures
) -> Pictures | None:
    """Render views; None for a family without colours."""
    size = (like.rgb.shape[-2], like.rgb.shape[-1])
    parts = []
    for start in range(0, len(cameras), _VIEWS_PER_CHUNK):
        chunk = camera_tensors(cameras[start : start + _VIEWS_PER_CHUNK])
        if (rendered := reconstruction.render(*chunk, size)) is None:
            return None
        parts.append(rendered)
    return Pictures(
        rgb=torch.cat([rgb for rgb, _ in parts]), alpha=torch.cat([alpha for _, alpha in parts])
    )


def _directions(cameras: Sequence[Camera]) -> Float[np.ndarray, "v 3"]:
    """Return the unit vectors from the origin to the cameras."""
    eyes = np.stack([camera.camera_to_world[:3, 3] for camera in cameras]).astype(float)
    return eyes / np.linalg.norm(eyes, axis=1, keepdims=True)
