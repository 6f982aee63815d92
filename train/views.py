"""The views of an object that a step sees: chosen, read by byte ranges, augmented.

What a stage supervises with them is the subject of train/data.py (patches) and train/frames.py.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from dataset.config import Config
from dataset.errors import WorkFailed
from dataset.shards import read_members
from dataset.snapshot import Sample
from dataset.storage import Storage
from dataset.views import (
    META_MEMBER,
    decode_depth,
    decode_normal,
    decode_rgba,
    parse_cameras,
    view_member,
)
from train.augment import Augmentation, AugmentConfig, draw_augmentation
from train.order import sample_at, sample_rng
from train.resize import resize

__all__ = ["ChosenViews", "Item", "Kind", "ObjectDataset", "ViewChoiceConfig"]

Item = dict[str, Tensor]
Kind = Literal["rgba", "depth", "normal"]


class ViewChoiceConfig(Config):
    """Which views of an object a step sees (InstantMesh, section 3.2)."""

    num_inputs: PositiveInt = 6
    """Views that the model sees."""
    num_targets: Annotated[int, Field(ge=0)] = 4
    """Further views that only supervise; the input views supervise as well."""
    augment: AugmentConfig = AugmentConfig()
    published_resize: bool = False
    """Resize pictures as released: colour and normals bicubic, alpha and depth nearest."""

    def check(self) -> None:
        """Raise BadInput if the settings do not fit each other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenViews:
    """Views of one object, the inputs first, in the augmented world."""

    pictures: Mapping[str, Float[Tensor, "v _ h w"]]
    """rgb (on white) and alpha; depth and normals if they were read, 0 where there is nothing."""
    camera_to_world: Float[Tensor, "v 4 4"]
    intrinsics: Float[Tensor, "v 4"]


ConfigType = TypeVar("ConfigType", bound=ViewChoiceConfig)


class ObjectDataset(Dataset[Item], ABC, Generic[ConfigType]):
    """Item `position` is what the step at that position of the order trains on.

    A function of (snapshot, seed, position) alone; the views and their augmentation are the same in
    every stage. Raises WorkFailed naming the sample if its members cannot be read or hold too few
    views.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("rgba",)
    """The pictures of each view that are read."""

    def __init__(
        self,
        root: Storage,
        samples: Sequence[Sample],
        config: ConfigType,
        *,
        input_size: int,
        seed: int,
        number: int = 0,
    ) -> None:
        """`number` tells a recipe's datasets apart: an item's `origin` is (number, position)."""
        self._number = number
        self._root = root
        self._samples = samples
        self._config = config
        self._input_size = input_size
        self._seed = seed

    def __getitem__(self, position: int) -> Item:
        sample = self._samples[sample_at(position, len(self._samples), self._seed)]
        rng = sample_rng(self._seed, position)
        try:
            origin = torch.tensor([self._number, position])
            return self._load(sample, rng) | {"origin": origin}
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise WorkFailed(
                f"{sample.asset_id}: cannot read its views in {sample.shard}: {error}"
            ) from error

    @abstractmethod
    def _targets(self, views: ChosenViews, rng: np.random.Generator) -> Item:
        """What supervises: `target_` pictures of all views and their intrinsics."""

    def _load(self, sample: Sample, rng: np.random.Generator) -> Item:
        header = json.loads(self._read(sample, [META_MEMBER])[META_MEMBER])
        cameras = parse_cameras(header)
        config = self._config
        count = config.num_inputs + config.num_targets
        if len(cameras) < count:
            raise ValueError(f"it has {len(cameras)} views, {count} are asked for")
        chosen = rng.choice(len(cameras), count, replace=False).tolist()
        augmentation = draw_augmentation(config.augment, rng, config.num_inputs)
        camera_to_world = torch.from_numpy(np.stack([cameras[v].camera_to_world for v in chosen]))
        views = ChosenViews(
            pictures=self._pictures(sample, header, chosen, augmentation),
            camera_to_world=augmentation.transform(camera_to_world),
            intrinsics=torch.from_numpy(np.stack([cameras[v].intrinsics for v in chosen])),
        )
        inputs = slice(config.num_inputs)
        noisy, noisy_intrinsics = augmentation.add_noise(
            views.camera_to_world[inputs], views.intrinsics[inputs]
        )
        seen = {"rgb": views.pictures["rgb"][inputs]}
        published = config.published_resize
        return {
            "images": resize(seen, self._input_size, published=published)["rgb"],
            "camera_to_world": noisy,
            "intrinsics": noisy_intrinsics,
            "input_intrinsics": views.intrinsics[inputs],
            **self._targets(views, rng),
            "target_camera_to_world": views.camera_to_world,
            "seed": torch.tensor(int(rng.integers(2**62)), dtype=torch.int64),
        }

    def _pictures(
        self,
        sample: Sample,
        header: Mapping[str, Any],
        chosen: Sequence[int],
        augmentation: Augmentation,
    ) -> dict[str, Tensor]:
        names = {kind: [view_member(view, kind) for view in chosen] for kind in self.kinds}
        members = self._read(sample, [name for kind in self.kinds for name in names[kind]])
        rgba = _stack([decode_rgba(members[name]) for name in names["rgba"]]) / 255
        # Composited before resizing, so that no hidden colour bleeds over an edge.
        rgb, alpha = rgba[:, :3] * rgba[:, 3:] + (1 - rgba[:, 3:]), rgba[:, 3:]
        pictures = {"rgb": rgb, "alpha": alpha}
        if "depth" in names:
            scale = header["depth_scale"]
            depth = [decode_depth(members[name], scale)[..., None] for name in names["depth"]]
            pictures["depth"] = _stack(depth) * augmentation.scale
        if "normal" in names:
            normals = _stack([decode_normal(members[name]) for name in names["normal"]])
            pictures["normals"] = augmentation.turn(normals)
        return pictures

    def _read(self, sample: Sample, names: Sequence[str]) -> dict[str, bytes]:
        return read_members(self._root, sample.shard, sample.entry, names)


def _stack(pictures: Sequence[np.ndarray]) -> Float[Tensor, "v c h w"]:
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float()
