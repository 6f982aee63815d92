"""The stages of a build: each does one thing to one object and says what came of it.

They know nothing of Ray: the same functions run in this process, in a Ray worker or in a test.
"""

import hashlib
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dataset.catalog import Event
from dataset.errors import WorkFailed
from dataset.objects import sample_key
from dataset.shards import (
    index_path,
    read_sample_tar,
    scan_tar,
    write_index,
    write_sample_tar,
    write_tar,
)
from dataset.storage import Storage
from dataset.views import encode_views
from filters.inspect_glb import GlbRefused, inspect_glb
from filters.islands import measure_islands
from pipelines.settings import BuildConfig
from pipelines.sources import FetchFailed, Source
from pipelines.state import Decider, ObjectState
from render.check import check_views
from render.process import BlenderProcess, RenderFailure
from render.rigs import get_rig
from render.scratch import remove_orphans, scratch_folder

__all__ = ["Workshop", "advance", "pack"]

_LANES = {"fetch": ("fetch", "inspect"), "render": ("measure", "render")}
"""Stages that one task may do for an object, one after the other: they share a file or a scene."""


class Workshop:
    """What a worker keeps between tasks: the configuration, the storages, a scratch folder and a
    Blender child, which starts at the first use."""

    def __init__(self, config: BuildConfig, source: Source) -> None:
        self.config = config
        self.source = source
        self.decider = Decider(config)
        self.root = Storage(config.root)
        self.rig = get_rig(config.rig)
        self.keep_raw = not source.is_local if config.keep_raw is None else config.keep_raw
        remove_orphans()
        self._scratch = scratch_folder("work")
        self._opened: tuple[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the Blender child and remove the scratch folder."""
        if "blender" in self.__dict__:
            self.blender.close()
        self._scratch.cleanup()

    @cached_property
    def blender(self) -> BlenderProcess:
        """This worker's Blender child."""
        return BlenderProcess(self.config.blender)

    @contextmanager
    def scratch_file(self, name: str) -> Iterator[Path]:
        """A path for a temporary file."""
        path = Path(self._scratch.name) / name
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def glb(self, state: ObjectState) -> Iterator[Path]:
        """The object's file on local disk, with the very bytes that were fetched.

        Raises FetchFailed if they cannot be had any more.
        """
        fetched = state.results["fetch"].data
        with self.scratch_file(f"{fetched['sha256']}.glb") as path:
            if fetched["raw"] is not None:
                try:
                    with self.root.open(fetched["raw"]) as source, open(path, "wb") as file:
                        shutil.copyfileobj(source, file, 1 << 22)
                except FileNotFoundError:
                    self.source.fetch(state.record.path, path)
            else:
                self.source.fetch(state.record.path, path)
            if _sha256(path) != fetched["sha256"]:
                raise FetchFailed("download", f"{state.record.path} changed since it was fetched")
            yield path

    def open_scene(self, state: ObjectState) -> dict[str, Any]:
        """Load the object into Blender, unless it is the one that lies there; what was found."""
        sha256 = state.results["fetch"].data["sha256"]
        if self._opened is None or self._opened[0] != sha256 or not self.blender.has_scene:
            self._opened = None
            with self.glb(state) as path:
                report = self.blender.open(path, self.rig.normalise)
            self._opened = (sha256, asdict(report))
        return dict(self._opened[1])


def fetch(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Bring the object's file here, hash it, and keep it below the root if asked to."""
    with shop.scratch_file(f"{sample_key(state.record.asset_id)[:100]}.fetch") as path:
        shop.source.fetch(state.record.path, path)
        sha256 = _sha256(path)
        raw = f"raw/{sha256[:2]}/{sha256}.glb" if shop.keep_raw else None
        if raw is not None and not shop.root.exists(raw):
            shop.root.put(raw, path)
        return {"sha256": sha256, "bytes": path.stat().st_size, "raw": raw}


def inspect(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Read the file's structure without a 3D program."""
    with shop.glb(state) as path:
        return inspect_glb(path, shop.config.inspect).to_dict()


def measure(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Measure silhouettes at the rig's own cameras, and how many separate objects there are."""
    scene = shop.open_scene(state)
    measured = shop.blender.measure(shop.rig.cameras(state.record.asset_id))
    return {
        "scene": scene,
        "coverage": [round(float(share), 6) for share in measured.coverage],
        "islands": measure_islands(measured.points),
    }


def render(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Render all views, check them, and lay them ready for packing."""
    scene = shop.open_scene(state)
    cameras = shop.rig.cameras(state.record.asset_id)
    views, timings = shop.blender.render(cameras, shop.config.render)
    check_views(views)
    started = time.monotonic()
    meta = {
        "asset_id": state.record.asset_id,
        "sha256": state.results["fetch"].data["sha256"],
        "rig": shop.rig.name,
        "normalise": shop.rig.normalise,
        "render_key": shop.decider.key("render", state),
    }
    members = dict(encode_views(views, meta))
    sample = write_sample_tar(sample_key(state.record.asset_id), members)
    staging = f"staging/{meta['render_key']}.tar"
    shop.root.write(staging, sample)
    return {
        "staging": staging,
        "bytes": sum(len(data) for data in members.values()),
        "coverage": [round(float((rgba[..., 3] > 127).mean()), 6) for rgba in views.rgba],
        "timings": {**scene.get("timings", {}), **timings, "encode": time.monotonic() - started},
    }


_STAGES: dict[str, Callable[[ObjectState, Workshop], dict[str, Any]]] = {
    "fetch": fetch,
    "inspect": inspect,
    "measure": measure,
    "render": render,
}


def advance(state: ObjectState, lane: str, shop: Workshop) -> list[Event]:
    """Do for one object all the stages of a lane that it needs, and that its verdicts allow.

    Never raises for the object's sake: what goes wrong with it is a failed event.
    """
    events: list[Event] = []
    while True:
        stage = shop.decider.decide(state).stage
        if stage not in _LANES[lane] or any(event.stage == stage for event in events):
            return events
        started = time.monotonic()
        outcome = _attempt(stage, state, shop)
        event = shop.decider.event(
            stage, state, seconds=round(time.monotonic() - started, 3), **outcome
        )
        state = state.with_event(event)
        events.append(event)


def _attempt(stage: str, state: ObjectState, shop: Workshop) -> dict[str, Any]:
    try:
        return {"data": _STAGES[stage](state, shop)}
    except (FetchFailed, GlbRefused) as error:
        return {"status": "failed", "kind": error.kind, "message": error.message}
    except RenderFailure as error:
        data = {"log_tail": error.log_tail}
        return {"status": "failed", "kind": error.kind, "message": str(error), "data": data}
    except OSError as error:
        return {"status": "failed", "kind": "storage", "message": f"{stage}: {error}"}
    except Exception as error:  # noqa: BLE001 - the unforeseen costs the object, never the batch
        data = {"log_tail": traceback.format_exc()[-4096:]}
        message = f"{stage}: {type(error).__name__}: {error}"
        return {"status": "failed", "kind": "internal_error", "message": message, "data": data}


@dataclass(frozen=True)
class _Staged:
    state: ObjectState
    key: str
    members: dict[str, bytes]


def pack(states: Sequence[ObjectState], shop: Workshop) -> list[Event]:
    """Write the rendered samples of several objects as one shard with its index.

    The shard is named by its contents, so repeating a pack repeats the same file. An object whose
    rendered sample is gone gets a failed render event and is rendered again by the next build.
    """
    events: list[Event] = []
    staged: list[_Staged] = []
    started = time.monotonic()
    for state in states:
        rendered = state.results["render"]
        try:
            key, members = read_sample_tar(shop.root.read(rendered.data["staging"]))
            if key != sample_key(state.record.asset_id):
                raise WorkFailed(f"{rendered.data['staging']} holds {key}")
            staged.append(_Staged(state, key, members))
        except (OSError, WorkFailed) as error:
            lost = {"status": "failed", "kind": "staging_lost", "message": str(error)}
            events.append(shop.decider.event("render", state, **lost))
    if not staged:
        return events
    names = "\n".join(shop.decider.key("pack", item.state) for item in staged)
    name = hashlib.sha256(names.encode()).hexdigest()[:16]
    shard = f"shards/{shop.rig.name}/{name}.tar"
    try:
        digest = _write_shard(shard, staged, shop)
    except (OSError, WorkFailed) as error:
        unwritten = {"status": "failed", "kind": "storage", "message": f"{shard}: {error}"}
        return events + [shop.decider.event("pack", item.state, **unwritten) for item in staged]
    seconds = round((time.monotonic() - started) / len(staged), 3)
    for item in staged:
        data = {"shard": shard, "sample": item.key, "shard_sha256": digest}
        events.append(shop.decider.event("pack", item.state, data=data, seconds=seconds))
    return events


def _write_shard(shard: str, staged: Sequence[_Staged], shop: Workshop) -> str:
    """Write a shard and its index; the index describes what was written, not what was meant."""
    with shop.scratch_file("shard.tar") as path:
        with open(path, "wb") as file:
            write_tar(file, ((item.key, item.members) for item in staged))
        with open(path, "rb") as file:
            entries = list(scan_tar(file))
        if [entry.key for entry in entries] != [item.key for item in staged]:
            raise WorkFailed(f"{shard}: the shard does not hold the samples that were written")
        digest = _sha256(path)
        index = write_index(entries, digest, path.stat().st_size)
        shop.root.put(shard, path)
        # The index comes last: a shard counts when it has one.
        shop.root.write(index_path(shard), index)
    return digest


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
