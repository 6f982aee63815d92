"""Samples of Zero123++: the query view of an object at a drawn size, and its six targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import PositiveInt
from torch import Tensor

from core.config import Config, Fraction
from core.errors import BadInput
from core.storage import Storage
from dataset.format.encoding import decode_rgba
from dataset.format.shards import read_members
from dataset.snapshots.snapshot import Sample
from dataset.views import view_member
from dataset.zero123plus_cameras import NUM_TARGETS, RIG_NAME
from train.data.colours import composite
from train.data.latent_cache import LatentCache, key_of
from train.data.order import sample_rng
from train.data.resize import resize
from train.data.sample_dataset import Item, SampleDataset
from train.data.step_views import count_views
from train.models.zero123plus.sampling_defaults import VIEW_SIZE

__all__ = ["Prepare", "SheetDataConfig", "SheetDataset", "SheetDraws", "SheetReader"]

Prepare = Callable[[Sequence[Image.Image]], tuple[Tensor, Tensor]]
"""Query images to what the VAE and what CLIP takes of them, [b, 3, h, w] each."""
_VIEWS = 1 + NUM_TARGETS
"""The query, then its targets."""


class SheetDataConfig(Config):
    """What a step sees of an object."""

    view_size: PositiveInt = VIEW_SIZE
    """Side of a target in pixels; six of them make a sheet of 3 rows and 2 columns."""
    query_size_min: PositiveInt = 128
    """The query is resized to a side drawn from here to `query_size_max` first,"""
    query_size_max: PositiveInt = 512
    """and then to what the VAE and CLIP take."""
    drop: Fraction = 0.1
    """Share of the queries that are dropped, so that guidance has something to compare with."""
    drop_per: Literal["sample", "batch"] = "sample"
    """Draw for each sample, or once for a whole batch as released."""
    published_resize: bool = False
    """Resize pictures as released: bicubic."""

    def check(self) -> None:
        """Raise BadInput if the sizes do not fit each other."""
        if self.query_size_min > self.query_size_max:
            raise BadInput(
                f"data: query_size_min {self.query_size_min} is above query_size_max "
                f"{self.query_size_max}"
            )

    @property
    def has_one_query_size(self) -> bool:
        """Whether an object's query is the same at every step."""
        return self.query_size_min == self.query_size_max


@dataclass(frozen=True, kw_only=True)
class SheetDraws:
    """The random draws of a step on an object, a function of (seed, position) and the batch size.

    They are the query's size, the timestep, the seed of the noise, and whether the query is
    dropped.
    """

    config: SheetDataConfig
    num_timesteps: int
    """Of the noise schedule."""
    batch_size: int
    seed: int

    def at(self, position: int) -> tuple[int, Item]:
        """Return the query's side in pixels, and the draws that the loss uses."""
        rng = sample_rng(self.seed, position)
        config = self.config
        side = int(rng.integers(config.query_size_min, config.query_size_max + 1))
        return side, {
            "timestep": torch.tensor(int(rng.integers(self.num_timesteps))),
            "seed": torch.tensor(int(rng.integers(2**62)), dtype=torch.int64),
            "dropped": torch.tensor(self._is_dropped(rng, position)),
        }

    def _is_dropped(self, rng: np.random.Generator, position: int) -> bool:
        own = rng.random()
        if self.config.drop_per == "sample":
            return own < self.config.drop
        step = position // self.batch_size
        # A third number: no sample has these.
        shared = np.random.default_rng((self.seed, step, 1)).random()
        return shared < self.config.drop


@dataclass(frozen=True, kw_only=True, eq=False)
class SheetReader:
    """Reads the query and the six targets of a sample; pictures are in [0, 1], on white.

    What the cache holds of an object is read from there instead of from the object's pictures.
    """

    config: SheetDataConfig
    prepare: Prepare
    cache: LatentCache | None = None
    with_alpha: bool = False
    """Whether items have the alpha of the targets."""

    def read(self, root: Storage, sample: Sample, side: int) -> Item:
        """Return a sample's tensors, with its query resized to a side in pixels first."""
        found: Item = {}
        held: Item | None = None
        if self.cache is not None:
            key = key_of(sample)
            held = self.cache.read(key)
            found |= {"key": key, "cached": torch.tensor(held is not None)}
            found |= {
                f"cached_{name}": value for name, value in (held or self.cache.blank()).items()
            }
        return found | self._query(root, sample, side, held) | self._targets(root, sample, held)

    def _query(self, root: Storage, sample: Sample, side: int, held: Item | None) -> Item:
        if held is not None and "condition" in held:
            # Not used, but every item of a batch must have the same tensors in the same shapes.
            query = Image.new("RGB", (side, side))
        else:
            picture, _ = self._pictures(root, sample, [0], side)
            query = _image(picture[0])
        pixels, clip = self.prepare([query])
        return {"query": pixels[0], "query_clip": clip[0]}

    def _targets(self, root: Storage, sample: Sample, held: Item | None) -> Item:
        size = self.config.view_size
        if held is not None:
            return {"views": torch.zeros(NUM_TARGETS, 3, size, size)}
        views, alpha = self._pictures(root, sample, range(1, _VIEWS), size)
        return {"views": views} | ({"alpha": alpha} if self.with_alpha else {})

    def _pictures(
        self, root: Storage, sample: Sample, views: Sequence[int], side: int
    ) -> tuple[Float[Tensor, "v 3 s s"], Float[Tensor, "v 1 s s"]]:
        names = [view_member(view, "rgba") for view in views]
        members = read_members(root, sample.shard, sample.entry, names)
        rgb, alpha = composite([decode_rgba(members[name]) for name in names])
        published = self.config.published_resize
        resized = resize({"rgb": rgb, "alpha": alpha}, side, published=published)
        return resized["rgb"], resized["alpha"]


class SheetDataset(SampleDataset):
    """What the draws and the reader make of each position. Raises BadInput for another rig."""

    def __init__(
        self, root: Storage, samples: Sequence[Sample], draws: SheetDraws, reader: SheetReader
    ) -> None:
        for sample in samples:
            if sample.rig.partition("-")[0] != RIG_NAME or count_views(sample) != _VIEWS:
                raise BadInput(
                    f"{sample.asset_id}: has {count_views(sample)} views of rig {sample.rig}; a "
                    f"query and six targets come from `lrm build --rig {RIG_NAME}`"
                )
        super().__init__(root, samples, draws.seed)
        self._draws, self._reader = draws, reader

    def _load(self, sample: Sample, position: int) -> Item:
        side, drawn = self._draws.at(position)
        return drawn | self._reader.read(self._root, sample, side)


def _image(picture: Float[Tensor, "3 h w"]) -> Image.Image:
    return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
