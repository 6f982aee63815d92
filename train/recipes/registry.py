"""Registry of all recipes by name: add a new recipe here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from train.loop.engine import Recipe
from train.recipes.mesh import MeshRecipe, MeshTrainConfig
from train.recipes.nerf import NerfRecipe, NerfTrainConfig
from train.recipes.zero123plus_config import Zero123PlusTrainConfig
from train.settings.train_config import TrainConfig

__all__ = ["RECIPES", "RecipeKind", "make_recipe"]


@dataclass(frozen=True, kw_only=True)
class RecipeKind:
    """A kind of recipe: its purpose for `--help`, configuration class and constructor."""

    purpose: str
    config: type[TrainConfig]
    make: Any
    """Function from a configuration to a recipe."""


def _zero123plus(config: Zero123PlusTrainConfig) -> Recipe:
    # Imported here, because diffusers takes seconds to import and no other recipe needs it.
    from train.recipes.zero123plus import Zero123PlusRecipe

    return Zero123PlusRecipe(config)


RECIPES: Mapping[str, RecipeKind] = {
    "nerf": RecipeKind(
        purpose="LRM stage 1: triplane NeRF", config=NerfTrainConfig, make=NerfRecipe
    ),
    "mesh": RecipeKind(
        purpose="LRM stage 2: mesh (FlexiCubes)", config=MeshTrainConfig, make=MeshRecipe
    ),
    "zero123plus": RecipeKind(
        purpose="Zero123++ on white backgrounds: one view to six",
        config=Zero123PlusTrainConfig,
        make=_zero123plus,
    ),
}


def make_recipe(name: str, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe from the plain values of its configuration. Raises BadInput."""
    kind = RECIPES[name]
    return kind.make(kind.config.load(values))
