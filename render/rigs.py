"""Camera rigs by name. The cameras of an object depend only on the rig and the object's id.

To add a rig, write a function from a random generator to cameras, and add a line to `RIGS`.
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

MakeCameras = Callable[[np.random.Generator], list[Camera]]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A layout of cameras, and how the object is scaled for them."""

    name: str
    version: int
    """Increase it when the cameras change."""
    normalise: Literal["cube", "sphere"]
    """How the object is scaled: `cube` puts the bounding box into [-1, 1]^3, `sphere` gives the
    bounding sphere radius 1."""
    num_views: int
    make_cameras: MakeCameras
    same_cameras_as: str | None = None
    """Name of the rig that has the same cameras, if there is one."""

    def cameras(self, asset_id: str) -> list[Camera]:
        """Return the cameras of an object; the same on every machine and in every call."""
        name = self.same_cameras_as or self.name
        seed = hashlib.sha256(f"{name}/{self.version}/{asset_id}".encode()).digest()
        cameras = self.make_cameras(np.random.default_rng(int.from_bytes(seed[:16], "big")))
        assert len(cameras) == self.num_views
        return cameras


def get_rig(name: str) -> Rig:
    """Return a rig by its name. Raises BadInput with the closest name if there is none."""
    return choose("rig", name, RIGS)


def _at(eyes: Sequence[np.ndarray], fov: float) -> list[Camera]:
    return [camera_at(eye, fov) for eye in eyes]


def _lrm32(rng: np.random.Generator) -> list[Camera]:
    """Return 32 random views in the ranges of InstantMesh: distance 2 to 3.5, z -0.75 to 1.6."""
    eyes = []
    for _ in range(32):
        distance, height = rng.uniform(2.0, 3.5), rng.uniform(-0.75, 1.6)
        elevation = np.degrees(np.arcsin(height / distance))
        eyes.append(orbit_eye(rng.uniform(0, 360), elevation, distance))
    return _at(eyes, fov=50)


def _zero123plus(rng: np.random.Generator) -> list[Camera]:
    """Return a query view, then the six targets of Zero123++ v1.2 (dataset.zero123plus_cameras).

    The ranges of the query are those of InstantMesh; from the smallest distances the object is
    cropped.
    """
    azimuth, elevation = rng.uniform(0, 360), rng.uniform(-20, 45)
    query = orbit_eye(azimuth, elevation, rng.uniform(2.5, 5.0))
    return [camera_at(query, FIELD_OF_VIEW), *target_cameras(azimuth)]


def _orbit21(_: np.random.Generator) -> list[Camera]:
    """Return InstantMesh's 21 evaluation views: even azimuths, elevations 30, 0, -30 in turn."""
    eyes = [orbit_eye(i * 360 / 21, (30, 0, -30)[i % 3], 4.0) for i in range(21)]
    return _at(eyes, fov=30)


def _one2345(_: np.random.Generator) -> list[Camera]:
    """Return eight fixed views as in One-2-3-45: two rings of four, offset by 30 degrees.

    One-2-3-45 uses a radius of 1.2 around an object in [-0.5, 0.5]^3, which is 2.4 here, and a
    focal length of 280 for 256 pixels. Its elevations depend on the input image; here they are 30
    and 0 degrees.
    """
    rings = ((30, 0), (0, 30))
    eyes = [
        orbit_eye(first + 90 * i, elevation, 2.4) for elevation, first in rings for i in range(4)
    ]
    return _at(eyes, fov=2 * math.degrees(math.atan(128 / 280)))


def _fixed48(_: np.random.Generator) -> list[Camera]:
    """Return 48 fixed views for comparisons: four rings of twelve, elevations -30 to 60 degrees."""
    rings = ((-30, 0), (0, 15), (30, 0), (60, 15))
    eyes = [
        orbit_eye(first + 30 * i, elevation, 2.75) for elevation, first in rings for i in range(12)
    ]
    return _at(eyes, fov=50)


RIGS = {
    rig.name: rig
    for rig in (
        Rig(name="lrm32", version=1, normalise="cube", num_views=32, make_cameras=_lrm32),
        Rig(
            name=RIG_NAME,
            version=1,
            normalise="sphere",
            num_views=1 + NUM_TARGETS,
            make_cameras=_zero123plus,
        ),
        # InstantMesh's fine-tune used the cube by mistake, which shows objects too large.
        Rig(
            name=f"{RIG_NAME}-cube",
            version=1,
            normalise="cube",
            num_views=1 + NUM_TARGETS,
            make_cameras=_zero123plus,
            same_cameras_as=RIG_NAME,
        ),
        Rig(name="orbit21", version=1, normalise="cube", num_views=21, make_cameras=_orbit21),
        Rig(name="one2345", version=1, normalise="cube", num_views=8, make_cameras=_one2345),
        Rig(name="fixed48", version=1, normalise="cube", num_views=48, make_cameras=_fixed48),
    )
}
