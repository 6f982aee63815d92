"""Meshes of pictures, each from one picture alone."""

import dataclasses
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.confined.confined_process import ConfinedProcess
from core.errors import BadInput, LrmError, first_line
from core.outputs import writing
from core.quantities import counted, short_duration
from pipelines.building.progress import Display
from train.inference.input_pictures import check_not_empty, decode_file, on_white
from train.inference.mesh_files import write_mesh
from train.inference.picture_camera import PictureCamera
from train.inference.query import prepare_query
from train.inference.reconstruction import Reconstructor
from train.inference.six_views import camera_tensors, stack_views

__all__ = ["PictureReconstructor", "mesh_paths"]

_SECONDS_BETWEEN_LINES = 10.0


def mesh_paths(pictures: Sequence[Path], folder: Path, ending: str) -> dict[Path, Path]:
    """Return the mesh file of each picture, named after it.

    Raises BadInput if two pictures have the same name.
    """
    by_name: dict[str, Path] = {}
    for picture in pictures:
        other = by_name.setdefault(picture.stem, picture)
        if other is not picture:
            raise BadInput(
                f"{other} and {picture} would both become {picture.stem}.{ending}; rename one of "
                "them or give them in two calls"
            )
    return {picture: folder / f"{name}.{ending}" for name, picture in by_name.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureReconstructor:
    """A model that takes one picture, and how pictures are prepared and meshes written."""

    model: Reconstructor
    camera: PictureCamera
    azimuth: float
    """Azimuth of the camera in the frame of the mesh, in degrees."""
    keep_framing: bool
    texture: int | None

    def write(self, picture: Path, out: Path, decoder: ConfinedProcess) -> dict[str, Any]:
        """Write the mesh of a picture, and return its properties as plain values.

        Raises LrmError.
        """
        query = prepare_query(decode_file(picture, decoder), keep_framing=self.keep_framing)
        if query.background == "kept":
            print(
                f"{picture}: used unchanged, because it has no alpha channel and no plain "
                "background; install rembg to mask such pictures",
                file=sys.stderr,
            )
        check_not_empty(on_white(query.image), str(picture))
        images = stack_views([query.image], self.model.image_size)
        result = self.model.reconstruct(images, *camera_tensors([self.camera.camera()]))
        with writing(out):
            written = write_mesh(result.shape, out, texture=self.texture, azimuth=self.azimuth)
        report = {"out": str(out), **dataclasses.asdict(written), "distance": self.camera.distance}
        camera = {"azimuth": self.azimuth, **dataclasses.asdict(self.camera)}
        return report | {"camera": camera, "scale": result.scale, "background": query.background}

    def write_all(self, outs: Mapping[Path, Path]) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """Write the meshes of pictures; return the written ones, and why the others failed.

        Progress is printed.
        """
        written: list[dict[str, Any]] = []
        failed: dict[str, str] = {}
        display = Display(interval=_SECONDS_BETWEEN_LINES)
        try:
            with ConfinedProcess("decoding") as decoder:
                for number, (picture, out) in enumerate(outs.items()):
                    line = _progress(number, len(outs), failed, display.started)
                    display.show(lambda line=line: line)  # type: ignore[misc]
                    try:
                        report = self.write(picture, out, decoder)
                    except (LrmError, ValueError, RuntimeError) as error:
                        # As in `lrm evaluate`: a library cannot handle this picture, or a device is
                        # out of memory. Others may succeed.
                        failed[str(picture)] = first_line(error).removeprefix(f"{picture}: ")
                    else:
                        written.append({"picture": str(picture)} | report)
            display.end(_progress(len(outs), len(outs), failed, display.started))
        finally:
            display.close()
        return written, failed


def _progress(done: int, total: int, failed: Iterable[str], started: float) -> str:
    parts = [f"{done} of {counted(total, 'picture')}"]
    if failed := list(failed):
        parts.append(f"{len(failed)} failed")
    if 0 < done < total:
        left = (time.monotonic() - started) / done * (total - done)
        parts.append(f"{short_duration(left)} left")
    return ", ".join(parts)
