"""From how far away Zero123++ shows objects: kept beside its weights and beside the views it made.

A mesh made for another distance comes out in another size.
"""

import json
import math
from pathlib import Path

from dataset.errors import BadInput

__all__ = ["RIG_DISTANCE", "VIEWS_FILE", "read_distance", "write_distance"]

VIEWS_FILE = "views.json"
RIG_DISTANCE = 1 / math.tan(math.radians(15))
"""Of the targets of the rig zero123plus: 30 degrees span the unit sphere's diameter."""


def write_distance(folder: Path, distance: float) -> None:
    """Beside what lies in the folder."""
    (folder / VIEWS_FILE).write_text(json.dumps({"distance": distance}) + "\n")


def read_distance(folder: Path) -> float | None:
    """None where nothing is noted. Raises BadInput for a file that holds no distance."""
    path = folder / VIEWS_FILE
    try:
        found = json.loads(path.read_text())["distance"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); give --distance") from error
    if isinstance(found, bool) or not isinstance(found, int | float) or not 1 < found < 100:
        raise BadInput(f"{path}: {found!r} is no distance above 1 and below 100; give --distance")
    return float(found)
