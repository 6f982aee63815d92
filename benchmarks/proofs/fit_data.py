"""The data of `fit_object`: files with the views and the true surface of one object.

Such a file contains the members of the sample as the shard does, lossless, and the points of the
companion geometry. It can be read without the dataset.
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
"""Largest depth difference of neighbouring pixels on one surface; beyond it no mean is taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FitViews:
    """Views of one object in the form that losses compare, in the dataset's conventions."""

    camera_to_world: Float[Tensor, "v 4 4"]
    intrinsics: Float[Tensor, "v 4"]
    rgb: Float[Tensor, "v 3 s s"]
    """Composited on white."""
    alpha: Float[Tensor, "v 1 s s"]
    depth: Float[Tensor, "v 1 s s"]
    """Planar depth; 0 for background, and where scaling down would mix two surfaces."""
    normals: Float[Tensor, "v 3 s s"]

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def size(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return self.rgb.shape[-2], self.rgb.shape[-1]

    def select(self, views: Tensor) -> "FitViews":
        """Return the views that an index or a mask selects."""
        return FitViews(**{name: value[views] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class FitObject:
    """One object to fit."""

    name: str
    """The asset id."""
    views: ViewSet
    points: Float32[np.ndarray, "n 3"]
    """Points spread evenly over the true surface, in random order."""
    normals: Float32[np.ndarray, "n 3"]
    """Normals of the triangles at the points, by winding."""

    def at_size(self, side: int, device: torch.device) -> FitViews:
        """Return the views scaled down to `side` pixels. Raises BadInput if this is no divisor.

        Depth and normals of a block of pixels are the mean if the block shows one surface,
        otherwise 0.
        """
        rgba = torch.from_numpy(self.views.rgba).permute(0, 3, 1, 2).float() / 255
        depth = torch.from_numpy(self.views.depth)[:, None]
        normals = torch.from_numpy(self.views.normals).permute(0, 3, 1, 2)
        block, remainder = divmod(rgba.shape[-1], side)
        if remainder or not block:
            raise BadInput(f"{self.name}: size {side} does not divide {rgba.shape[-1]} pixels")
        alpha = rgba[:, 3:]
        colours = torch.cat([rgba[:, :3] * alpha + (1 - alpha), alpha], dim=1)
        colours = F.avg_pool2d(colours, block)
        highest, lowest = F.max_pool2d(depth, block), -F.max_pool2d(-depth, block)
        is_one_surface = (lowest > 0) & (highest - lowest <= _LARGEST_STEP * block)
        cameras = self.views.cameras
        parts = {
            "camera_to_world": torch.from_numpy(np.stack([c.camera_to_world for c in cameras])),
            "intrinsics": torch.from_numpy(np.stack([c.intrinsics for c in cameras])),
            "rgb": colours[:, :3],
            "alpha": colours[:, 3:],
            "depth": F.avg_pool2d(depth, block).where(is_one_surface, 0),
            "normals": F.normalize(F.avg_pool2d(normals, block), dim=1).where(is_one_surface, 0),
        }
        return FitViews(**{name: value.to(device) for name, value in parts.items()})


def export_objects(root: str, snapshot: str, chosen: list[str], out: Path) -> list[Path]:
    """Write one file for each of the `chosen` objects of a snapshot, or for all if it is empty.

    Raises BadInput if an object is not in the snapshot or was built without geometry.
    """
    from core.storage import Storage
    from dataset.format.geometry import read_geometry
    from dataset.format.shards import read_members
    from dataset.snapshots.snapshot import open_snapshot

    storage = Storage(root)
    samples = {sample.asset_id: sample for sample in open_snapshot(storage, snapshot).samples}
    missing = [name for name in chosen if name not in samples]
    if missing:
        raise BadInput(f"{', '.join(missing)}: not in snapshot {snapshot}")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in chosen or list(samples):
        sample = samples[name]
        if sample.geometry is None:
            raise BadInput(f"{name} has no stored surface; build the dataset with --geometry")
        surface = read_geometry(storage, sample.geometry)
        members = read_members(storage, sample.shard, sample.entry, sample.entry.members)
        files = {member: np.frombuffer(data, np.uint8) for member, data in members.items()}
        path = out / f"{sample.entry.key}.npz"
        arrays = {
            "asset_id": np.array(name),
            "surface_points": surface.points,
            "surface_normals": surface.normals.astype(np.float16),
        }
        np.savez(path, **files, **arrays)
        written.append(path)
    return written


def read_object(path: Path) -> FitObject:
    """Read a file of `export_objects`. Raises WorkFailed if it is missing or damaged."""
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
