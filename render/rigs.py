"""Camera rigs by name. An object's cameras depend on the rig and the object alone.

A new rig is a function from a generator to cameras and a line in `RIGS`.
"""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataset.cameras import Camera, intrinsics_from_fov, look_at, orbit_eye
from dataset.errors import BadInput

__all__ = ["RIGS", "Rig", "get_rig"]

Place = Callable[[np.random.Generator], list[Camera]]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Where the cameras stand, and how the object is scaled for them."""

    name: str
    version: int
    """Raise it when the cameras change."""
    normalise: Literal["cube", "sphere"]
    place: Place

    def cameras(self, asset_id: str) -> list[Camera]:
        """This object's cameras: the same on every machine and every call."""
        seed = hashlib.sha256(f"{self.name}/{self.version}/{asset_id}".encode()).digest()
        return self.place(np.random.default_rng(int.from_bytes(seed[:16], "big")))


def get_rig(name: str) -> Rig:
    """The rig of that name. Raises BadInput with the closest name if there is none."""
    try:
        return RIGS[name]
    except KeyError:
        close = difflib.get_close_matches(name, RIGS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(RIGS)}"
        raise BadInput(f"rig {name!r} does not exist; {hint}") from None


def _at(eyes: Sequence[np.ndarray], fov: float) -> list[Camera]:
    return [
        Camera(camera_to_world=look_at(eye), intrinsics=intrinsics_from_fov(fov)) for eye in eyes
    ]


def _lrm32(rng: np.random.Generator) -> list[Camera]:
    """32 random views as InstantMesh's authors state them: distance 2 to 3.5, z -0.75 to 1.6."""
    eyes = []
    for _ in range(32):
        distance, height = rng.uniform(2.0, 3.5), rng.uniform(-0.75, 1.6)
        elevation = np.degrees(np.arcsin(height / distance))
        eyes.append(orbit_eye(rng.uniform(0, 360), elevation, distance))
    return _at(eyes, fov=50)


def _orbit21(rng: np.random.Generator) -> list[Camera]:
    """The paper's evaluation: 21 views, even azimuths, elevations 30, 0 and -30 in turn."""
    eyes = [orbit_eye(i * 360 / 21, (30, 0, -30)[i % 3], 4.0) for i in range(21)]
    return _at(eyes, fov=30)


RIGS = {
    rig.name: rig
    for rig in (
        Rig(name="lrm32", version=1, normalise="cube", place=_lrm32),
        Rig(name="orbit21", version=1, normalise="cube", place=_orbit21),
    )
}
