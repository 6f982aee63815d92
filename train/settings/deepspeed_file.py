"""A JSON file of DeepSpeed's own settings."""

import json
from pathlib import Path
from typing import Any

from core.errors import BadInput

__all__ = ["read_deepspeed"]


def read_deepspeed(path: str) -> dict[str, Any]:
    """The keys in the file. Raises BadInput."""
    try:
        found = json.loads(Path(path).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"--deepspeed {path}: is no JSON file that can be read: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"--deepspeed {path}: holds no object of settings")
    return found
