"""Samples of Zero123++: the query view of an object at a drawn size, and its six targets.

Everything that is drawn follows from (seed, position): the query's size, the timestep, whether the
query is dropped, and the seed of the noise.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

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
from train.data.replacements import load_at
from train.data.resize import resize
from train.data.step_views import Item, count_views
from train.models.zero123plus.sampling_defaults import VIEW_SIZE

__all__ = ["Prepare", "SheetDataConfig", "SheetDataset"]

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


class SheetDataset(Dataset[Item]):
    """Item `position` is what the step at that position of the order trains on.

    A function of (snapshot, seed, position, batch size). Pictures are in [0, 1], on white. With a
    `cache`, what it holds of an object is read from there instead of the object's pictures. Another
    sample stands in for one that is damaged or missing, and `faults` tells
    (train/resilience/damaged_samples.py).
    Raises BadInput for views of another rig, WorkFailed naming the sample if the storage fails.
    """

    def __init__(
        self,
        root: Storage,
        samples: Sequence[Sample],
        config: SheetDataConfig,
        prepare: Prepare,
        *,
        num_timesteps: int,
        batch_size: int,
        seed: int,
        cache: LatentCache | None = None,
        with_alpha: bool = False,
        number: int = 0,
    ) -> None:
        """`number` tells a recipe's datasets apart: an item's `origin` is (number, position)."""
        for sample in samples:
            if sample.rig.partition("-")[0] != RIG_NAME or count_views(sample) != _VIEWS:
                raise BadInput(
                    f"{sample.asset_id}: has {count_views(sample)} views of rig {sample.rig}; a "
                    f"query and six targets come from `lrm build --rig {RIG_NAME}`"
                )
        self._root, self._samples, self._config, self._prepare = root, samples, config, prepare
        self._num_timesteps, self._batch_size, self._seed = num_timesteps, batch_size, seed
        self._cache, self._with_alpha, self._number = cache, with_alpha, number

    def __getitem__(self, position: int) -> Item:
        rng = sample_rng(self._seed, position)
        config = self._config
        side = int(rng.integers(config.query_size_min, config.query_size_max + 1))
        drawn = {
            "timestep": torch.tensor(int(rng.integers(self._num_timesteps))),
            "seed": torch.tensor(int(rng.integers(2**62)), dtype=torch.int64),
            "dropped": torch.tensor(self._is_dropped(rng, position)),
            "origin": torch.tensor([self._number, position]),
        }

        def load(sample: Sample) -> Item:
            return self._pictures(sample, side)

        return drawn | load_at(self._root, self._samples, self._seed, position, load)

    def _is_dropped(self, rng: np.random.Generator, position: int) -> bool:
        own = rng.random()
        if self._config.drop_per == "sample":
            return own < self._config.drop
        step = position // self._batch_size
        # A third number: no sample has these.
        shared = np.random.default_rng((self._seed, step, 1)).random()
        return shared < self._config.drop

    def _pictures(self, sample: Sample, side: int) -> Item:
        """Of the query and the targets what no cache holds, and what one holds."""
        found: Item = {}
        held: Item | None = None
        if self._cache is not None:
            key = key_of(sample)
            held = self._cache.read(key)
            found |= {"key": key, "cached": torch.tensor(held is not None)}
            found |= {
                f"cached_{name}": value for name, value in (held or self._cache.blank()).items()
            }
        return found | self._query(sample, side, held) | self._targets(sample, held)

    def _query(self, sample: Sample, side: int, held: Item | None) -> Item:
        if held is not None and "condition" in held:
            # Of no use, but every item of a batch must have them in one shape.
            empty = Image.new("RGB", (side, side))
            pixels, clip = self._prepare([empty])
        else:
            picture, _ = self._read(sample, [0], side)
            pixels, clip = self._prepare([_image(picture[0])])
        return {"query": pixels[0], "query_clip": clip[0]}

    def _targets(self, sample: Sample, held: Item | None) -> Item:
        size = self._config.view_size
        if held is not None:
            return {"views": torch.zeros(_VIEWS - 1, 3, size, size)}
        views, alpha = self._read(sample, range(1, _VIEWS), size)
        return {"views": views} | ({"alpha": alpha} if self._with_alpha else {})

    def _read(
        self, sample: Sample, views: Sequence[int], side: int
    ) -> tuple[Float[Tensor, "v 3 s s"], Float[Tensor, "v 1 s s"]]:
        names = [view_member(view, "rgba") for view in views]
        members = read_members(self._root, sample.shard, sample.entry, names)
        rgb, alpha = composite([decode_rgba(members[name]) for name in names])
        published = self._config.published_resize
        resized = resize({"rgb": rgb, "alpha": alpha}, side, published=published)
        return resized["rgb"], resized["alpha"]


def _image(picture: Float[Tensor, "3 h w"]) -> Image.Image:
    return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
