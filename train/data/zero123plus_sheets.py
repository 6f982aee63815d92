"""Samples of Zero123++: the query view of an object at a random size, and its six targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from core.config import Config, Fraction, Renamed, Side
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
"""Function from query images to the inputs of the VAE and of CLIP, [b, 3, h, w] each."""
_VIEWS = 1 + NUM_TARGETS
"""Views of a sample: the query, then its targets."""


class SheetDataConfig(Config):
    """Sizes of the views of an object in a step, and condition dropout."""

    renamed: ClassVar[Mapping[str, Renamed]] = {
        "drop": Renamed("condition_dropout"),
        "drop_per": Renamed("condition_dropout_per"),
    }

    view_size: Side = VIEW_SIZE
    """Side of each of the six target views in pixels. They are tiled to a sheet of 3 rows and 2
    columns."""
    query_size_min: Side = 128
    """Lower bound of the side, in pixels, to which the query view is resized before it is resized
    to the inputs of the VAE and CLIP. The side is drawn for each sample; `query_size_max` is the
    upper bound."""
    query_size_max: Side = 512
    """Upper bound of the side, in pixels, to which the query view is resized first."""
    condition_dropout: Fraction = 0.1
    """Probability that the query is replaced by the unconditional image and the empty prompt, as
    classifier-free guidance needs it."""
    condition_dropout_per: Literal["sample", "batch"] = "sample"
    """Draw the condition dropout for each sample, or once for a whole batch as the released code
    does."""
    published_resize: bool = False
    """Resize images as the released code does: bicubic. By default bilinear with antialiasing."""

    def check(self) -> None:
        """Raise BadInput if the sizes do not fit each other."""
        if self.query_size_min > self.query_size_max:
            raise BadInput(
                f"data: query_size_min {self.query_size_min} is above query_size_max "
                f"{self.query_size_max}: change one of them"
            )

    @property
    def has_one_query_size(self) -> bool:
        """Whether an object's query is the same in every step."""
        return self.query_size_min == self.query_size_max


@dataclass(frozen=True, kw_only=True)
class SheetDraws:
    """The random draws of a position: query size, timestep, noise seed, condition dropout.

    They are a function of (seed, position), and with `condition_dropout_per` batch also of the
    batch size.
    """

    config: SheetDataConfig
    num_timesteps: int
    """Number of timesteps of the noise schedule."""
    batch_size: int
    seed: int

    def at(self, position: int) -> tuple[int, Item]:
        """Return the query's side in pixels at a position, and the draws that the loss uses."""
        rng = sample_rng(self.seed, position)
        config = self.config
        side = int(rng.integers(config.query_size_min, config.query_size_max + 1))
        return side, {
            "timestep": torch.tensor(int(rng.integers(self.num_timesteps))),
            "seed": torch.tensor(int(rng.integers(2**62)), dtype=torch.int64),
            "dropped": torch.tensor(self._is_dropped(rng, position)),
        }

    def _is_dropped(self, rng: np.random.Generator, position: int) -> bool:
        own_draw = rng.random()
        if self.config.condition_dropout_per == "sample":
            return own_draw < self.config.condition_dropout
        step = position // self.batch_size
        # The third number keeps these seeds apart from the samples' seeds of two numbers.
        shared_draw = np.random.default_rng((self.seed, step, 1)).random()
        return shared_draw < self.config.condition_dropout


@dataclass(frozen=True, kw_only=True, eq=False)
class SheetReader:
    """Reader of a sample's query and six targets; images are in [0, 1], on white.

    If the cache has latents of an object, they are read instead of the images that they encode.
    """

    config: SheetDataConfig
    prepare: Prepare
    cache: LatentCache | None = None
    with_alpha: bool = False
    """Whether items contain the alpha of the targets."""

    def read(self, root: Storage, sample: Sample, side: int) -> Item:
        """Return a sample's tensors; `side` is the first size of the query in pixels."""
        item: Item = {}
        cached: Item | None = None
        if self.cache is not None:
            key = key_of(sample)
            cached = self.cache.read(key)
            item |= {"key": key, "cached": torch.tensor(cached is not None)}
            item |= {
                f"cached_{name}": value for name, value in (cached or self.cache.zeros()).items()
            }
        return item | self._query(root, sample, side, cached) | self._targets(root, sample, cached)

    def _query(self, root: Storage, sample: Sample, side: int, cached: Item | None) -> Item:
        if cached is not None and "condition" in cached:
            # Not used, but all items of a batch need the same tensors in the same shapes.
            query = Image.new("RGB", (side, side))
        else:
            picture, _ = self._pictures(root, sample, [0], side)
            query = _image(picture[0])
        pixels, clip = self.prepare([query])
        return {"query": pixels[0], "query_clip": clip[0]}

    def _targets(self, root: Storage, sample: Sample, cached: Item | None) -> Item:
        size = self.config.view_size
        if cached is not None:
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
    """Dataset of queries and targets by position.

    Raises BadInput if a sample is not of the rig zero123plus.
    """

    def __init__(
        self, root: Storage, samples: Sequence[Sample], draws: SheetDraws, reader: SheetReader
    ) -> None:
        for sample in samples:
            if sample.rig.partition("-")[0] != RIG_NAME or count_views(sample) != _VIEWS:
                raise BadInput(
                    f"{sample.asset_id}: has {count_views(sample)} views of rig {sample.rig}; this "
                    f"recipe needs the query and six targets of `lrm build --rig {RIG_NAME}`"
                )
        super().__init__(root, samples, draws.seed)
        self._draws, self._reader = draws, reader

    def _load(self, sample: Sample, position: int) -> Item:
        side, draws = self._draws.at(position)
        return draws | self._reader.read(self._root, sample, side)


def _image(picture: Float[Tensor, "3 h w"]) -> Image.Image:
    return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
