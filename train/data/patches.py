"""Samples for stage 1, patches of every view, and which positions make a batch."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from core.errors import BadInput
from dataset.views import DEFAULT_RESOLUTION
from train.data.sample_dataset import Item
from train.data.step_views import ChosenViews, ObjectDataset, ViewChoiceConfig
from train.models.lrm.rays import Window, window_intrinsics

__all__ = ["ViewDataConfig", "ViewDataset", "batches", "global_batch"]


class ViewDataConfig(ViewChoiceConfig):
    """Which views a step sees, and which patches of them supervise."""

    patch_size: PositiveInt = 192
    """Side of the supervised patch in pixels."""
    target_size_min: PositiveInt = 192
    """Targets are resized to a side drawn from here to `target_size_max` before cropping."""
    target_size_max: PositiveInt = DEFAULT_RESOLUTION

    def check(self) -> None:
        """Raise BadInput if the sizes do not fit each other."""
        if not self.patch_size <= self.target_size_min <= self.target_size_max:
            raise BadInput(
                f"data: patch_size {self.patch_size} <= target_size_min {self.target_size_min} <= "
                f"target_size_max {self.target_size_max} must hold"
            )


class ViewDataset(ObjectDataset[ViewDataConfig]):
    """A patch of every view of an object: colour and alpha."""

    def _targets(self, views: ChosenViews, rng: np.random.Generator) -> Item:
        config = self._config
        side = int(rng.integers(config.target_size_min, config.target_size_max + 1))
        frames = views.colours.resized(side)
        windows, intrinsics = _random_windows(frames.size, views.intrinsics, config.patch_size, rng)
        rgb, alpha = frames.cropped(windows).floats()
        return {"target_rgb": rgb, "target_alpha": alpha, "target_intrinsics": intrinsics}


def global_batch(step: int, batch_size: int) -> range:
    """The positions of the global batch of a step (counted from 0): [step G, (step + 1) G)."""
    return range(step * batch_size, (step + 1) * batch_size)


def batches(
    first_step: int, last_step: int, batch_size: int, micro_batch: int, rank: int, world: int
) -> Iterator[list[int]]:
    """The positions of every micro-batch of one rank, step after step.

    Each rank takes a contiguous slice of every global batch.
    """
    share = batch_size // world
    for step in range(first_step, last_step):
        own = global_batch(step, batch_size)[rank * share : (rank + 1) * share]
        for start in range(0, share, micro_batch):
            yield list(own[start : start + micro_batch])


def _random_windows(
    size: tuple[int, int], intrinsics: Float[Tensor, "v 4"], patch: int, rng: np.random.Generator
) -> tuple[list[Window], Float[Tensor, "v 4"]]:
    """A random square window of every view, and the intrinsics of the camera that sees only it."""
    windows, cropped = [], []
    for camera in intrinsics:
        left, top = (int(rng.integers(0, room - patch + 1)) for room in reversed(size))
        windows.append(Window(top, left, patch, patch))
        cropped.append(window_intrinsics(camera, size, windows[-1]))
    return windows, torch.stack(cropped)
