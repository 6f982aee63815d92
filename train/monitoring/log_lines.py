"""The values of a line in each log of a run, and the check of a line that is read back."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from core.config import Fraction, NonNegativeInt, PositiveInt

__all__ = ["METRICS", "REPLACED", "SKIPPED", "VALIDATION", "parse_line"]

METRICS = "metrics.jsonl"
VALIDATION = "validation.jsonl"
SKIPPED = "skipped.jsonl"
REPLACED = "replaced.jsonl"

_Number = Annotated[int, Field(ge=0, lt=2**63)]
_MAX_SECONDS = 30 * 86400
_MAX_TIME = 253_402_300_799
"""Seconds from 1970 to the end of the year 9999."""


class _Line(BaseModel):
    """A line of any log. Unknown values may have any type, because nothing reads them."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    step: PositiveInt


class _StepLine(_Line):
    samples: _Number
    loss: float | None
    """None if it was not finite."""
    lr: float
    batch: str
    seconds: Annotated[float, Field(ge=0, le=_MAX_SECONDS)]
    time: Annotated[float, Field(ge=0, le=_MAX_TIME)]
    samples_per_second: float
    goodput: Fraction
    skipped: str = ""
    skipped_so_far: NonNegativeInt = 0
    replaced: NonNegativeInt = 0
    replaced_so_far: NonNegativeInt = 0


class _ValidationLine(_Line):
    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, float | None] = Field(init=False)
    """The metrics by name."""


class _SkippedLine(_Line):
    problem: str
    samples: list[str]


class _ReplacedLine(_Line):
    position: _Number
    asset_id: str
    shard: str
    cause: str
    replaced_by: str


_KINDS: dict[str, type[_Line]] = {
    METRICS: _StepLine,
    VALIDATION: _ValidationLine,
    SKIPPED: _SkippedLine,
    REPLACED: _ReplacedLine,
}


def parse_line(name: str, line: bytes) -> dict[str, Any] | None:
    """Return the values of a line of the log with this name; None if it is no line of that log.

    The values are those that were written, with unknown ones, so that they can be written again.
    """
    try:
        row: dict[str, Any] = json.loads(line)
        _KINDS[name].model_validate(row)
        json.dumps(row, allow_nan=False)
    except (ValueError, RecursionError, OverflowError):
        return None
    return row
