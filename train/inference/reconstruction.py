"""What every model family provides: a reconstructor, its reconstructions, and their shapes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from train.inference.family import Family

__all__ = ["Reconstruction", "Reconstructor", "Shape"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """The mesh of one object in the world axes of its cameras (z up), and its colours."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    """Counter-clockwise seen from outside."""
    colour: Callable[[Float[np.ndarray, "k 3"]], Float[np.ndarray, "k 3"]] | None = None
    """Returns the sRGB colour in [0, 1] of world points; None for a family without colours."""


class Reconstruction(ABC):
    """A model's reconstruction of one object."""

    scale: float = 1.0
    """Length in the model's units of one world unit."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """The mesh. Raises BadInput if the model predicts no surface."""

    def render(
        self,
        camera_to_world: Float[Tensor, "1 v 4 4"],
        intrinsics: Float[Tensor, "1 v 4"],
        size: tuple[int, int],
    ) -> tuple[Float[Tensor, "v 3 h w"], Float[Tensor, "v 1 h w"]] | None:
        """Return RGB on white and alpha, both in [0, 1] and on the CPU.

        `size` is (height, width). None for a family without colours.
        """
        return None


class Reconstructor(ABC):
    """A trained model in eval mode, with the sizes of its input."""

    def __init__(self, family: Family, image_size: int) -> None:
        self.family = family
        self.image_size = image_size
        """Side in pixels of the input views."""

    @abstractmethod
    def reconstruct(
        self,
        images: Float[Tensor, "1 v 3 s s"],
        camera_to_world: Float[Tensor, "1 v 4 4"],
        intrinsics: Float[Tensor, "1 v 4"],
    ) -> Reconstruction:
        """Reconstruct an object from views (RGB in [0, 1] on white) with their cameras.

        v is the number of views that the family takes (`Family.num_views`).
        """

    @abstractmethod
    def to(self, device: torch.device) -> "Reconstructor":
        """Move the model to a device, and return it."""
