"""The pictures of a report: views of kept objects from their shards, thumbnails of dropped ones.

Only dropped objects need Blender, one child for all of them. What cannot be shown says why.
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
from render.scratch import scratch_folder
from render.system_libraries import missing_packages

__all__ = ["Picture", "sheets", "thumbnails"]

_SHEET_VIEWS = 4
_SHEET_TILE = 96
_RENDER = RenderConfig(resolution=128, samples=4, texture_size=512)
_FIELD_OF_VIEW = 40
_IMPORT_SECONDS = 30.0
_RENDER_SECONDS = 30.0
_TOTAL_SECONDS = 300.0
"""After so long no further thumbnail is begun."""
_UNREADABLE = (OSError, EOFError, ValueError, LrmError)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as a data URI, or why there is none."""

    uri: str = ""
    missing: str = ""


def sheets(root: Storage, kept: Mapping[str, Sequence[KeptObject]]) -> dict[str, Picture]:
    """Colour, depth and normals of the first views of kept objects (by shard), by asset id."""
    found: dict[str, Picture] = {}
    for shard, objects in kept.items():
        try:
            entries = {entry.key: entry for entry in read_index(root, shard)[0]}
        except _UNREADABLE as error:
            why = Picture(missing=f"the index of its shard is unreadable: {error}")
            found |= dict.fromkeys((item.asset_id for item in objects), why)
        else:
            for item in objects:
                found[item.asset_id] = _sheet(root, item, entries.get(item.sample))
    return found


def _sheet(root: Storage, item: KeptObject, entry: SampleEntry | None) -> Picture:
    if entry is None:
        return Picture(missing="it is not in the index of its shard")
    # Members lie view by view: this is one range of the shard, and its metadata.
    views = tuple(f"{view:03d}." for view in range(_SHEET_VIEWS))
    wanted = [name for name in entry.members if name == META_MEMBER or name.startswith(views)]
    try:
        members = read_members(root, item.shard, entry, wanted)
        decoded, _ = decode_views(members, _SHEET_VIEWS)
    except _UNREADABLE as error:
        return Picture(missing=f"its views are unreadable: {error}")
    return _encoded(contact_sheet(decoded, tile=_SHEET_TILE), quality=82)


def thumbnails(
    root: Storage,
    config: BuildConfig,
    dropped: Mapping[str, Sequence[DroppedObject]],
    total_seconds: float = _TOTAL_SECONDS,
) -> dict[str, Picture]:
    """One view of each dropped object (by reason), by asset id: rendered now, as time permits."""
    # A few of every reason are better than all of the first: one of each, then the next.
    rounds = zip_longest(*dropped.values())
    objects = [item for some in rounds for item in some if item is not None]
    missing = missing_packages()
    if missing:
        why = Picture(missing=f"Blender needs {', '.join(missing)} on this machine")
        return dict.fromkeys((item.asset_id for item in objects), why)
    with _Studio(root, config, total_seconds) as studio:
        return {item.asset_id: studio.picture(item) for item in objects}


class _Studio:
    """One Blender child that takes a picture of one object after the other."""

    def __init__(self, root: Storage, config: BuildConfig, total_seconds: float) -> None:
        self._root = root
        self._rig = get_rig(config.rig)
        # A hub would be asked over the network, for what only a look is wanted of.
        self._source = None if is_hub(config.source) else open_source(config.source)
        limits = {"import_seconds": _IMPORT_SECONDS, "render_seconds": _RENDER_SECONDS}
        blender = config.blender.model_copy(update=limits)
        self._blender = BlenderProcess(blender, glb_limits=config.inspect.glb_limits())
        self._ends = time.monotonic() + total_seconds
        self._broken = ""
        """Why this machine takes no pictures at all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._blender.close()

    def picture(self, item: DroppedObject) -> Picture:
        """A picture of an object, or why there is none."""
        if self._broken or time.monotonic() > self._ends:
            return Picture(missing=self._broken or "the time for pictures was used up")
        with scratch_folder("thumbnail") as folder:
            path = Path(folder) / "object.glb"
            try:
                self._bring(item, path)
                # Lossy colour under a sharp alpha bleeds into the outline.
                return _encoded(Image.fromarray(self._render(path, item)), lossless=True)
            except (FetchFailed, OSError) as error:
                return Picture(missing=str(error))
            except RenderFailure as error:
                if error.kind == FailureKind.NO_START:
                    self._broken = f"Blender does not start here: {error}"
                return Picture(missing=self._broken or f"{error.kind}: {error}")

    def _bring(self, item: DroppedObject, path: Path) -> None:
        """Copy the object's file here, if that needs no download. Raises FetchFailed, OSError."""
        if item.raw is not None and self._root.exists(item.raw):
            with self._root.open(item.raw) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 22)
        elif self._source is not None and self._source.is_local:
            self._source.fetch(item.path, item.version, path)
        else:
            raise FetchFailed(
                FailureKind.MISSING, "its file is not here, and was not downloaded for this"
            )
        if item.sha256 is not None:
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != item.sha256:
                    raise FetchFailed(FailureKind.DOWNLOAD, "its file changed since it was judged")

    def _render(self, path: Path, item: DroppedObject) -> np.ndarray:
        self._blender.open(path, self._rig.normalise)
        cameras = self._rig.cameras(item.asset_id)
        camera = _front() if item.view is None else cameras[item.view]
        return self._blender.render([camera], _RENDER)[0].rgba[0]


def _front() -> Camera:
    """Return a camera in front, right and above: it sees [-1, 1]^3, perhaps without corners."""
    return camera_at(orbit_eye(-60, 20, 4.0), _FIELD_OF_VIEW)


def _encoded(image: Image.Image, **options: Any) -> Picture:
    out = io.BytesIO()
    image.save(out, "webp", method=6, **options)
    return Picture(uri=f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}")
