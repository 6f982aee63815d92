"""What every view of a rig must show of two bodies, by their equations."""

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
from tests.support.bodies import Box, Seen, letter_block, look_at_boxes

__all__ = ["BODIES", "rig_problems"]

FINE = 6
"""Rays per pixel each way where a pixel may be covered in part."""

RIM = 99
"""The face number of what lies too close to an outline for its depth to be compared."""

Hits = Callable[[Float[np.ndarray, "3"], Float[np.ndarray, "*n 3"]], Bool[np.ndarray, "*n"]]


@dataclass(frozen=True, kw_only=True)
class Body:
    """What every pixel must show of a body, and which rays meet it."""

    look: Callable[[Camera], Seen]
    hits: Hits


def block(rig: Rig, size: int) -> Body:
    """The block with the letter as the rig normalises it: its cube is that of the file."""
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
        look=lambda camera: look_at_boxes(boxes, camera, size),
        hits=lambda origin, directions: hits_boxes(boxes, origin, directions),
    )


def sphere(_: Rig, size: int) -> Body:
    """The unit sphere: neither way of normalising changes it."""
    return Body(look=lambda camera: look_at_sphere(camera, size), hits=hits_sphere)


BODIES = {"block": block, "sphere": sphere}


def hits_boxes(boxes: Sequence[Box], origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    hit = np.zeros(directions.shape[:-1], dtype=bool)
    for box in boxes:
        ends = [(np.array(end) - origin) / directions for end in (box.low, box.high)]
        hit |= np.minimum(*ends).max(axis=-1) < np.maximum(*ends).min(axis=-1)
    return hit


def hits_sphere(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    along = directions @ origin
    return along**2 > (directions**2).sum(axis=-1) * (origin @ origin - 1)


def look_at_sphere(camera: Camera, size: int) -> Seen:
    """The unit sphere around the origin; where it is seen at a grazing angle, its face is RIM."""
    origin, directions = (part.astype(float) for part in rays(camera, size, size))
    square, along = (directions**2).sum(axis=-1), directions @ origin
    inside = along**2 - square * (origin @ origin - 1)
    depth = np.where(inside > 0, (-along - np.sqrt(np.maximum(inside, 0))) / square, 0)
    hit = depth > 0
    normals = np.where(hit[..., None], origin + depth[..., None] * directions, 0)
    cosine = -(normals * directions).sum(axis=-1) / np.sqrt(square)
    return Seen(
        depth=depth, normals=normals, face=np.where(hit, np.where(cosine < 0.2, RIM, 0), -1)
    )


def covered_area(hits: Hits, camera: Camera, hit: Bool[np.ndarray, "h w"]) -> float:
    """The share of the frame that a body covers, by many rays for each pixel at its outline."""
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


def angles(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Between unit vectors, in degrees."""
    return np.degrees(np.arccos((found * expected).sum(axis=-1).clip(-1, 1)))


def geometry_problems(body: Body, seen: Seen, views: ViewSet, view: int) -> Iterator[str]:
    depth, normals, alpha = views.depth[view], views.normals[view], views.rgba[view, ..., 3] / 255
    hit = seen.face >= 0
    plain = seen.inner & hit & (seen.face != RIM)
    if plain.mean() < 0.01:
        yield f"only {plain.sum()} pixels to compare"
        return
    if (off := np.abs(depth - seen.depth)[plain].max()) > 2e-3:
        yield f"depth is off by {off:.4f}"
    if (off := angles(normals, seen.normals)[plain].max()) > 1.5:
        yield f"normals are off by {off:.1f} degrees"
    # Along the outline, 2 px long for each row of pixels at most, a few percent may be wrong.
    if (off := ((depth > 0) != hit).sum()) > len(hit) / 4:
        yield f"depth takes {off} of the pixels for background or body wrongly"
    area = covered_area(body.hits, views.cameras[view], hit)
    if abs(alpha.mean() - area) > 0.005 * area:
        yield f"alpha covers {alpha.mean():.4f} of the frame instead of {area:.4f}"


def letter_problems(seen: Seen, views: ViewSet, view: int, samples: int) -> Iterator[str]:
    """The letter must lie where it should and, without any of the mathematics, read as an F."""
    # With few samples, pixels are black by chance, or red from the light of the letter beside them.
    side = math.ceil(math.sqrt(16 / samples))
    rgb = views.rgba[view, ..., :3].astype(int)
    red = in_blocks(rgb[..., 0] > 2 * rgb[..., 1], side) > 0.5
    letter = in_blocks(seen.face >= 6, side)
    inner = in_blocks(seen.inner & (seen.face >= 0), side) == 1
    whole = inner & ((letter == 0) | (letter == 1))
    if (red != letter)[whole].sum() > 2 + 0.05 * letter[whole].sum():
        yield "the letter is not where it belongs"
    if is_in_front(views.cameras[view]):
        rows, columns = np.nonzero(red)
        if np.bincount(columns).argmax() > columns.mean():
            yield "the letter is mirrored"
        # The extent is known to half a block at each end.
        if rows.mean() > (rows.min() + rows.max() + 1) / 2:
            yield "the letter is upside down"


def in_blocks(mask: Bool[np.ndarray, "h w"], side: int) -> Float[np.ndarray, "m n"]:
    """The share of each block of `side` x `side` pixels."""
    blocks = len(mask) // side
    return mask.reshape(blocks, side, blocks, side).mean(axis=(1, 3))


def is_in_front(camera: Camera) -> bool:
    """Whether it looks at the side with the letter, within 45 degrees."""
    return camera.camera_to_world[1, 2] < -(0.5**0.5)


def rig_problems(
    blender: BlenderProcess, rig: Rig, name: str, glb: Path, config: RenderConfig
) -> list[str]:
    """Render a body with every camera of a rig, and say what is wrong in which view.

    Geometry takes one sample in any case; `config.samples` must tell the area of a silhouette.
    """
    size = config.resolution
    body = BODIES[name](rig, size)
    cameras = rig.cameras("a body")
    assert any(is_in_front(camera) for camera in cameras) or name == "sphere"
    blender.open(glb, rig.normalise)
    views, _ = blender.render(cameras, config)
    problems = []
    for view, camera in enumerate(cameras):
        seen = body.look(camera)
        found = list(geometry_problems(body, seen, views, view))
        found += letter_problems(seen, views, view, config.samples) if name == "block" else []
        problems += [f"rig {rig.name}, view {view}: {problem}" for problem in found]
    return problems
