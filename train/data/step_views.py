"""The views of one object in a training step: random choice, byte-range reading, augmentation.

train/data/patches.py and train/data/whole_frames.py derive the supervised images from them.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from core.config import Config
from core.storage import Storage
from dataset.cameras import Camera
from dataset.format.encoding import decode_depth, decode_normal_codes, decode_rgba, normal_table
from dataset.format.shards import read_members
from dataset.snapshots.snapshot import Sample
from dataset.views import META_MEMBER, parse_cameras, view_member
from train.data.augment import Augmentation, AugmentConfig, draw_augmentation
from train.data.colours import Colours
from train.data.order import sample_rng
from train.data.sample_dataset import Item, SampleDataset, unreadable

__all__ = [
    "Kind",
    "ObjectDataset",
    "StepViews",
    "ViewChoiceConfig",
    "count_views",
    "parse_header",
    "read_views",
]

Kind = Literal["rgba", "depth", "normal"]
_RGBA_ENDING = view_member(0, "rgba").removeprefix("000")


class ViewChoiceConfig(Config):
    """Choice of the views of an object in a step (InstantMesh, section 3.2)."""

    num_inputs: Annotated[int, Field(ge=1, le=1024)] = 6
    """Number of views of an object that the model gets as input."""
    num_targets: Annotated[int, Field(ge=0, le=1024)] = 4
    """Number of further views that only supervise. The input views supervise, too."""
    augment: AugmentConfig = AugmentConfig()
    published_resize: bool = False
    """Resize images as the released code does: colour and normals bicubic, alpha and depth
    nearest. By default colour and alpha are bilinear with antialiasing, depth and normals
    nearest."""

    def check(self) -> None:
        """Raise BadInput if the settings do not fit each other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepViews:
    """The views of one object in a step, the input views first, in the augmented world."""

    colours: Colours
    maps: Mapping[str, Float[Tensor, "v _ h w"]]
    """Depth and normals if they were read; 0 in the background."""
    camera_to_world: Float[Tensor, "v 4 4"]
    intrinsics: Float[Tensor, "v 4"]


ConfigType = TypeVar("ConfigType", bound=ViewChoiceConfig)


class ObjectDataset(SampleDataset, Generic[ConfigType]):
    """Dataset with one object per position: its views are drawn, augmented and resized.

    The draw of views and augmentation is the same in every stage. Raises WorkFailed naming the
    sample if it has too few views.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("rgba",)
    """The images of each view that are read."""

    def __init__(
        self,
        root: Storage,
        samples: Sequence[Sample],
        config: ConfigType,
        *,
        input_size: int,
        seed: int,
    ) -> None:
        """Create the dataset; `input_size` is the side of the input views in pixels."""
        super().__init__(root, samples, seed)
        self._config = config
        self._input_size = input_size

    @abstractmethod
    def _targets(self, views: StepViews, rng: np.random.Generator) -> Item:
        """Return the supervision: `target_` images of all views, and their intrinsics."""

    def _load(self, sample: Sample, position: int) -> Item:
        rng = sample_rng(self._seed, position)
        config = self._config
        count = config.num_inputs + config.num_targets
        num_views = count_views(sample)
        if num_views < count:
            raise unreadable(
                sample,
                f"it has {num_views} views, but --data.num-inputs and --data.num-targets need "
                f"{count}",
            )
        view_ids = rng.choice(num_views, count, replace=False).tolist()
        augmentation = draw_augmentation(config.augment, rng, config.num_inputs)
        members = self._read(sample, view_ids)
        header, cameras = parse_header(sample, members)
        camera_to_world = torch.from_numpy(np.stack([cameras[v].camera_to_world for v in view_ids]))
        views = StepViews(
            colours=self._colours(members, view_ids),
            maps=self._maps(members, header, view_ids, augmentation),
            camera_to_world=augmentation.transform(camera_to_world),
            intrinsics=torch.from_numpy(np.stack([cameras[v].intrinsics for v in view_ids])),
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

    def _read(self, sample: Sample, view_ids: Sequence[int]) -> dict[str, bytes]:
        return read_views(self._root, sample, view_ids, self.kinds)

    def _colours(self, members: Mapping[str, bytes], view_ids: Sequence[int]) -> Colours:
        pictures = [decode_rgba(members[view_member(view, "rgba")]) for view in view_ids]
        return Colours.of(pictures, published=self._config.published_resize)

    def _maps(
        self,
        members: Mapping[str, bytes],
        header: Mapping[str, Any],
        view_ids: Sequence[int],
        augmentation: Augmentation,
    ) -> dict[str, Tensor]:
        maps = {}
        if "depth" in self.kinds:
            scale = header["depth_scale"] * augmentation.scale
            pictures = [decode_depth(members[view_member(v, "depth")], scale) for v in view_ids]
            maps["depth"] = torch.from_numpy(np.stack(pictures))[:, None]
        if "normal" in self.kinds:
            codes = [decode_normal_codes(members[view_member(v, "normal")]) for v in view_ids]
            maps["normals"] = _decode_normals(codes, augmentation)
        return maps


def _decode_normals(
    codes: Sequence[Int32[np.ndarray, "h w"]], augmentation: Augmentation
) -> Float[Tensor, "v 3 h w"]:
    """Return the rotated normals of these codes; rotating the code table is cheaper than images."""
    table = augmentation.rotation @ torch.from_numpy(normal_table()).T
    normals = torch.empty(len(codes), 3, *codes[0].shape)
    for view, picture in zip(normals, codes, strict=True):
        torch.index_select(table, 1, torch.from_numpy(picture).view(-1), out=view.view(3, -1))
    return normals


def read_views(
    root: Storage, sample: Sample, view_ids: Sequence[int], kinds: Sequence[Kind]
) -> dict[str, bytes]:
    """Return the header and the pictures of some views of a sample. Raises as `read_members`."""
    pictures = [view_member(view, kind) for kind in kinds for view in view_ids]
    return read_members(root, sample.shard, sample.entry, [META_MEMBER, *pictures])


def parse_header(
    sample: Sample, members: Mapping[str, bytes]
) -> tuple[dict[str, Any], list[Camera]]:
    """Return the header of a sample, and the cameras of all its views.

    Raises ValueError if their number is not that of its views, and as `parse_cameras`.
    """
    header = json.loads(members[META_MEMBER])
    cameras = parse_cameras(header)
    if len(cameras) != count_views(sample):
        raise ValueError(f"it has {count_views(sample)} views, but {len(cameras)} cameras")
    return header, cameras


def count_views(sample: Sample) -> int:
    """Return the number of a sample's views, counted in the shard index without a request."""
    return sum(name.endswith(_RGBA_ENDING) for name in sample.entry.members)
