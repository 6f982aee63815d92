"""Samples for training: a map-style dataset over a snapshot, indexed by position in the order.

It reads only the members that a step needs, by byte ranges.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataset.config import Config
from dataset.errors import BadInput, WorkFailed
from dataset.shards import read_members
from dataset.snapshot import Sample
from dataset.storage import Storage
from dataset.views import META_MEMBER, decode_rgba, parse_cameras, view_member
from train.augment import AugmentConfig, draw_augmentation
from train.models.rays import Window, window_intrinsics
from train.order import sample_at, sample_rng

__all__ = ["ViewDataConfig", "ViewDataset", "batches", "global_batch", "make_loader"]

Item = dict[str, Tensor]


class ViewDataConfig(Config):
    """Which views of an object a step sees, and at what sizes (InstantMesh, section 3.2)."""

    num_inputs: PositiveInt = 6
    """Views that the model sees."""
    num_targets: Annotated[int, Field(ge=0)] = 4
    """Further views that only supervise; the input views supervise as well."""
    patch_size: PositiveInt = 192
    """Side of the supervised patch in pixels."""
    target_size_min: PositiveInt = 192
    """Targets are resized to a side drawn from here to `target_size_max` before cropping."""
    target_size_max: PositiveInt = 512
    augment: AugmentConfig = AugmentConfig()

    def check(self) -> None:
        """Raise BadInput if the sizes do not fit each other."""
        if not self.patch_size <= self.target_size_min <= self.target_size_max:
            raise BadInput(
                f"data: patch_size {self.patch_size} <= target_size_min {self.target_size_min} <= "
                f"target_size_max {self.target_size_max} must hold"
            )


class ViewDataset(Dataset[Item]):
    """Item `position` is what the step at that position of the order trains on.

    A function of (snapshot, seed, position) alone. Raises WorkFailed naming the sample if its
    members cannot be read or hold too few views.
    """

    def __init__(
        self,
        root: Storage,
        samples: Sequence[Sample],
        config: ViewDataConfig,
        *,
        input_size: int,
        seed: int,
    ) -> None:
        self._root = root
        self._samples = samples
        self._config = config
        self._input_size = input_size
        self._seed = seed

    def __getitem__(self, position: int) -> Item:
        sample = self._samples[sample_at(position, len(self._samples), self._seed)]
        rng = sample_rng(self._seed, position)
        try:
            return self._load(sample, rng)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise WorkFailed(
                f"{sample.asset_id}: cannot read its views in {sample.shard}: {error}"
            ) from error

    def _load(self, sample: Sample, rng: np.random.Generator) -> Item:
        header = json.loads(self._read(sample, [META_MEMBER])[META_MEMBER])
        cameras = parse_cameras(header)
        count = self._config.num_inputs + self._config.num_targets
        if len(cameras) < count:
            raise ValueError(f"it has {len(cameras)} views, {count} are asked for")
        chosen = rng.choice(len(cameras), count, replace=False).tolist()
        names = [view_member(view, "rgba") for view in chosen]
        members = self._read(sample, names)
        rgba = torch.stack([_to_tensor(decode_rgba(members[name])) for name in names])
        camera_to_world = torch.from_numpy(np.stack([cameras[v].camera_to_world for v in chosen]))
        intrinsics = torch.from_numpy(np.stack([cameras[v].intrinsics for v in chosen]))
        return self._prepare(rgba, camera_to_world, intrinsics, rng)

    def _prepare(
        self,
        rgba: Float[Tensor, "v 4 h w"],
        camera_to_world: Float[Tensor, "v 4 4"],
        intrinsics: Float[Tensor, "v 4"],
        rng: np.random.Generator,
    ) -> Item:
        config = self._config
        augmentation = draw_augmentation(config.augment, rng, config.num_inputs)
        camera_to_world = augmentation.transform(camera_to_world)
        inputs = slice(config.num_inputs)
        noisy, noisy_intrinsics = augmentation.add_noise(
            camera_to_world[inputs], intrinsics[inputs]
        )
        # Colours are composited before resizing, so that no hidden colour bleeds over an edge.
        rgb = rgba[:, :3] * rgba[:, 3:] + (1 - rgba[:, 3:])
        flat = torch.cat([rgb, rgba[:, 3:]], dim=1)
        side = int(rng.integers(config.target_size_min, config.target_size_max + 1))
        patches, patch_intrinsics = _random_patches(
            _resize(flat, side), intrinsics, config.patch_size, rng
        )
        return {
            "images": _resize(rgb[inputs], self._input_size),
            "camera_to_world": noisy,
            "intrinsics": noisy_intrinsics,
            "input_intrinsics": intrinsics[inputs],
            "target_rgb": patches[:, :3],
            "target_alpha": patches[:, 3:],
            "target_camera_to_world": camera_to_world,
            "target_intrinsics": patch_intrinsics,
            "seed": torch.tensor(int(rng.integers(2**62)), dtype=torch.int64),
        }

    def _read(self, sample: Sample, names: Sequence[str]) -> dict[str, bytes]:
        return read_members(self._root, sample.shard, sample.entry, names)


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


def make_loader(
    dataset: Dataset[Item], positions: Iterable[list[int]], num_workers: int
) -> DataLoader[Item]:
    """A loader of the given micro-batches, in their order; it can be iterated once."""
    return DataLoader(
        dataset,
        batch_sampler=positions,
        num_workers=num_workers,
        # A fork would inherit the threads of gloo and DeepSpeed.
        multiprocessing_context="forkserver" if num_workers else None,
    )


def _to_tensor(pixels: np.ndarray) -> Float[Tensor, "c h w"]:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def _resize(images: Float[Tensor, "v c h w"], side: int) -> Float[Tensor, "v c s s"]:
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True).clamp(0, 1)


def _random_patches(
    images: Float[Tensor, "v c s s"],
    intrinsics: Float[Tensor, "v 4"],
    patch: int,
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "v c p p"], Float[Tensor, "v 4"]]:
    """A random square window of every view, and the intrinsics of the camera that sees only it."""
    size = (images.shape[-2], images.shape[-1])
    windows, cropped = [], []
    for image, camera in zip(images, intrinsics, strict=True):
        left, top = (int(rng.integers(0, room - patch + 1)) for room in reversed(size))
        windows.append(image[:, top : top + patch, left : left + patch])
        cropped.append(window_intrinsics(camera, size, Window(top, left, patch, patch)))
    return torch.stack(windows), torch.stack(cropped)
