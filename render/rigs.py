"""Camera rigs by name. An object's cameras depend on the rig and the object alone.

A new rig is a function from a generator to cameras and a line in `RIGS`.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.choices import choose
from dataset.cameras import Camera, camera_at, orbit_eye
from dataset.zero123plus_cameras import FIELD_OF_VIEW, NUM_TARGETS, RIG_NAME, target_cameras

__all__ = ["RIGS", "Rig", "get_rig"]

Place = Callable[[np.random.Generator], list[Camera]]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Where the cameras stand, and how the object is scaled for them."""

    name: str
    version: int
    """Raise it when the cameras change."""
    normalise: Literal["cube", "sphere"]
    """What of the object has half-width 1: its bounding cube or its bounding sphere."""
    num_views: int
    place: Place
    cameras_of: str | None = None
    """The rig whose cameras these are, if it is another."""

    def cameras(self, asset_id: str) -> list[Camera]:
        """This object's cameras: the same on every machine and every call."""
        name = self.cameras_of or self.name
        seed = hashlib.sha256(f"{name}/{self.version}/{asset_id}".encode()).digest()
        cameras = self.place(np.random.default_rng(int.from_bytes(seed[:16], "big")))
        assert len(cameras) == self.num_views
        return cameras


def get_rig(name: str) -> Rig:
    """The rig of that name. Raises BadInput with the closest name if there is none."""
    return choose("rig", name, RIGS)


def _at(eyes: Sequence[np.ndarray], fov: float) -> list[Camera]:
    return [camera_at(eye, fov) for eye in eyes]


def _lrm32(rng: np.random.Generator) -> list[Camera]:
    """32 random views as InstantMesh's authors state them: distance 2 to 3.5, z -0.75 to 1.6."""
    eyes = []
    for _ in range(32):
        distance, height = rng.uniform(2.0, 3.5), rng.uniform(-0.75, 1.6)
        elevation = np.degrees(np.arcsin(height / distance))
        eyes.append(orbit_eye(rng.uniform(0, 360), elevation, distance))
    return _at(eyes, fov=50)


def _zero123plus(rng: np.random.Generator) -> list[Camera]:
    """Return a query view, then the six targets of Zero123++ v1.2 (dataset.zero123plus_cameras).

    The query's ranges are those of InstantMesh's authors; the near end crops the object.
    """
    azimuth, elevation = rng.uniform(0, 360), rng.uniform(-20, 45)
    query = orbit_eye(azimuth, elevation, rng.uniform(2.5, 5.0))
    return [camera_at(query, FIELD_OF_VIEW), *target_cameras(azimuth)]


def _orbit21(_: np.random.Generator) -> list[Camera]:
    """The paper's evaluation: 21 views, even azimuths, elevations 30, 0 and -30 in turn."""
    eyes = [orbit_eye(i * 360 / 21, (30, 0, -30)[i % 3], 4.0) for i in range(21)]
    return _at(eyes, fov=30)


def _one2345(_: np.random.Generator) -> list[Camera]:
    """Eight fixed views as in One-2-3-45: two rings of four, 30 degrees apart both ways.

    Its camera: radius 1.2 around an object in [-0.5, 0.5]^3, which is 2.4 here; focal length 280
    of 256 pixels. Elevations there follow the input picture; here they are 30 and 0.
    """
    rings = ((30, 0), (0, 30))
    eyes = [
        orbit_eye(first + 90 * i, elevation, 2.4) for elevation, first in rings for i in range(4)
    ]
    return _at(eyes, fov=2 * math.degrees(math.atan(128 / 280)))


def _fixed48(_: np.random.Generator) -> list[Camera]:
    """48 fixed views, to compare objects and renderers: four rings of twelve, -30 to 60 degrees."""
    rings = ((-30, 0), (0, 15), (30, 0), (60, 15))
    eyes = [
        orbit_eye(first + 30 * i, elevation, 2.75) for elevation, first in rings for i in range(12)
    ]
    return _at(eyes, fov=50)


RIGS = {
    rig.name: rig
    for rig in (
        Rig(name="lrm32", version=1, normalise="cube", num_views=32, place=_lrm32),
        Rig(
            name=RIG_NAME,
            version=1,
            normalise="sphere",
            num_views=1 + NUM_TARGETS,
            place=_zero123plus,
        ),
        # InstantMesh's fine-tune took the cube by mistake: objects come out too large.
        Rig(
            name=f"{RIG_NAME}-cube",
            version=1,
            normalise="cube",
            num_views=1 + NUM_TARGETS,
            place=_zero123plus,
            cameras_of=RIG_NAME,
        ),
        Rig(name="orbit21", version=1, normalise="cube", num_views=21, place=_orbit21),
        Rig(name="one2345", version=1, normalise="cube", num_views=8, place=_one2345),
        Rig(name="fixed48", version=1, normalise="cube", num_views=48, place=_fixed48),
    )
}
