"""All recipes by name: a new one is entered here.

A recipe's module imports torch, so it is imported when the recipe is used, and not for its name.
"""

import functools
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.choices import choose
from core.errors import BadInput
from core.options import Parser

if TYPE_CHECKING:
    from torch import Tensor

    from train.checkpoints.checkpoint import Checkpoint
    from train.loop.engine import Recipe
    from train.settings.train_config import TrainConfig

__all__ = [
    "RECIPES",
    "RecipeKind",
    "add_recipe_parsers",
    "exporting_kind",
    "make_recipe",
    "recipe_of",
]

_COMMON = (
    *("--root", "--snapshot", "--out", "--config", "--preset", "--init"),
    *("--steps", "--batch-size", "--micro-batch", "--optimizer.learning-rate"),
    *("--precision", "--num-workers", "--address", "--loader-workers", "--zero-stage"),
    "--checkpoint-every",
)
"""Options that `--help` shows for every recipe."""


@dataclass(frozen=True, kw_only=True)
class RecipeKind:
    """A recipe by name: what it trains, and where its configuration and its class are defined."""

    purpose: str
    common: Sequence[str]
    """The options that `--help` shows."""
    config_path: str
    """Module and name of its configuration, as `package.module:Name`."""
    recipe_path: str
    """Module and name of its class, made from a configuration: a `Recipe`, which
    `lrm train --dry-run` can measure."""
    export_path: str
    """Function that writes a run's model for `lrm weights`, as `package.module:function`. It is
    called with a checkpoint, its tensors and the path to write, and with `ema=True` to write the
    moving average of a recipe that has the setting `ema`. It returns the number of tensors."""

    @property
    def config(self) -> "type[TrainConfig]":
        """Its configuration; imports the module."""
        return _load(self.config_path)

    def make(self, config: Any) -> Any:
        """Return the recipe of a configuration; imports its module."""
        return _load(self.recipe_path)(config)

    def export(
        self, checkpoint: "Checkpoint", tensors: "dict[str, Tensor]", out: Path, *, ema: bool
    ) -> int:
        """Write a run's model; return the number of tensors. Raises BadInput."""
        if ema and "ema" not in self.config.model_fields:
            raise BadInput(
                f"{checkpoint.uri}: --ema is only for recipes that keep a moving average of the "
                "weights, such as zero123plus; leave it out"
            )
        options = {"ema": True} if ema else {}
        written: int = _load(self.export_path)(checkpoint, tensors, out, **options)
        return written


def _load(path: str) -> Any:
    # Without this, transformers names packages on import that training does not need.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


RECIPES: Mapping[str, RecipeKind] = {
    "nerf": RecipeKind(
        purpose="LRM, stage 1: six views to triplanes, trained as a NeRF.",
        common=(*_COMMON, "--data.patch-size"),
        config_path="train.recipes.nerf:NerfTrainConfig",
        recipe_path="train.recipes.nerf:NerfRecipe",
        export_path="train.recipes.model_export:write_lrm",
    ),
    "mesh": RecipeKind(
        purpose="LRM, stage 2: six views to a mesh (FlexiCubes).",
        common=(*_COMMON, "--data.frame-size"),
        config_path="train.recipes.mesh:MeshTrainConfig",
        recipe_path="train.recipes.mesh:MeshRecipe",
        export_path="train.recipes.model_export:write_lrm",
    ),
    "zero123plus": RecipeKind(
        purpose="Zero123++ on white backgrounds: one view to six.",
        common=(*_COMMON, "--ema", "--latent-cache"),
        config_path="train.recipes.zero123plus_config:Zero123PlusTrainConfig",
        recipe_path="train.recipes.zero123plus:Zero123PlusRecipe",
        export_path="train.recipes.zero123plus_export:write_pipeline",
    ),
    "pixel2mesh": RecipeKind(
        purpose="Pixel2Mesh: one view to a mesh, by deforming an ellipsoid.",
        common=(*_COMMON, "--template", "--data.num-points", "--loss.preset"),
        config_path="train.recipes.pixel2mesh:Pixel2MeshTrainConfig",
        recipe_path="train.recipes.pixel2mesh:Pixel2MeshRecipe",
        export_path="train.recipes.model_export:write_pixel2mesh",
    ),
}


def add_recipe_parsers(
    parser: Parser, populate: Callable[[str, Parser], None], *, required: bool, example: str = ""
) -> None:
    """Add a subcommand for each recipe; `populate(name, parser)` adds its options when it is used.

    `example` is the example line of the help, in which RECIPE stands for the name.
    """
    parser.set_command_groups({"recipes": list(RECIPES)})
    subparsers = parser.add_subparsers(
        dest="recipe", metavar="RECIPE", required=required, parser_class=Parser
    )
    for name, kind in RECIPES.items():
        subparsers.add_parser(
            name,
            help=kind.purpose,
            description=kind.purpose,
            epilog=f"example:\n  {example.replace('RECIPE', name)}" if example else None,
            populate=functools.partial(populate, name),
        )


def exporting_kind(checkpoint: "Checkpoint") -> RecipeKind:
    """Return the recipe whose function writes the model of a checkpoint. Raises BadInput.

    Checkpoints of older versions do not name their recipe. Both stages of the LRM have the same
    settings in part, but also the same function.
    """
    name, values = checkpoint.manifest.recipe, checkpoint.manifest.config
    if name:
        return choose("recipe", name, RECIPES)
    fitting = [kind for kind in RECIPES.values() if _accepts(kind.config, values)]
    if len({kind.export_path for kind in fitting}) != 1:
        raise BadInput(
            f"{checkpoint.uri}: was written by an older version and does not name its recipe; "
            "resume the run for one step to write a new checkpoint"
        )
    return fitting[0]


def recipe_of(values: Mapping[str, Any]) -> str | None:
    """Return the recipe that a stored configuration is of, by its keys; None if that is uncertain.

    For runs of versions that did not record the name.
    """
    fitting = [name for name, kind in RECIPES.items() if _accepts(kind.config, values)]
    return fitting[0] if len(fitting) == 1 else None


def _accepts(config: "type[TrainConfig]", values: Mapping[str, Any]) -> bool:
    try:
        config.load(values)
    except BadInput:
        return False
    return True


def make_recipe(name: str, values: Mapping[str, Any]) -> "Recipe":
    """Return a recipe from the plain values of its configuration. Raises BadInput."""
    kind = RECIPES[name]
    return kind.make(kind.config.load(values))
