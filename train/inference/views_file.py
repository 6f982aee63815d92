"""From how far away Zero123++ shows objects: kept beside its weights and beside the views it made.

A mesh made for another distance comes out in another size.
"""

import json
from pathlib import Path

from core.errors import BadInput
from train.inference.six_views import DISTANCE

__all__ = ["VIEWS_FILE", "check_distance", "read_distance", "write_distance"]

VIEWS_FILE = "views.json"


def write_distance(folder: Path, distance: float) -> None:
    """Beside what lies in the folder."""
    (folder / VIEWS_FILE).write_text(json.dumps({"distance": distance}) + "\n")


def read_distance(folder: Path) -> float:
    """What is noted there, else InstantMesh's. Raises BadInput for a file without a distance."""
    path = folder / VIEWS_FILE
    try:
        found = json.loads(path.read_text())["distance"]
    except (FileNotFoundError, NotADirectoryError):
        return DISTANCE
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); mend or remove it") from error
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise BadInput(f"{path}: {found!r} is no distance; mend or remove it")
    check_distance(found, str(path))
    return float(found)


def check_distance(distance: float, where: str) -> None:
    """Raise BadInput if the cameras would stand in the object, or see nothing of it."""
    if not 1 < distance < 100:
        raise BadInput(f"{where} {distance:g}: give more than 1 and less than 100")
