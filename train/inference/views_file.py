"""The file that stores the camera distance of Zero123++'s views.

It lies beside the weights and beside the generated views. A mesh reconstructed with another
distance has the wrong size.
"""

import json
from pathlib import Path

from core.errors import BadInput
from core.paths.regular_file import read_regular
from train.inference.picture_camera import check_distance
from train.inference.six_views import DISTANCE

__all__ = ["VIEWS_FILE", "read_distance", "write_distance"]

VIEWS_FILE = "views.json"


def write_distance(folder: Path, distance: float) -> None:
    """Write the camera distance, in world units, into a folder of weights or views."""
    (folder / VIEWS_FILE).write_text(json.dumps({"distance": distance}) + "\n")


def read_distance(folder: Path) -> float:
    """Return the camera distance stored in a folder, or InstantMesh's if none is stored.

    Raises BadInput if the file cannot be read or its distance is not a usable number.
    """
    path = folder / VIEWS_FILE
    try:
        distance = json.loads(read_regular(path))["distance"]
    except (FileNotFoundError, NotADirectoryError):
        return DISTANCE
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); repair or remove it") from error
    if isinstance(distance, bool) or not isinstance(distance, int | float):
        raise BadInput(f"{path}: {distance!r} is not a valid distance; repair or remove it")
    check_distance(distance, str(path))
    return float(distance)
