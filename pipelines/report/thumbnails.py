"""The pictures of a report: views of kept objects from shards, thumbnails of dropped objects.

Only dropped objects need Blender, one child for all of them. An object that cannot be shown gets
the cause instead of a picture.
"""

import base64
import hashlib
import io
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from core.errors import LrmError
from core.failures import FailureKind
from core.paths.scratch import scratch_folder
from core.storage import Storage
from dataset.cameras import Camera, camera_at, orbit_eye
from dataset.format.shards import SampleEntry, read_index, read_members
from dataset.views import META_MEMBER, decode_views
from pipelines.building.build_config import BuildConfig
from pipelines.report.gather import DroppedObject, KeptObject
from pipelines.sources import FetchFailed, is_hub, open_source
from render.contact_sheet import contact_sheet
from render.process import BlenderProcess, RenderFailure
from render.render_config import RenderConfig
from render.rigs import get_rig
from render.system_libraries import missing_packages

__all__ = ["Picture", "sheets", "thumbnails"]

_SHEET_VIEWS = 4
_SHEET_TILE = 96
_RENDER = RenderConfig(resolution=128, samples=4, texture_size=512)
_FIELD_OF_VIEW = 40
"""Degrees."""
_IMPORT_SECONDS = 30.0
_RENDER_SECONDS = 30.0
_TOTAL_SECONDS = 300.0
"""No thumbnail is started after this time."""
_UNREADABLE = (OSError, EOFError, ValueError, LrmError)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as a data URI, or the problem because of which there is none."""

    uri: str = ""
    problem: str = ""


def sheets(root: Storage, kept: Mapping[str, Sequence[KeptObject]]) -> dict[str, Picture]:
    """Return contact sheets of kept objects (by shard), by asset id.

    A sheet shows colour, depth and normals of the first views.
    """
    pictures: dict[str, Picture] = {}
    for shard, objects in kept.items():
        try:
            entries = {entry.key: entry for entry in read_index(root, shard)[0]}
        except _UNREADABLE as error:
            picture = Picture(problem=f"cannot read the index of its shard: {error}")
            pictures |= dict.fromkeys((item.asset_id for item in objects), picture)
        else:
            for item in objects:
                pictures[item.asset_id] = _sheet(root, item, entries.get(item.sample))
    return pictures


def _sheet(root: Storage, item: KeptObject, entry: SampleEntry | None) -> Picture:
    if entry is None:
        return Picture(problem="the index of its shard lacks the object")
    # The members of a view are stored together, so the first views are one byte range.
    views = tuple(f"{view:03d}." for view in range(_SHEET_VIEWS))
    names = [name for name in entry.members if name == META_MEMBER or name.startswith(views)]
    try:
        members = read_members(root, item.shard, entry, names)
        decoded, _ = decode_views(members, _SHEET_VIEWS)
    except _UNREADABLE as error:
        return Picture(problem=f"cannot read its views: {error}")
    return _encoded(contact_sheet(decoded, tile=_SHEET_TILE), quality=82)


def thumbnails(
    root: Storage,
    config: BuildConfig,
    dropped: Mapping[str, Sequence[DroppedObject]],
    total_seconds: float = _TOTAL_SECONDS,
) -> dict[str, Picture]:
    """Render one view of each dropped object (by reason); return the pictures by asset id.

    No object is started after `total_seconds`.
    """
    # One object of every reason, then the next of every reason, in case the time is too short.
    rounds = zip_longest(*dropped.values())
    objects = [item for some in rounds for item in some if item is not None]
    missing = missing_packages()
    if missing:
        picture = Picture(problem=f"Blender needs {', '.join(missing)} on this machine")
        return dict.fromkeys((item.asset_id for item in objects), picture)
    with _ThumbnailRenderer(root, config, total_seconds) as renderer:
        return {item.asset_id: renderer.picture(item) for item in objects}


class _ThumbnailRenderer:
    """A renderer of thumbnails, with one Blender child for all objects."""

    def __init__(self, root: Storage, config: BuildConfig, total_seconds: float) -> None:
        self._root = root
        self._rig = get_rig(config.rig)
        # A thumbnail is not worth a download, so the hub is not used.
        self._source = None if is_hub(config.source) else open_source(config.source)
        limits = {"import_seconds": _IMPORT_SECONDS, "render_seconds": _RENDER_SECONDS}
        blender = config.blender.model_copy(update=limits)
        self._blender = BlenderProcess(blender, glb_limits=config.inspect.glb_limits())
        self._deadline = time.monotonic() + total_seconds
        self._start_problem = ""
        """Why Blender does not start on this machine; empty if it does."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._blender.close()

    def picture(self, item: DroppedObject) -> Picture:
        """Return a picture of an object, or the problem because of which there is none."""
        if self._start_problem or time.monotonic() > self._deadline:
            return Picture(problem=self._start_problem or "the time limit for pictures was reached")
        with scratch_folder("thumbnail") as folder:
            path = Path(folder) / "object.glb"
            try:
                self._copy_file(item, path)
                # Lossless, because lossy colours under a sharp alpha bleed into the outline.
                return _encoded(Image.fromarray(self._render(path, item)), lossless=True)
            except (FetchFailed, OSError) as error:
                return Picture(problem=str(error))
            except RenderFailure as error:
                if error.kind == FailureKind.NO_START:
                    self._start_problem = f"Blender does not start on this machine: {error}"
                return Picture(problem=self._start_problem or f"{error.kind}: {error}")

    def _copy_file(self, item: DroppedObject, path: Path) -> None:
        """Copy an object's file if that needs no download. Raises FetchFailed, OSError."""
        if item.raw is not None and self._root.exists(item.raw):
            with self._root.open(item.raw) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 22)
        elif self._source is not None and self._source.is_local:
            self._source.fetch(item.path, item.version, path)
        else:
            raise FetchFailed(
                FailureKind.MISSING,
                "the dataset has no copy of its file, and a report downloads nothing",
            )
        if item.sha256 is not None:
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != item.sha256:
                    raise FetchFailed(
                        FailureKind.DOWNLOAD, "its file changed after it was evaluated"
                    )

    def _render(self, path: Path, item: DroppedObject) -> np.ndarray:
        self._blender.open(path, self._rig.normalise)
        cameras = self._rig.cameras(item.asset_id)
        camera = _front() if item.view is None else cameras[item.view]
        return self._blender.render([camera], _RENDER)[0].rgba[0]


def _front() -> Camera:
    """Return a camera at the front right, above; it sees [-1, 1]^3, perhaps not its corners."""
    return camera_at(orbit_eye(-60, 20, 4.0), _FIELD_OF_VIEW)


def _encoded(image: Image.Image, **options: Any) -> Picture:
    out = io.BytesIO()
    image.save(out, "webp", method=6, **options)
    return Picture(uri=f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}")
