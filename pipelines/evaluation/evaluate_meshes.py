"""Mesh files that Blender renders and samples, as ground truth or as predictions."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from core.confined.confined_process import ConfinedFailure, ConfinedProcess
from core.errors import BadInput, WorkFailed
from core.paths.regular_file import require_regular
from core.paths.scratch import scratch_folder
from dataset.cameras import Camera
from dataset.format.geometry import SurfaceGeometry
from dataset.views import ViewSet
from glb.limits import GlbLimits
from pipelines.evaluation.evaluate_log import file_fingerprint
from render.frames import empty_views
from render.process import BlenderProcess, RenderFailure
from render.render_config import RenderConfig
from train.evaluation.scores import PointCloud

__all__ = ["WORLD", "MeshFolder", "Placement", "RenderedMesh", "object_name", "surface_cloud"]

_SUFFIXES = (".glb", ".obj", ".ply")
_READ_SECONDS, _READ_BYTES = 120.0, 8 << 30
"""Limits on the time and memory of the process that reads a mesh file."""
_SOURCE = re.compile(r"^(objaverse|folder)[:-]")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The place in the world of a file's coordinates, with z up: (point - centre) * scale."""

    scale: float
    centre: tuple[float, float, float]

    def moved_to(self, other: "Placement", cloud: PointCloud) -> PointCloud:
        """Return a cloud of this world where its file's coordinates are in the other world."""
        if self == other:
            return cloud  # unchanged to the last digit
        factor = other.scale / self.scale
        shift = (np.array(self.centre) - np.array(other.centre)) * other.scale
        return PointCloud(
            points=cloud.points * factor + shift,
            low=cloud.low * factor + shift,
            high=cloud.high * factor + shift,
        )


WORLD = Placement(scale=1.0, centre=(0.0, 0.0, 0.0))
"""The place of files whose coordinates are those of the world."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedMesh:
    """The views and the surface points of a mesh file, in the normalised frame."""

    views: ViewSet
    surface: SurfaceGeometry
    placement: Placement
    """The place of the file in that frame."""


class MeshFolder:
    """The mesh files of a folder, by the names of their objects, and a child to render them."""

    def __init__(self, folder: Path, blender: BlenderProcess) -> None:
        """List the folder. Raises BadInput if it has no meshes, or two for one object."""
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder of mesh files")
        self._paths: dict[str, Path] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _SUFFIXES:
                try:
                    require_regular(path)
                except OSError as error:
                    raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
                name = object_name(path.stem)
                if name in self._paths:
                    raise BadInput(
                        f"{folder}: {self._paths[name].name} and {path.name} are both "
                        f"meshes of the object {name}: remove one of them"
                    )
                self._paths[name] = path
        if not self._paths:
            raise BadInput(f"{folder}: holds no mesh ({', '.join(_SUFFIXES)})")
        self._blender = blender
        # It ends with this process at the latest.
        self._reader = ConfinedProcess("reading a mesh")

    @property
    def names(self) -> list[str]:
        """The names of all objects, sorted."""
        return sorted(self._paths)

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def fingerprint(self, name: str) -> Any:
        """Return the fingerprint of an object's file, to detect changes."""
        return file_fingerprint(self._paths[name])

    def render(
        self,
        name: str,
        cameras: list[Camera],
        normalise: str,
        side: int,
        num_points: int,
        seed: int,
    ) -> RenderedMesh:
        """Return an object's views, `side` pixels wide, and points on its surface.

        Without cameras nothing is rendered. Raises WorkFailed with the file and the cause.
        """
        path = self._paths[name]
        try:
            with scratch_folder("mesh") as scratch:
                scene = self._blender.open(self._as_glb(path, Path(scratch)), normalise)
                surface = self._blender.geometry(num_points, seed)
                views = empty_views([], side)
                if cameras:
                    views, _ = self._blender.render(cameras, RenderConfig(resolution=side))
        except RenderFailure as error:
            raise WorkFailed(f"{path}: {error.kind}: {error}") from error
        x, y, z = scene.centre
        placement = Placement(scale=scene.scale, centre=(x, y, z))
        return RenderedMesh(views=views, surface=surface, placement=placement)

    def _as_glb(self, path: Path, scratch: Path) -> Path:
        """Return a mesh file as a GLB, which is read in a confined process. Raises WorkFailed."""
        try:
            is_changed, data = self._reader.run(
                "train.inference.unlit_glb:mesh_as_glb",
                str(path.absolute()),
                seconds=_READ_SECONDS,
                max_bytes=_READ_BYTES,
                max_answer=GlbLimits.max_file_bytes,
            )
        except ConfinedFailure as error:
            raise WorkFailed(f"{path}: cannot read this file as a mesh: {error}") from error
        if not is_changed:
            return path
        target = scratch / "mesh.glb"
        target.write_bytes(data)
        return target


def object_name(stem: str) -> str:
    """Return the name by which meshes and ground truth are matched: the id without its source.

    `objaverse:UID`, `objaverse-UID` (the key of its sample) and `UID` are the same object.
    """
    return unquote(_SOURCE.sub("", stem))


def surface_cloud(surface: SurfaceGeometry, num_points: int) -> PointCloud:
    """Return the first `num_points` points of a surface; any part of them is an even sample.

    Raises WorkFailed if the surface has fewer points.
    """
    if len(surface.points) < num_points:
        raise WorkFailed(
            f"the geometry has {len(surface.points)} points, but --points {num_points} are "
            "compared: use fewer, or build with a larger --surface.points"
        )
    return PointCloud.from_surface(
        surface.points[:num_points], surface.vertices[np.unique(surface.faces)]
    )
