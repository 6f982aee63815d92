"""Weights of other projects for a model: every key is loaded, dropped by name, or an error.

Each family of models states its kinds of files (`WeightsFamily`); what is common is here.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import BadInput
from train.models.weight_files.state_dicts import CONTAINERS, join_keys
from train.models.weight_files.writing import Layouts

__all__ = [
    "Converted",
    "LoadReport",
    "State",
    "WeightsFamily",
    "check_converted",
    "load_converted",
]

_log = logging.getLogger(__name__)

State = dict[str, Tensor]

_NOTHING = r"(?!)"
"""A pattern that matches no key."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Result of loading a file: which keys were loaded, renamed, dropped and left new."""

    source: str
    loaded: int
    """Number of the model's tensors that come from the file."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Key in the file -> key in the model; parentheses list several keys made from one."""
    dropped: tuple[str, ...] = ()
    """Keys of the file that the model does not use."""
    new: tuple[str, ...] = ()
    """Keys of the model that keep their initial values."""

    def log(self) -> None:
        """Log the counts, and every key that was renamed, dropped or left new."""
        _log.info(
            "%s: %d tensors loaded, %d renamed, %d dropped, %d new",
            *(self.source, self.loaded, len(self.renamed), len(self.dropped), len(self.new)),
        )
        for before, after in self.renamed.items():
            _log.info("%s: renamed %s -> %s", self.source, before, after)
        for what, keys in (("dropped", self.dropped), ("new", self.new)):
            for key in keys:
                _log.info("%s: %s %s", self.source, what, key)


@dataclass
class Converted:
    """A file's tensors under the model's keys; conversion steps modify it."""

    state: State
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    may_be_new: str = _NOTHING
    """Pattern of the model's keys that the file need not have."""


@dataclass(frozen=True, kw_only=True)
class WeightsFamily:
    """The initial weights that the models of one family can start from."""

    recipes: tuple[str, ...]
    """Recipes whose runs hold such a model."""
    kinds: tuple[str, ...]
    """Kinds of published files."""
    exported: str
    """Kind of the tensors of runs, and of the files that `lrm weights` writes."""
    layouts: Layouts
    """Layouts of the PyTorch files that `lrm weights` writes, beside .safetensors."""
    convert: Callable[..., Converted]
    """Returns the tensors for a model: (model, state, kind, source, **options). Raises BadInput."""
    changed_settings: Callable[[str, Mapping[str, Any], Any], str]
    """Returns how the model of a preset with changes differs from a configuration, where the
    shapes of tensors do not show it; empty if it does not."""
    containers: Sequence[str] = CONTAINERS
    """Keys under which a file may hold its state dict."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Suffixes of the files that `lrm weights` writes."""
        return (".safetensors", *self.layouts)


def load_converted(model: nn.Module, converted: Converted, *, source: str) -> LoadReport:
    """Load converted tensors into a model, and log the result.

    Raises BadInput that lists the keys, and leaves the model unchanged, if they do not fit or have
    values that are not finite.
    """
    check_converted(model, converted, source=source)
    state = converted.state
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise BadInput(
            f"{source}: values are not finite in {join_keys(broken)}; give other weights"
        )
    expected = model.state_dict()
    model.load_state_dict(expected | state, strict=True)
    report = LoadReport(
        source=source,
        loaded=len(state),
        renamed=converted.renamed,
        dropped=tuple(converted.dropped),
        new=tuple(key for key in expected if key not in state),
    )
    report.log()
    return report


def check_converted(model: nn.Module, converted: Converted, *, source: str) -> None:
    """Raise BadInput if a key is on one side only, or has different shapes or types.

    The model may be on the meta device.
    """
    expected, state = model.state_dict(), converted.state
    missing = [
        key for key in expected if key not in state and not re.match(converted.may_be_new, key)
    ]
    unknown = [key for key in state if key not in expected]
    problems = [
        f"{what} {join_keys(keys)}"
        for what, keys in (("the model needs", missing), ("the model does not have", unknown))
        if keys
    ]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    if shapes:
        problems.append(f"shapes differ: {join_keys(shapes)}")
    types = [
        f"{key} {state[key].dtype} instead of {expected[key].dtype}"
        for key in expected
        if key in state and state[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if types:
        problems.append(f"types differ: {join_keys(types)}")
    if problems:
        raise BadInput(f"{source}: does not fit the model: {'; '.join(problems)}")
