"""Models of any family as they are stored: run folders, checkpoint folders and weight files."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from core.errors import BadInput
from train.checkpoints.checkpoint import find_checkpoint
from train.checkpoints.initial_weights import model_settings, model_tensors
from train.inference.families import FAMILIES, family_of_keys
from train.inference.family import Family, ModelOptions
from train.models.weight_files.conversion import (
    Converted,
    WeightsFamily,
    check_converted,
    load_converted,
)
from train.models.weight_files.state_dicts import read_state

__all__ = ["StoredModel", "build_model", "read_model"]

Sizes = TypeVar("Sizes")
ModelType = TypeVar("ModelType", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """The tensors of a model, and what is known about its sizes."""

    state: dict[str, Tensor]
    name: str
    """Name of the source for messages: a path, or the URI of a checkpoint."""
    preset: str | None
    """None for a weight file whose preset is not stated."""
    changes: Mapping[str, Any]
    settings: Mapping[str, Any]
    """Settings of the run; empty for a weight file."""


def read_model(
    family: Family, source: Path, options: ModelOptions, weights: WeightsFamily
) -> StoredModel:
    """Read a run, a checkpoint or a weight file; `weights` has the suffixes of its files.

    Raises BadInput if it cannot be read or is of another family.
    """
    if source.is_dir():
        return _read_run(family, source, options)
    if source.suffix not in weights.endings:
        raise BadInput(
            f"{source}: no such checkpoint; give a run folder, a checkpoint folder or a "
            f"{' or '.join(weights.endings)} file"
        )
    state = read_state(source, weights.containers)
    _check_family(family_of_keys(state), family, str(source), source)
    return StoredModel(
        state=state,
        name=str(source),
        preset=options.preset,
        changes=options.changes,
        settings={},
    )


def build_model(
    stored: StoredModel,
    presets: Iterable[str],
    weights: WeightsFamily,
    *,
    sizes: Callable[[str, Mapping[str, Any]], Sizes],
    new: Callable[[Sizes], ModelType],
) -> tuple[ModelType, Sizes]:
    """Return a model in eval mode with the stored weights, and its configuration.

    `sizes` makes the configuration of a preset and changes, `new` the model of a configuration.
    Raises BadInput if the weights do not fit.
    """

    def converted(model: ModelType) -> Converted:
        return weights.convert(model, stored.state, weights.exported, stored.name)

    def checked(preset: str) -> Sizes:
        configuration = sizes(preset, stored.changes)
        # Without memory: a file may state sizes that no machine has room for.
        with torch.device("meta"):
            model = new(configuration)
        check_converted(model, converted(model), source=stored.name)
        return configuration

    if stored.preset is None:
        configuration = _first_fitting(stored, list(presets), checked)
    else:
        configuration = checked(stored.preset)
    model = new(configuration)
    load_converted(model, converted(model), source=stored.name)
    return model.eval(), configuration


def _first_fitting(
    stored: StoredModel, presets: list[str], checked: Callable[[str], Sizes]
) -> Sizes:
    """Return the configuration of the first preset that fits. Raises BadInput if none does."""
    causes = set()
    for preset in presets:
        try:
            return checked(preset)
        except BadInput as error:
            causes.add(str(error))
    if len(causes) == 1:  # not the sizes: a setting that no preset has, or another convention
        raise BadInput(causes.pop())
    raise BadInput(
        f"{stored.name}: fits none of the presets {', '.join(presets)}; give the --preset of the "
        "training run, and --model with the settings that differ from it"
    )


def _read_run(family: Family, source: Path, options: ModelOptions) -> StoredModel:
    if options.preset is not None or options.changes:
        raise BadInput(
            f"{source}: the run stores the model's sizes; leave --preset and --model out"
        )
    checkpoint = find_checkpoint(source)
    # Runs of older versions did not record their recipe.
    _check_family(checkpoint.manifest.recipe or None, family, checkpoint.uri, source)
    state = model_tensors(checkpoint, checkpoint.weights())
    _check_family(family_of_keys(state), family, checkpoint.uri, source)
    preset, changes = model_settings(checkpoint)
    return StoredModel(
        state=state,
        name=checkpoint.uri,
        preset=preset,
        changes=changes,
        settings=checkpoint.manifest.config,
    )


def _check_family(found: str | None, family: Family, name: str, source: Path) -> None:
    """Raise BadInput if a model is of another family, or of a recipe that trains no shapes."""
    if found in (None, family.name):
        return
    if found in FAMILIES:
        raise BadInput(f"{name}: is a model of {found}: give it as --use {found}:{source}")
    raise BadInput(
        f"{name}: is a run of {found}, which predicts no shapes; give a run of {family.name}"
    )
