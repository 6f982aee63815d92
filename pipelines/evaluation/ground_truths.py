"""The ground truth of an evaluation: a snapshot of a dataset, or a folder of GLB files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.errors import WorkFailed
from core.storage import Storage, storage_errors
from dataset.cameras import Camera
from dataset.format.geometry import read_geometry
from dataset.format.shards import read_members
from dataset.snapshots.snapshot import Sample
from dataset.views import decode_views
from pipelines.evaluation.evaluate_meshes import (
    WORLD,
    MeshFolder,
    Placement,
    object_name,
    surface_cloud,
)
from render.render_config import RENDERER_VERSION
from render.rigs import Rig
from train.evaluation.scores import Pictures, PointCloud

__all__ = ["FolderGroundTruths", "GroundTruth", "GroundTruths", "SnapshotGroundTruths"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """The true views and surface of an object."""

    name: str
    cameras: list[Camera]
    normalise: str
    """Normalisation of the object: `cube` or `sphere`."""
    pictures: Pictures
    """One picture per camera."""
    cloud: PointCloud | None
    """Points on the surface; None if the dataset has no geometry."""
    placement: Placement
    """The place of mesh files in the world: that of the object's own file, or unchanged."""


class GroundTruths(Protocol):
    """The ground truth of all objects, by name."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all objects, in order."""

    def categories(self, name: str) -> Sequence[str]:
        """Return the categories of an object, which may be none or several."""

    def identity(self, name: str) -> Any:
        """Return what determines the ground truth of an object, as plain values."""

    def load(self, name: str) -> GroundTruth:
        """Return the ground truth of an object. Raises LrmError."""


class SnapshotGroundTruths:
    """Ground truth from a snapshot: the stored views and companion geometry."""

    def __init__(self, root: Storage, samples: Sequence[Sample], num_points: int) -> None:
        self._root = root
        self._samples = {object_name(sample.asset_id): sample for sample in samples}
        self._num_points = num_points

    @property
    def names(self) -> Sequence[str]:
        """The names of all objects, in the order of the snapshot."""
        return list(self._samples)

    def categories(self, name: str) -> Sequence[str]:
        """Return the LVIS categories that the snapshot has for the object."""
        return self._samples[name].categories

    def identity(self, name: str) -> Any:
        """Return the identity of the object's render and of its geometry."""
        sample = self._samples[name]
        return [sample.sha256, sample.render_key, sample.entry.key, sample.geometry]

    def load(self, name: str) -> GroundTruth:
        """Read an object's views, and its geometry if the dataset has it. Raises LrmError."""
        sample = self._samples[name]
        try:
            members = read_members(self._root, sample.shard, sample.entry, sample.entry.members)
        except storage_errors(EOFError) as error:
            raise WorkFailed(f"{sample.asset_id}: cannot read its views: {error}") from error
        views, meta = decode_views(members)
        cloud = None
        if sample.geometry is not None:
            cloud = surface_cloud(read_geometry(self._root, sample.geometry), self._num_points)
        return GroundTruth(
            name=name,
            cameras=list(views.cameras),
            normalise=meta.get("normalise") or "cube",
            pictures=Pictures.from_rgba(views.rgba),
            cloud=cloud,
            placement=WORLD,
        )


class FolderGroundTruths:
    """Ground truth from a folder of GLB files, rendered with the cameras of a rig.

    Without a rig it has surfaces and no views.
    """

    def __init__(
        self, meshes: MeshFolder, rig: Rig | None, side: int, num_points: int, seed: int
    ) -> None:
        self._meshes, self._rig, self._side = meshes, rig, side
        self._num_points, self._seed = num_points, seed

    @property
    def names(self) -> Sequence[str]:
        """The names of all objects, sorted."""
        return self._meshes.names

    def categories(self, name: str) -> Sequence[str]:
        """Return nothing: files have no categories."""
        return ()

    def identity(self, name: str) -> Any:
        """Return the fingerprint of the object's file and the settings of its render."""
        rig = None if self._rig is None else [self._rig.name, self._rig.version]
        return [self._meshes.fingerprint(name), RENDERER_VERSION, rig, self._side, self._seed]

    def load(self, name: str) -> GroundTruth:
        """Render an object and sample its surface. Raises LrmError."""
        cameras = [] if self._rig is None else self._rig.cameras(name)
        normalise = "cube" if self._rig is None else self._rig.normalise
        rendered = self._meshes.render(
            name, cameras, normalise, self._side, self._num_points, self._seed
        )
        return GroundTruth(
            name=name,
            cameras=cameras,
            normalise=normalise,
            pictures=Pictures.from_rgba(rendered.views.rgba),
            cloud=surface_cloud(rendered.surface, self._num_points),
            placement=rendered.placement,
        )
