"""Objects as files: rendered and sampled by Blender, as the ground truth and as a prediction."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import trimesh

from core.errors import BadInput, WorkFailed
from dataset.cameras import Camera
from dataset.format.geometry import SurfaceGeometry
from dataset.views import ViewSet
from pipelines.evaluation.evaluate_log import state_of
from render.process import BlenderProcess, RenderFailure
from render.render_config import RenderConfig
from train.evaluation.scores import Cloud
from train.inference.mesh_files import as_unlit_glb, shown_unlit

__all__ = ["MeshFolder", "Rendered", "cloud_of", "object_name"]

_ENDINGS = (".glb", ".obj", ".ply")
_SOURCE = re.compile(r"^(objaverse|folder)[:-]")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendered:
    """What Blender made of a file."""

    views: ViewSet
    surface: SurfaceGeometry


class MeshFolder:
    """Meshes by the names of their objects, and the Blender child that shows them."""

    def __init__(self, folder: Path, blender: BlenderProcess) -> None:
        """Raises BadInput if there are none."""
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder of meshes")
        self._paths: dict[str, Path] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _ENDINGS:
                name = object_name(path.stem)
                if name in self._paths:
                    raise BadInput(
                        f"{folder}: {self._paths[name].name} and {path.name} are both "
                        f"meshes of {name}"
                    )
                self._paths[name] = path
        if not self._paths:
            raise BadInput(f"{folder}: holds no {', '.join(_ENDINGS)}")
        self._blender = blender

    @property
    def names(self) -> list[str]:
        """Of all objects, sorted."""
        return sorted(self._paths)

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def state(self, name: str) -> Any:
        """What tells its file from another one of that name."""
        return state_of(self._paths[name])

    def show(
        self,
        name: str,
        cameras: list[Camera],
        normalise: str,
        side: int,
        num_points: int,
        seed: int,
    ) -> Rendered:
        """Its views, `side` pixels wide, and points on its surface.

        Raises WorkFailed naming the file and the cause.
        """
        path = self._paths[name]
        try:
            with tempfile.TemporaryDirectory() as scratch:
                self._blender.open(_as_glb(path, Path(scratch)), normalise)
                surface = self._blender.geometry(num_points, seed)
                views, _ = self._blender.render(cameras, RenderConfig(resolution=side))
        except RenderFailure as error:
            raise WorkFailed(f"{path}: {error.kind}: {error}") from error
        return Rendered(views=views, surface=surface)


def object_name(stem: str) -> str:
    """The name under which meshes and truth find each other: the asset id without its source.

    `objaverse:UID`, `objaverse-UID` (as its sample's key is written) and `UID` are one object.
    """
    return unquote(_SOURCE.sub("", stem))


def cloud_of(surface: SurfaceGeometry, num_points: int) -> Cloud:
    """The first points of a surface: any part of its list is an even sample."""
    if len(surface.points) < num_points:
        raise WorkFailed(
            f"its geometry has {len(surface.points)} points, and {num_points} are compared"
        )
    return Cloud.on(surface.points[:num_points], surface.vertices[np.unique(surface.faces)])


def _as_glb(path: Path, scratch: Path) -> Path:
    """The file as Blender's child reads it; what `lrm reconstruct` coloured is shown unlit."""
    target = scratch / "mesh.glb"
    if path.suffix.lower() == ".glb":
        data = path.read_bytes()
        shown = shown_unlit(data)
        if shown == data:
            return path
        target.write_bytes(shown)
        return target
    try:
        mesh = trimesh.load_mesh(path)
        target.write_bytes(as_unlit_glb(mesh, z_up=path.suffix.lower() == ".ply"))
    except (ValueError, OSError, KeyError, IndexError, TypeError) as error:
        raise WorkFailed(f"{path}: cannot be read as a mesh: {error}") from error
    return target
