"""All recipes by name: a new one is entered here.

A recipe's module imports torch, so it is imported when the recipe is used, and not for its name.
"""

import functools
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from core.options import Parser

if TYPE_CHECKING:
    from train.loop.engine import Recipe
    from train.settings.train_config import TrainConfig

__all__ = ["RECIPES", "RecipeKind", "add_recipe_parsers", "make_recipe", "recipe_of"]

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

    @property
    def config(self) -> "type[TrainConfig]":
        """Its configuration; imports the module."""
        return _load(self.config_path)

    def make(self, config: Any) -> Any:
        """Return the recipe of a configuration; imports its module."""
        return _load(self.recipe_path)(config)


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
    ),
    "mesh": RecipeKind(
        purpose="LRM, stage 2: six views to a mesh (FlexiCubes).",
        common=(*_COMMON, "--data.frame-size"),
        config_path="train.recipes.mesh:MeshTrainConfig",
        recipe_path="train.recipes.mesh:MeshRecipe",
    ),
    "zero123plus": RecipeKind(
        purpose="Zero123++ on white backgrounds: one view to six.",
        common=(*_COMMON, "--ema", "--latent-cache"),
        config_path="train.recipes.zero123plus_config:Zero123PlusTrainConfig",
        recipe_path="train.recipes.zero123plus:Zero123PlusRecipe",
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
