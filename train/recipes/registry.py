"""All recipes by name: a new one is entered here.

A recipe's module imports torch, so it is imported when the recipe is used, and not for its name.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.loop.engine import Recipe
    from train.settings.train_config import TrainConfig

__all__ = ["RECIPES", "RecipeKind", "make_recipe"]

_COMMON = (
    *("--root", "--snapshot", "--out", "--config", "--preset", "--init"),
    *("--steps", "--batch-size", "--micro-batch", "--optimizer.learning-rate"),
    *("--precision", "--num-workers", "--address", "--loader-workers", "--zero-stage"),
    "--checkpoint-every",
)
"""Options that `--help` shows for every recipe."""


@dataclass(frozen=True, kw_only=True)
class RecipeKind:
    """A recipe by name: what it trains, its configuration, and how to make it from one."""

    purpose: str
    common: Sequence[str]
    """The options that `--help` shows."""
    load_config: "Callable[[], type[TrainConfig]]"
    make: Callable[[Any], Any]
    """Make the recipe of a configuration: a `Recipe`, which `lrm train --dry-run` can measure."""

    @property
    def config(self) -> "type[TrainConfig]":
        """Its configuration; imports the recipe's module."""
        return self.load_config()


def _nerf_config() -> "type[TrainConfig]":
    from train.recipes.nerf import NerfTrainConfig

    return NerfTrainConfig


def _nerf(config: Any) -> "Recipe":
    from train.recipes.nerf import NerfRecipe

    return NerfRecipe(config)


def _mesh_config() -> "type[TrainConfig]":
    from train.recipes.mesh import MeshTrainConfig

    return MeshTrainConfig


def _mesh(config: Any) -> "Recipe":
    from train.recipes.mesh import MeshRecipe

    return MeshRecipe(config)


def _quiet_transformers() -> None:
    """Silence hints of transformers at packages that training does not need; users may override."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _zero123plus_config() -> "type[TrainConfig]":
    _quiet_transformers()
    from train.recipes.zero123plus_config import Zero123PlusTrainConfig

    return Zero123PlusTrainConfig


def _zero123plus(config: Any) -> "Recipe":
    _quiet_transformers()
    # Importing diffusers takes seconds; only this module needs it.
    from train.recipes.zero123plus import Zero123PlusRecipe

    return Zero123PlusRecipe(config)


RECIPES: Mapping[str, RecipeKind] = {
    "nerf": RecipeKind(
        purpose="LRM, stage 1: six views to a triplane, supervised by volume rendering.",
        common=(*_COMMON, "--data.patch-size"),
        load_config=_nerf_config,
        make=_nerf,
    ),
    "mesh": RecipeKind(
        purpose="LRM, stage 2: six views to a mesh (FlexiCubes), started from stage 1.",
        common=(*_COMMON, "--data.frame-size"),
        load_config=_mesh_config,
        make=_mesh,
    ),
    "zero123plus": RecipeKind(
        purpose="Zero123++ on white backgrounds: one view to six.",
        common=(*_COMMON, "--ema", "--latent-cache"),
        load_config=_zero123plus_config,
        make=_zero123plus,
    ),
}


def make_recipe(name: str, values: Mapping[str, Any]) -> "Recipe":
    """Return a recipe from the plain values of its configuration. Raises BadInput."""
    kind = RECIPES[name]
    return kind.make(kind.config.load(values))
