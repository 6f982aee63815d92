"""Samples of stage 1 (a patch of every view), and the positions of each batch."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.config import Side
from core.errors import BadInput
from dataset.views import DEFAULT_RESOLUTION
from train.data.sample_dataset import Item
from train.data.step_views import ObjectDataset, StepViews, ViewChoiceConfig
from train.models.lrm.rays import Window, window_intrinsics

__all__ = ["ViewDataConfig", "ViewDataset", "batches", "global_batch"]


class ViewDataConfig(ViewChoiceConfig):
    """Choice of the views of a step, and of the patches of them that supervise."""

    patch_size: Side = 192
    """Side of the square patch of each view that is supervised, in pixels."""
    target_size_min: Side = 192
    """Lower bound of the side, in pixels, to which target views are resized before a patch is
    cropped. The side is drawn for each object; `target_size_max` is the upper bound."""
    target_size_max: Side = DEFAULT_RESOLUTION
    """Upper bound of the side, in pixels, to which target views are resized before a patch is
    cropped."""

    def check(self) -> None:
        """Raise BadInput if the sizes do not fit each other."""
        if not self.patch_size <= self.target_size_min <= self.target_size_max:
            raise BadInput(
                f"data: patch_size {self.patch_size} <= target_size_min {self.target_size_min} <= "
                f"target_size_max {self.target_size_max} must hold: change one of the three"
            )


class ViewDataset(ObjectDataset[ViewDataConfig]):
    """A patch of every view of an object: colour and alpha."""

    def _targets(self, views: StepViews, rng: np.random.Generator) -> Item:
        config = self._config
        side = int(rng.integers(config.target_size_min, config.target_size_max + 1))
        frames = views.colours.resized(side)
        windows, intrinsics = _random_windows(frames.size, views.intrinsics, config.patch_size, rng)
        rgb, alpha = frames.cropped(windows).floats()
        return {"target_rgb": rgb, "target_alpha": alpha, "target_intrinsics": intrinsics}


def global_batch(step: int, batch_size: int) -> range:
    """Return the positions of the global batch of a step (from 0): [step G, (step + 1) G).

    G is `batch_size`.
    """
    return range(step * batch_size, (step + 1) * batch_size)


def batches(
    first_step: int, last_step: int, batch_size: int, micro_batch: int, rank: int, world_size: int
) -> Iterator[list[int]]:
    """Yield the positions of every micro batch of one rank, step by step.

    Each rank has a contiguous slice of every global batch.
    """
    per_rank = batch_size // world_size
    for step in range(first_step, last_step):
        positions = global_batch(step, batch_size)[rank * per_rank : (rank + 1) * per_rank]
        for start in range(0, per_rank, micro_batch):
            yield list(positions[start : start + micro_batch])


def _random_windows(
    size: tuple[int, int], intrinsics: Float[Tensor, "v 4"], patch: int, rng: np.random.Generator
) -> tuple[list[Window], Float[Tensor, "v 4"]]:
    """Return a random square window of every view, and the intrinsics of the cropped cameras."""
    windows, cropped = [], []
    for camera in intrinsics:
        left, top = (int(rng.integers(0, length - patch + 1)) for length in reversed(size))
        windows.append(Window(top, left, patch, patch))
        cropped.append(window_intrinsics(camera, size, windows[-1]))
    return windows, torch.stack(cropped)
