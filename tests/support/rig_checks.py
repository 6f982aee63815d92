"""Checks of every view of a rig against the exact depth, normals and outline of two bodies."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from dataset.cameras import Camera, rays
from dataset.views import ViewSet
from render.process import BlenderProcess
from render.render_config import RenderConfig
from render.rigs import Rig
from tests.support.analytic_shapes import Box, PixelTruth, cast_rays_at_boxes, letter_block

__all__ = ["BODIES", "rig_problems"]

FINE = 6
"""Rays per pixel along each axis, for pixels that may be partly covered."""

RIM = 99
"""Face number of pixels that are too close to an outline for a comparison of depth."""

Hits = Callable[[Float[np.ndarray, "3"], Float[np.ndarray, "*n 3"]], Bool[np.ndarray, "*n"]]


@dataclass(frozen=True, kw_only=True)
class Body:
    """The exact values of a body's pixels, and a function that finds the rays that hit it."""

    look: Callable[[Camera], PixelTruth]
    hits: Hits


def block(rig: Rig, size: int) -> Body:
    """Return the block with the letter, scaled as the rig normalises it.

    For a rig with cube normalisation the scale is 1.
    """
    boxes = letter_block()
    if rig.normalise == "sphere":
        corners = [np.maximum(np.abs(box.low), np.abs(box.high)) for box in boxes]
        scale = 1 / np.linalg.norm(corners, axis=1).max()
        boxes = [
            dataclasses.replace(
                box, low=tuple(scale * np.array(box.low)), high=tuple(scale * np.array(box.high))
            )
            for box in boxes
        ]
    return Body(
        look=lambda camera: cast_rays_at_boxes(boxes, camera, size),
        hits=lambda origin, directions: hits_boxes(boxes, origin, directions),
    )


def sphere(_: Rig, size: int) -> Body:
    """Return the unit sphere, which neither kind of normalisation changes."""
    return Body(look=lambda camera: cast_rays_at_sphere(camera, size), hits=hits_sphere)


BODIES = {"block": block, "sphere": sphere}


def hits_boxes(boxes: Sequence[Box], origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return which rays hit a box."""
    hit = np.zeros(directions.shape[:-1], dtype=bool)
    for box in boxes:
        slab = [(np.array(end) - origin) / directions for end in (box.low, box.high)]
        hit |= np.minimum(*slab).max(axis=-1) < np.maximum(*slab).min(axis=-1)
    return hit


def hits_sphere(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return which rays hit the unit sphere."""
    along = directions @ origin
    return along**2 > (directions**2).sum(axis=-1) * (origin @ origin - 1)


def cast_rays_at_sphere(camera: Camera, size: int) -> PixelTruth:
    """Cast a ray through every pixel at the unit sphere; at grazing angles the face is RIM."""
    origin, directions = (part.astype(float) for part in rays(camera, size, size))
    square, along = (directions**2).sum(axis=-1), directions @ origin
    inside = along**2 - square * (origin @ origin - 1)
    depth = np.where(inside > 0, (-along - np.sqrt(np.maximum(inside, 0))) / square, 0)
    hit = depth > 0
    normals = np.where(hit[..., None], origin + depth[..., None] * directions, 0)
    cosine = -(normals * directions).sum(axis=-1) / np.sqrt(square)
    return PixelTruth(
        depth=depth, normals=normals, face=np.where(hit, np.where(cosine < 0.2, RIM, 0), -1)
    )


def covered_area(hits: Hits, camera: Camera, hit: Bool[np.ndarray, "h w"]) -> float:
    """Return the share of the frame that a body covers, with many rays per outline pixel."""
    size = len(hit)
    padded = np.pad(hit, 1, mode="edge")
    around = [padded[j : j + size, i : i + size] for j in range(3) for i in range(3)]
    outline = np.any(around, axis=0) & ~np.all(around, axis=0)
    origin, directions = rays(camera, size, size)
    right, down = directions[0, 1] - directions[0, 0], directions[1, 0] - directions[0, 0]
    steps = (np.arange(FINE) + 0.5) / FINE - 0.5
    fine = (steps[:, None, None] * right + steps[None, :, None] * down).reshape(-1, 3)
    parts = hits(origin.astype(float), directions[outline][:, None].astype(float) + fine)
    return float(hit[~outline].sum() + parts.mean(axis=-1).sum()) / size**2


def angles(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the angles between unit vectors in degrees."""
    return np.degrees(np.arccos((actual * expected).sum(axis=-1).clip(-1, 1)))


def geometry_problems(body: Body, expected: PixelTruth, views: ViewSet, view: int) -> Iterator[str]:
    """Yield problems of a view's depth, normals and alpha."""
    depth, normals, alpha = views.depth[view], views.normals[view], views.rgba[view, ..., 3] / 255
    hit = expected.face >= 0
    compared = expected.inner & hit & (expected.face != RIM)
    if compared.mean() < 0.01:
        yield f"only {compared.sum()} pixels to compare"
        return
    if (error := np.abs(depth - expected.depth)[compared].max()) > 2e-3:
        yield f"depth is off by {error:.4f}"
    if (error := angles(normals, expected.normals)[compared].max()) > 1.5:
        yield f"normals are off by {error:.1f} degrees"
    # A few percent of the outline, which has at most 2 pixels per row, may be wrong.
    if (error := ((depth > 0) != hit).sum()) > len(hit) / 4:
        yield f"depth has {error} pixels of the body as background, or the reverse"
    area = covered_area(body.hits, views.cameras[view], hit)
    if abs(alpha.mean() - area) > 0.005 * area:
        yield f"alpha covers {alpha.mean():.4f} of the frame instead of {area:.4f}"


def letter_problems(expected: PixelTruth, views: ViewSet, view: int, samples: int) -> Iterator[str]:
    """Yield problems of the letter: its pixels, and whether it reads as an F.

    The second check uses no projection: it compares rows and columns of red pixels.
    """
    # With few samples a pixel may be black by chance, or red from light that the letter reflects.
    side = math.ceil(math.sqrt(16 / samples))
    rgb = views.rgba[view, ..., :3].astype(int)
    red = in_blocks(rgb[..., 0] > 2 * rgb[..., 1], side) > 0.5
    letter = in_blocks(expected.face >= 6, side)
    inner = in_blocks(expected.inner & (expected.face >= 0), side) == 1
    whole = inner & ((letter == 0) | (letter == 1))
    if (red != letter)[whole].sum() > 2 + 0.05 * letter[whole].sum():
        yield "the letter is not where it belongs"
    if is_in_front(views.cameras[view]):
        rows, columns = np.nonzero(red)
        if np.bincount(columns).argmax() > columns.mean():
            yield "the letter is mirrored"
        # The extent is only accurate to half a block at each end.
        if rows.mean() > (rows.min() + rows.max() + 1) / 2:
            yield "the letter is upside down"


def in_blocks(mask: Bool[np.ndarray, "h w"], side: int) -> Float[np.ndarray, "m n"]:
    """Return the mean of each block of `side` x `side` pixels."""
    blocks = len(mask) // side
    return mask.reshape(blocks, side, blocks, side).mean(axis=(1, 3))


def is_in_front(camera: Camera) -> bool:
    """Return whether the camera faces the side with the letter, within 45 degrees."""
    return camera.camera_to_world[1, 2] < -(0.5**0.5)


def rig_problems(
    blender: BlenderProcess, rig: Rig, name: str, glb: Path, config: RenderConfig
) -> list[str]:
    """Render a body with every camera of a rig; return the problems of each view.

    Depth and normals need one sample; `config.samples` must suffice for the silhouette's area.
    """
    size = config.resolution
    body = BODIES[name](rig, size)
    cameras = rig.cameras("a body")
    assert any(is_in_front(camera) for camera in cameras) or name == "sphere"
    blender.open(glb, rig.normalise)
    views, _ = blender.render(cameras, config)
    problems = []
    for view, camera in enumerate(cameras):
        expected = body.look(camera)
        view_problems = list(geometry_problems(body, expected, views, view))
        view_problems += (
            letter_problems(expected, views, view, config.samples) if name == "block" else []
        )
        problems += [f"rig {rig.name}, view {view}: {problem}" for problem in view_problems]
    return problems
