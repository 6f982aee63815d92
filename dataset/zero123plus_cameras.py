"""The cameras of Zero123++ v1.2: six targets around an object, relative to a query view.

The rig `zero123plus` renders them, the fine-tune trains on them, and a mesh is made of them: all
take the numbers from here.
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
"""The rig whose views are a query and its targets; variants are named RIG_NAME-VARIANT."""
NUM_TARGETS = 6
FIELD_OF_VIEW = 30.0
"""Degrees, of all cameras."""
TARGET_DISTANCE = 1 / math.tan(math.radians(FIELD_OF_VIEW / 2))
"""Of the targets from the origin: the field of view spans the unit sphere's diameter."""
_ELEVATIONS = (20.0, -10.0)


def target_cameras(query_azimuth: float, distance: float = TARGET_DISTANCE) -> list[Camera]:
    """Return the six targets: target i has azimuth 30 + 60 i relative to the query's.

    Elevations are 20 and -10 in turn, and absolute; all angles are in degrees.
    """
    eyes = (
        orbit_eye(query_azimuth + 30 + 60 * i, _ELEVATIONS[i % 2], distance)
        for i in range(NUM_TARGETS)
    )
    return [camera_at(eye, FIELD_OF_VIEW) for eye in eyes]
