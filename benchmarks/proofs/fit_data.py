"""The data of `fit_object`: one object's views and true surface, in a file of their own.

Such a file holds the sample's pictures as the shard does, lossless, and the companion geometry's
points. Reading it needs neither the dataset nor what reads one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from core.errors import BadInput, WorkFailed
from dataset.views import ViewSet, decode_views

__all__ = ["FitObject", "FitViews", "export_objects", "read_object"]

_LARGEST_STEP = 0.05
"""Depths of neighbouring pixels that differ more are not one surface: no mean of them is taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FitViews:
    """Views of one object as losses compare them; the same conventions as the dataset."""

    camera_to_world: Float[Tensor, "v 4 4"]
    intrinsics: Float[Tensor, "v 4"]
    rgb: Float[Tensor, "v 3 s s"]
    """On white."""
    alpha: Float[Tensor, "v 1 s s"]
    depth: Float[Tensor, "v 1 s s"]
    """Planar; 0 where there is none, or where smaller pictures would mix two surfaces."""
    normals: Float[Tensor, "v 3 s s"]

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rgb.shape[-2], self.rgb.shape[-1]

    def select(self, views: Tensor) -> "FitViews":
        """Some of the views."""
        return FitViews(**{name: value[views] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class FitObject:
    """One object to fit."""

    name: str
    """Asset id."""
    views: ViewSet
    points: Float32[np.ndarray, "n 3"]
    """On the true surface, spread evenly, in random order."""
    normals: Float32[np.ndarray, "n 3"]
    """Of the triangles at the points, by winding."""

    def at_size(self, side: int, device: torch.device) -> FitViews:
        """The views scaled down to `side` pixels, which must divide theirs. Raises BadInput.

        Depth and normals are those of one pixel's centre; of a block of pixels they are the mean,
        where all of it shows one surface.
        """
        rgba = torch.from_numpy(self.views.rgba).permute(0, 3, 1, 2).float() / 255
        depth = torch.from_numpy(self.views.depth)[:, None]
        normals = torch.from_numpy(self.views.normals).permute(0, 3, 1, 2)
        block, rest = divmod(rgba.shape[-1], side)
        if rest or not block:
            raise BadInput(f"{self.name}: size {side} does not divide {rgba.shape[-1]} pixels")
        alpha = rgba[:, 3:]
        flat = torch.cat([rgba[:, :3] * alpha + (1 - alpha), alpha], dim=1)
        flat = F.avg_pool2d(flat, block)
        highest, lowest = F.max_pool2d(depth, block), -F.max_pool2d(-depth, block)
        one = (lowest > 0) & (highest - lowest <= _LARGEST_STEP * block)
        cameras = self.views.cameras
        parts = {
            "camera_to_world": torch.from_numpy(np.stack([c.camera_to_world for c in cameras])),
            "intrinsics": torch.from_numpy(np.stack([c.intrinsics for c in cameras])),
            "rgb": flat[:, :3],
            "alpha": flat[:, 3:],
            "depth": F.avg_pool2d(depth, block).where(one, 0),
            "normals": F.normalize(F.avg_pool2d(normals, block), dim=1).where(one, 0),
        }
        return FitViews(**{name: value.to(device) for name, value in parts.items()})


def export_objects(root: str, snapshot_id: str | None, chosen: list[str], out: Path) -> list[Path]:
    """Write a file for each chosen object of a snapshot (all of them if none is chosen).

    By default of the newest snapshot. Raises BadInput if an object is not there or was built
    without geometry.
    """
    from core.storage import Storage
    from dataset.format.geometry import read_geometry
    from dataset.format.shards import read_members
    from dataset.snapshots.protection import manifests
    from dataset.snapshots.snapshot import open_snapshot

    storage = Storage(root)
    if snapshot_id is None:
        known = manifests(storage)
        if not known:
            raise BadInput(f"{root}: no snapshot: run `lrm snapshot --root {root}`")
        snapshot_id = known[-1]["snapshot"]
    samples = {sample.asset_id: sample for sample in open_snapshot(storage, snapshot_id).samples}
    missing = [name for name in chosen if name not in samples]
    if missing:
        raise BadInput(f"{', '.join(missing)}: not in snapshot {snapshot_id}")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in chosen or list(samples):
        sample = samples[name]
        if sample.geometry is None:
            raise BadInput(f"{name}: has no true surface: build the dataset with --geometry")
        surface = read_geometry(storage, sample.geometry)
        members = read_members(storage, sample.shard, sample.entry, sample.entry.members)
        files = {member: np.frombuffer(data, np.uint8) for member, data in members.items()}
        path = out / f"{sample.entry.key}.npz"
        rest = {
            "asset_id": np.array(name),
            "surface_points": surface.points,
            "surface_normals": surface.normals.astype(np.float16),
        }
        np.savez(path, **files, **rest)
        written.append(path)
    return written


def read_object(path: Path) -> FitObject:
    """Read what `export_objects` wrote. Raises WorkFailed if the file is missing or damaged."""
    try:
        with np.load(path) as archive:
            arrays = {key: archive[key] for key in archive.files}
        name = str(arrays.pop("asset_id"))
        points, normals = arrays.pop("surface_points"), arrays.pop("surface_normals")
    except (OSError, ValueError, KeyError) as error:
        raise WorkFailed(f"{path}: cannot be read: {error}") from error
    views, _ = decode_views({key: value.tobytes() for key, value in arrays.items()})
    normals = normals.astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return FitObject(name=name, views=views, points=points, normals=normals)
