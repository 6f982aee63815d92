"""The interface of a logger, and what it starts with."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from pydantic import TypeAdapter

from core.atomic import atomic_write
from core.paths.regular_file import read_regular

__all__ = ["IDS_FILE", "LoggedStart", "Logger"]

_log = logging.getLogger(__name__)

IDS_FILE = "loggers.json"
"""File in the run's folder with the id of the run in each program that numbers runs."""


class Logger(Protocol):
    """A program that shows the curves and pictures of a run; rank 0 calls it in one thread.

    A method may raise any error, after which the logger is not called again.
    """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a step by name, such as `train/loss`."""

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Log a picture of a step."""

    def close(self, *, failed: bool) -> None:
        """Write what is buffered; `failed`: the start ended with an error or a stop request."""


@dataclass(frozen=True, kw_only=True)
class LoggedStart:
    """A start of a run, as a logger sees it."""

    out: Path
    first_step: int
    """Number of steps that were done before."""
    logged_step: int
    """Last step that an earlier start has logged; later than `first_step` after a kill."""
    recipe: str
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the run for people."""
        return self.out.name

    def find_id(self, program: str) -> str | None:
        """Return the id that an earlier start has stored for a program."""
        return self._ids().get(program)

    def store_id(self, program: str, number: str) -> None:
        """Store the id of this run in a program, so that the next start continues there."""
        ids = self._ids() | {program: number}
        atomic_write(self.out / IDS_FILE, json.dumps(ids))

    def _ids(self) -> dict[str, str]:
        try:
            content = read_regular(self.out / IDS_FILE)
            return TypeAdapter(dict[str, str]).validate_json(content, strict=True)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            path = self.out / IDS_FILE
            _log.warning("warning: %s: damaged: the loggers do not continue their runs", path)
            return {}
