"""All model families by name: a new one is entered here.

A family's module imports torch, so it is imported when a model is opened, and not for its name.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.choices import choose
from core.errors import BadInput
from train.inference.family import Family, ModelOptions

if TYPE_CHECKING:
    from train.inference.reconstruction import Reconstructor

__all__ = ["FAMILIES", "check_options", "family_of_keys", "get_family", "open_model"]


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="nerf",
            num_views=6,
            has_colours=True,
            key="synthesizer.decoder.net.",
            open_path="train.inference.lrm:open_nerf",
            options=("resolution",),
        ),
        Family(
            name="mesh",
            num_views=6,
            has_colours=True,
            key="synthesizer.decoder.net_sdf.",
            open_path="train.inference.lrm:open_mesh",
        ),
        Family(
            name="pixel2mesh",
            num_views=1,
            has_colours=False,
            key="gcns.",
            open_path="train.inference.pixel2mesh:open_pixel2mesh",
            options=("template",),
        ),
    )
}


def get_family(name: str) -> Family:
    """Return a family by its name. Raises BadInput with the closest name if there is none."""
    return choose("model family", name, FAMILIES)


def family_of_keys(keys: Mapping[str, Any]) -> str | None:
    """Return the name of the family that a state dict is of; None if no family has such keys."""
    fitting = (name for name, one in FAMILIES.items() if any(one.key in key for key in keys))
    return next(fitting, None)


def check_options(family: Family, options: ModelOptions) -> None:
    """Raise BadInput for an option that models of the family do not have."""
    for option in ("resolution", "template"):
        if getattr(options, option) is not None and option not in family.options:
            names = " and ".join(n for n, one in FAMILIES.items() if option in one.options)
            raise BadInput(f"--use {family.name}: --{option} is for {names} only; leave it out")


_AS_STORED = ModelOptions()


def open_model(name: str, source: Path, options: ModelOptions = _AS_STORED) -> "Reconstructor":
    """Load a model of a family from a run folder, a checkpoint folder or a weight file.

    A run and a checkpoint store the model's sizes. For a weight file they are those of the preset
    overridden by the changes; without a preset, the first preset that fits is used. Raises BadInput
    if the weights cannot be read, do not fit, or are of another family, and for an option that the
    family does not have.
    """
    family = get_family(name)
    check_options(family, options)
    module, _, function = family.open_path.partition(":")
    model: Reconstructor = getattr(importlib.import_module(module), function)(
        family, source, options
    )
    return model
