"""Reading of a JSON file with DeepSpeed's own settings."""

import json
from pathlib import Path
from typing import Any

from core.errors import BadInput

__all__ = ["read_deepspeed"]


def read_deepspeed(path: str) -> dict[str, Any]:
    """Return the settings in a JSON file. Raises BadInput."""
    try:
        settings = json.loads(Path(path).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"--deepspeed {path}: cannot be read as a JSON file: {error}") from None
    if not isinstance(settings, dict):
        raise BadInput(
            f"--deepspeed {path}: must contain a JSON object of settings, not a "
            f"{type(settings).__name__}"
        )
    return settings
