"""Reading of a JSON file with DeepSpeed's own settings."""

import json
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.paths.regular_file import open_regular

__all__ = ["read_deepspeed"]


def read_deepspeed(path: str) -> dict[str, Any]:
    """Return the settings in a JSON file. Raises BadInput."""
    try:
        with open_regular(Path(path).expanduser()) as file:
            settings = json.load(file)
    except (OSError, ValueError) as error:
        raise BadInput(f"--deepspeed {path}: cannot be read as a JSON file: {error}") from None
    if not isinstance(settings, dict):
        raise BadInput(
            f"--deepspeed {path}: must contain a JSON object of settings, not a "
            f"{type(settings).__name__}"
        )
    return settings
