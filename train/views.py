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
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from dataset.config import Config
from dataset.errors import WorkFailed
from dataset.shards import read_members
from dataset.snapshot import Sample
from dataset.storage import Storage, storage_errors
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

__all__ = [
    "ChosenViews",
    "Item",
    "Kind",
    "ObjectDataset",
    "ViewChoiceConfig",
    "composite",
    "count_views",
]

Item = dict[str, Tensor]
Kind = Literal["rgba", "depth", "normal"]
_UNREADABLE: tuple[type[Exception], ...] = (*storage_errors(), EOFError, ValueError, KeyError)
_RGBA_ENDING = view_member(0, "rgba").removeprefix("000")


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
        except _UNREADABLE as error:
            raise WorkFailed(
                f"{sample.asset_id}: cannot read its views in {sample.shard}: {error}"
            ) from error

    @abstractmethod
    def _targets(self, views: ChosenViews, rng: np.random.Generator) -> Item:
        """What supervises: `target_` pictures of all views and their intrinsics."""

    def _load(self, sample: Sample, rng: np.random.Generator) -> Item:
        config = self._config
        count = config.num_inputs + config.num_targets
        num_views = count_views(sample)
        if num_views < count:
            raise ValueError(f"it has {num_views} views, {count} are asked for")
        chosen = rng.choice(num_views, count, replace=False).tolist()
        members = self._read(sample, chosen)
        header = json.loads(members[META_MEMBER])
        cameras = parse_cameras(header)
        if len(cameras) != num_views:
            raise ValueError(f"it has {num_views} views, but cameras of {len(cameras)}")
        augmentation = draw_augmentation(config.augment, rng, config.num_inputs)
        camera_to_world = torch.from_numpy(np.stack([cameras[v].camera_to_world for v in chosen]))
        views = ChosenViews(
            pictures=self._pictures(members, header, chosen, augmentation),
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

    def _read(self, sample: Sample, chosen: Sequence[int]) -> dict[str, bytes]:
        pictures = [view_member(view, kind) for kind in self.kinds for view in chosen]
        return read_members(self._root, sample.shard, sample.entry, [META_MEMBER, *pictures])

    def _pictures(
        self,
        members: Mapping[str, bytes],
        header: Mapping[str, Any],
        chosen: Sequence[int],
        augmentation: Augmentation,
    ) -> dict[str, Tensor]:
        found = {kind: [members[view_member(view, kind)] for view in chosen] for kind in self.kinds}
        rgb, alpha = composite([decode_rgba(data) for data in found["rgba"]])
        pictures = {"rgb": rgb, "alpha": alpha}
        if "depth" in found:
            scale = header["depth_scale"]
            depth = [decode_depth(data, scale)[..., None] for data in found["depth"]]
            pictures["depth"] = _stack(depth) * augmentation.scale
        if "normal" in found:
            normals = _stack([decode_normal(data) for data in found["normal"]])
            pictures["normals"] = augmentation.turn(normals)
        return pictures


def count_views(sample: Sample) -> int:
    """How many views it has by its index, so that all that is needed comes in one request."""
    return sum(name.endswith(_RGBA_ENDING) for name in sample.entry.members)


def composite(
    pictures: Sequence[UInt8[np.ndarray, "h w 4"]],
) -> tuple[Float[Tensor, "v 3 h w"], Float[Tensor, "v 1 h w"]]:
    """RGB on white, rgb alpha + (1 - alpha), and alpha; from 0 to 1.

    Before any resizing, so that no hidden colour bleeds over an edge.
    """
    height, width, _ = pictures[0].shape
    # Plane by plane, and one view at a time in the processor's cache: a third of the time.
    planes = torch.empty(len(pictures), 4, height, width)
    for view, pixels in zip(planes, pictures, strict=True):
        view.copy_(torch.from_numpy(pixels.transpose(2, 0, 1).copy())).div_(255)
        view[:3].mul_(view[3:]).add_(1 - view[3:])
    return planes[:, :3], planes[:, 3:]


def _stack(pictures: Sequence[np.ndarray]) -> Float[Tensor, "v c h w"]:
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float()
