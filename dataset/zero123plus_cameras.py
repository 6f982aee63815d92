"""The cameras of Zero123++ v1.2: six targets around an object, relative to a query view.

The rig `zero123plus`, the fine-tune and the reconstruction of a mesh all use these constants.
"""

import math

from dataset.cameras import Camera, camera_at, orbit_eye

__all__ = [
    "FIELD_OF_VIEW",
    "NUM_TARGETS",
    "RIG_NAME",
    "TARGET_DISTANCE",
    "target_cameras",
]

RIG_NAME = "zero123plus"
"""Name of the rig whose views are a query and its targets; a variant is RIG_NAME-VARIANT."""
NUM_TARGETS = 6
FIELD_OF_VIEW = 30.0
"""Field of view of all cameras, in degrees."""
TARGET_DISTANCE = 1 / math.tan(math.radians(FIELD_OF_VIEW / 2))
"""Distance of the targets from the origin, at which the field of view spans the diameter of the
unit sphere."""
_ELEVATIONS = (20.0, -10.0)


def target_cameras(query_azimuth: float, distance: float = TARGET_DISTANCE) -> list[Camera]:
    """Return the six target cameras: target i has azimuth 30 + 60 i relative to the query.

    Elevations alternate between 20 and -10 and are absolute. All angles are in degrees.
    """
    eyes = (
        orbit_eye(query_azimuth + 30 + 60 * i, _ELEVATIONS[i % 2], distance)
        for i in range(NUM_TARGETS)
    )
    return [camera_at(eye, FIELD_OF_VIEW) for eye in eyes]
