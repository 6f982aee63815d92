"""The views of an object that a step sees: chosen, read by byte ranges, augmented.

train/data/patches.py and train/data/whole_frames.py make of them what a stage supervises.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int32
from pydantic import Field, PositiveInt
from torch import Tensor

from core.config import Config
from core.storage import Storage
from dataset.format.encoding import decode_depth, decode_normal_codes, decode_rgba, normal_table
from dataset.format.shards import read_members
from dataset.snapshots.snapshot import Sample
from dataset.views import META_MEMBER, parse_cameras, view_member
from train.data.augment import Augmentation, AugmentConfig, draw_augmentation
from train.data.colours import Colours
from train.data.order import sample_rng
from train.data.sample_dataset import Item, SampleDataset, unreadable

__all__ = [
    "ChosenViews",
    "Kind",
    "ObjectDataset",
    "ViewChoiceConfig",
    "count_views",
]

Kind = Literal["rgba", "depth", "normal"]
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

    colours: Colours
    maps: Mapping[str, Float[Tensor, "v _ h w"]]
    """Depth and normals if they were read, 0 where there is nothing."""
    camera_to_world: Float[Tensor, "v 4 4"]
    intrinsics: Float[Tensor, "v 4"]


ConfigType = TypeVar("ConfigType", bound=ViewChoiceConfig)


class ObjectDataset(SampleDataset, Generic[ConfigType]):
    """Views of one object per position: chosen, augmented, resized.

    The views and their augmentation are the same in every stage. Raises WorkFailed naming the
    sample if it has too few views.
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
    ) -> None:
        """`input_size` is the side of the input views in pixels."""
        super().__init__(root, samples, seed)
        self._config = config
        self._input_size = input_size

    @abstractmethod
    def _targets(self, views: ChosenViews, rng: np.random.Generator) -> Item:
        """What supervises: `target_` pictures of all views and their intrinsics."""

    def _load(self, sample: Sample, position: int) -> Item:
        rng = sample_rng(self._seed, position)
        config = self._config
        count = config.num_inputs + config.num_targets
        num_views = count_views(sample)
        if num_views < count:
            raise unreadable(sample, f"it has {num_views} views, {count} are asked for")
        chosen = rng.choice(num_views, count, replace=False).tolist()
        augmentation = draw_augmentation(config.augment, rng, config.num_inputs)
        members = self._read(sample, chosen)
        header = json.loads(members[META_MEMBER])
        cameras = parse_cameras(header)
        if len(cameras) != num_views:
            raise ValueError(f"it has {num_views} views, but cameras of {len(cameras)}")
        camera_to_world = torch.from_numpy(np.stack([cameras[v].camera_to_world for v in chosen]))
        views = ChosenViews(
            colours=self._colours(members, chosen),
            maps=self._maps(members, header, chosen, augmentation),
            camera_to_world=augmentation.transform(camera_to_world),
            intrinsics=torch.from_numpy(np.stack([cameras[v].intrinsics for v in chosen])),
        )
        inputs = slice(config.num_inputs)
        noisy, noisy_intrinsics = augmentation.add_noise(
            views.camera_to_world[inputs], views.intrinsics[inputs]
        )
        return {
            "images": views.colours.resized(self._input_size, inputs).floats()[0],
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

    def _colours(self, members: Mapping[str, bytes], chosen: Sequence[int]) -> Colours:
        pictures = [decode_rgba(members[view_member(view, "rgba")]) for view in chosen]
        return Colours.of(pictures, published=self._config.published_resize)

    def _maps(
        self,
        members: Mapping[str, bytes],
        header: Mapping[str, Any],
        chosen: Sequence[int],
        augmentation: Augmentation,
    ) -> dict[str, Tensor]:
        found = {}
        if "depth" in self.kinds:
            scale = header["depth_scale"] * augmentation.scale
            pictures = [decode_depth(members[view_member(v, "depth")], scale) for v in chosen]
            found["depth"] = torch.from_numpy(np.stack(pictures))[:, None]
        if "normal" in self.kinds:
            codes = [decode_normal_codes(members[view_member(v, "normal")]) for v in chosen]
            found["normals"] = _look_up(codes, augmentation)
        return found


def _look_up(
    codes: Sequence[Int32[np.ndarray, "h w"]], augmentation: Augmentation
) -> Float[Tensor, "v 3 h w"]:
    """The normals of these codes, turned: a table of all of them turns instead of the pictures."""
    table = augmentation.rotation @ torch.from_numpy(normal_table()).T
    normals = torch.empty(len(codes), 3, *codes[0].shape)
    for view, picture in zip(normals, codes, strict=True):
        torch.index_select(table, 1, torch.from_numpy(picture).view(-1), out=view.view(3, -1))
    return normals


def count_views(sample: Sample) -> int:
    """How many views it has by its index, so that all that is needed comes in one request."""
    return sum(name.endswith(_RGBA_ENDING) for name in sample.entry.members)
