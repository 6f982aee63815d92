"""The camera of a picture of unknown origin, which families that take one picture need.

The defaults are the middle of the rig lrm32, on whose views such models are trained: distances of
2 to 3.5, heights of -0.75 to 1.6, a field of view of 50 degrees. At that distance an object of the
cube [-1, 1]^3 fills about as much of the picture as a picture that was centred
(`train.inference.query`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import BadInput

if TYPE_CHECKING:
    # The command line imports this module for its help texts.
    from dataset.cameras import Camera

__all__ = ["DISTANCE", "ELEVATION", "FIELD_OF_VIEW", "PictureCamera", "check_distance"]

DISTANCE = 2.75
"""Default distance from the centre of the object, in world units."""
ELEVATION = 10.0
"""Default elevation, in degrees above the horizon."""
FIELD_OF_VIEW = 50.0
"""Default field of view of the square picture, in degrees."""


@dataclass(frozen=True, kw_only=True)
class PictureCamera:
    """A camera that looks at the origin, where the object is."""

    distance: float = DISTANCE
    elevation: float = ELEVATION
    fov: float = FIELD_OF_VIEW

    def check(self) -> None:
        """Raise BadInput for a value that no camera has."""
        check_distance(self.distance, "--distance")
        if not -90 <= self.elevation <= 90:
            raise BadInput(f"--elevation {self.elevation:g}: give degrees from -90 to 90")
        if not 1 <= self.fov <= 150:
            raise BadInput(f"--fov {self.fov:g}: give degrees from 1 to 150")

    def camera(self) -> "Camera":
        """Return the camera at azimuth 0, from which the picture shows the object."""
        from dataset.cameras import camera_at, orbit_eye

        return camera_at(orbit_eye(0.0, self.elevation, self.distance), self.fov)


def check_distance(distance: float, where: str) -> None:
    """Raise BadInput unless a camera distance in world units is between 1 and 100.

    Nearer cameras would be inside the object, and farther ones see nothing of it.
    """
    if not 1 < distance < 100:
        raise BadInput(
            f"{where} {distance:g}: a camera distance must be more than 1 and less than 100"
        )
