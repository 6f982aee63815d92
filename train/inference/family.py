"""The description of a model family, and what a command states about one of its models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Family", "ModelOptions"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a command states about a model, besides the place of its weights."""

    preset: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the model that differ from the preset."""
    resolution: int | None = None
    template: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: what it takes and predicts, and how its models are opened."""

    name: str
    """The name of its recipe."""
    num_views: int
    """Views that it takes: six from the directions of Zero123++, or one picture."""
    has_colours: bool
    key: str
    """Part of a key of its state dicts that no other family has."""
    open_path: str
    """Function that opens a model, as `package.module:function`. It is called with the family, the
    path of a run, a checkpoint or a weight file, and a `ModelOptions`."""
    options: tuple[str, ...] = ()
    """Fields of `ModelOptions` that it has in addition to preset and changes."""
