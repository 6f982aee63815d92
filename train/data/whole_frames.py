"""Samples of stage 2: whole frames of every view, with depth and normals."""

from typing import ClassVar

import numpy as np

from core.config import Side
from dataset.views import DEFAULT_RESOLUTION
from train.data.resize import resize
from train.data.sample_dataset import Item
from train.data.step_views import Kind, ObjectDataset, StepViews, ViewChoiceConfig

__all__ = ["FrameDataConfig", "FrameDataset"]


class FrameDataConfig(ViewChoiceConfig):
    """Choice of the views of a step, and their size."""

    frame_size: Side = DEFAULT_RESOLUTION
    """Side of the supervised frames in pixels. Nothing is resized if it equals the resolution of
    the renders."""


class FrameDataset(ObjectDataset[FrameDataConfig]):
    """Dataset of whole frames of an object: colour, alpha, planar depth and world normals."""

    kinds: ClassVar[tuple[Kind, ...]] = ("rgba", "depth", "normal")

    def _targets(self, views: StepViews, rng: np.random.Generator) -> Item:
        config = self._config
        rgb, alpha = views.colours.resized(config.frame_size).floats()
        maps = resize(views.maps, config.frame_size, published=config.published_resize)
        return {
            "target_rgb": rgb,
            "target_alpha": alpha,
            **{f"target_{name}": values for name, values in maps.items()},
            "target_intrinsics": views.intrinsics,
        }
