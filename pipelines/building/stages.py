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
from typing import Any, Self, TypeVar

from core.errors import WorkFailed
from core.storage import Storage, storage_errors
from dataset.catalog.event_log import Event
from dataset.format.geometry import geometry_path, write_geometry
from dataset.format.shards import read_sample_tar, write_sample_tar, write_shard
from dataset.maintenance.repair import restore_shard
from dataset.object_record import sample_key
from dataset.views import ViewSet, depth_scale_for, encode_meta, encode_view
from filters.inspect_glb import GlbRefused, inspect_glb
from filters.islands import measure_islands
from filters.thickness import thickness
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decider, ObjectState
from pipelines.sources import FetchFailed, Source
from pipelines.transfers.outcome import file_sha256
from render.check import check_views
from render.process import BlenderProcess, RenderFailure
from render.rigs import get_rig
from render.scratch import remove_orphans, scratch_folder

__all__ = ["Workshop", "advance", "pack"]

T = TypeVar("T")
_MACHINE = frozenset({"killed", "no_device", "no_space", "no_start", "storage"})
"""Kinds of failure that say nothing of the object."""
_PAUSE_SECONDS = 5.0
"""Before the first repetition; before the second four times as long."""
_LANES = {"fetch": ("fetch", "inspect"), "render": ("measure", "render", "geometry")}
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
        self._opened: tuple[str, dict[str, Any]] | None = None
        self._kept: tuple[str, Path] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the Blender child and remove the scratch folder."""
        if "blender" in self.__dict__:
            self.blender.close()
        self._scratch.cleanup()

    @cached_property
    def blender(self) -> BlenderProcess:
        """This worker's Blender child."""
        return BlenderProcess(self.config.blender, self.config.render.device)

    @contextmanager
    def scratch_file(self, name: str) -> Iterator[Path]:
        """A path for a temporary file."""
        path = Path(self._scratch.name) / name
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep_glb(self, path: Path, sha256: str) -> Path:
        """Take a verified file over, for the stages that come next; one is kept at a time."""
        self.drop_glb()
        kept = path.replace(path.with_name(f"{sha256}.glb"))
        self._kept = (sha256, kept)
        return kept

    def drop_glb(self) -> None:
        """Remove the file that is kept."""
        if self._kept is not None:
            self._kept[1].unlink(missing_ok=True)
        self._kept = None

    def glb(self, state: ObjectState) -> Path:
        """The object's file on local disk, with the very bytes that were fetched; it is kept.

        Raises FetchFailed if they cannot be had any more.
        """
        sha256, raw = state.get("fetch", "sha256"), state.get("fetch", "raw")
        if self._kept is not None and self._kept[0] == sha256:
            return self._kept[1]
        self.drop_glb()
        with self.scratch_file(f"{sha256}.part") as path:
            try:
                if raw is None:
                    raise FileNotFoundError
                with self.root.open(raw) as source, open(path, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 22)
            except FileNotFoundError:
                self.source.fetch(state.record.path, state.get("list", "version"), path)
            if file_sha256(path) != sha256:
                raise FetchFailed("changed", f"{state.record.path} changed since it was fetched")
            return self.keep_glb(path, sha256)

    def open_scene(self, state: ObjectState) -> tuple[dict[str, Any], dict[str, float]]:
        """Load the object into Blender, unless it is the one that lies there.

        Returns what was found in it, and the seconds that were spent now.
        """
        sha256 = state.get("fetch", "sha256")
        if self._opened is not None and self._opened[0] == sha256 and self.blender.has_scene:
            return self._opened[1], {}
        self._opened = None
        began = time.monotonic()
        report = asdict(self.blender.open(self.glb(state), self.rig.normalise))
        seconds = report.pop("timings")
        seconds["bring"] = time.monotonic() - began - sum(seconds.values())
        self._opened = (sha256, report)
        return report, seconds


def fetch(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Bring the object's verified file here, and keep it below the root if asked to.

    Its inspection is part of the same task and takes it from here.
    """
    with shop.scratch_file(f"{sample_key(state.asset_id)[:100]}.fetch") as path:
        found = shop.source.fetch(state.record.path, state.get("list", "version"), path)
        raw = f"raw/{found.sha256[:2]}/{found.sha256}.glb" if shop.keep_raw else None
        if raw is not None and not shop.root.exists(raw):
            shop.root.put(raw, path)
        shop.keep_glb(path, found.sha256)
        return {"sha256": found.sha256, "bytes": found.num_bytes, "raw": raw}


def inspect(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Read the file's structure without a 3D program."""
    return inspect_glb(shop.glb(state), shop.config.inspect).to_dict()


def measure(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Measure silhouettes at the rig's own cameras, and how many separate objects there are."""
    scene, seconds = shop.open_scene(state)
    opened = time.monotonic()
    measured = shop.blender.measure(shop.rig.cameras(state.asset_id))
    seen = time.monotonic()
    islands, thin = measure_islands(measured.points), thickness(measured.points)
    seconds |= {"measure": seen - opened, "islands": time.monotonic() - seen}
    return {
        "scene": scene,
        "thickness": round(thin, 6),
        "coverage": [round(float(share), 6) for share in measured.coverage],
        "islands": islands,
        "timings": _rounded(seconds),
    }


def render(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Render all views, check them, and lay them ready for packing."""
    _, seconds = shop.open_scene(state)
    cameras = shop.rig.cameras(state.asset_id)
    scale = depth_scale_for(cameras)
    members: dict[str, bytes] = {}
    encoding = 0.0

    def encode(view: int, views: ViewSet) -> None:
        nonlocal encoding
        started = time.monotonic()
        pictures = views.rgba[view], views.depth[view], views.normals[view]
        members.update(encode_view(view, *pictures, scale))
        encoding += time.monotonic() - started

    views, report = shop.blender.render(cameras, shop.config.render, each=encode)
    rendered = time.monotonic()
    check_views(views)
    coverage = [round(float((rgba[..., 3] > 127).mean()), 6) for rgba in views.rgba]
    checked = time.monotonic()
    meta = {
        "asset_id": state.asset_id,
        "sha256": state.get("fetch", "sha256"),
        "rig": shop.rig.name,
        "normalise": shop.rig.normalise,
        "render_key": shop.decider.key("render", state),
        "samples": report.samples,
    }
    side = shop.config.render.resolution
    members |= [encode_meta(cameras, side, side, scale, meta)]
    sample = write_sample_tar(sample_key(state.asset_id), members)
    staging = f"staging/{meta['render_key']}.tar"
    shop.root.write(staging, sample)
    seconds |= report.timings | {"encode": encoding, "check": checked - rendered}
    seconds["stage"] = time.monotonic() - checked
    return {
        "staging": staging,
        "bytes": sum(len(data) for data in members.values()),
        "coverage": coverage,
        "samples": report.samples,
        "timings": _rounded(seconds),
    }


def geometry(state: ObjectState, shop: Workshop) -> dict[str, Any]:
    """Write points on the object's surface, and its mesh, in the frame that the rig sees."""
    _, seconds = shop.open_scene(state)
    opened = time.monotonic()
    surface = shop.blender.geometry(shop.config.surface.points, shop.config.surface.seed)
    sampled = time.monotonic()
    path = geometry_path(shop.rig.normalise, shop.decider.key("geometry", state))
    size = write_geometry(shop.root, path, surface)
    seconds |= {"surface": sampled - opened, "write": time.monotonic() - sampled}
    return {
        "path": path,
        "bytes": size,
        "num_points": len(surface.points),
        "num_vertices": len(surface.vertices),
        "num_faces": len(surface.faces),
        "timings": _rounded(seconds),
    }


_STAGES: dict[str, Callable[[ObjectState, Workshop], dict[str, Any]]] = {
    "fetch": fetch,
    "inspect": inspect,
    "measure": measure,
    "render": render,
    "geometry": geometry,
}


def advance(state: ObjectState, lane: str, shop: Workshop) -> list[Event]:
    """Do for one object all the stages of a lane that it needs, and that its verdicts allow.

    Never raises for the object's sake: what goes wrong with it is a failed event. What is the
    machine's fault is tried again here, after a pause, so that a machine without room or without
    Blender does not use up the plan.
    """
    events: list[Event] = []
    try:
        while True:
            stage = shop.decider.decide(state).stage
            if stage not in _LANES[lane] or any(event.stage == stage for event in events):
                return events
            event = _event_of(stage, state, shop)
            state = state.with_event(event)
            events.append(event)
    finally:
        shop.drop_glb()


def _event_of(stage: str, state: ObjectState, shop: Workshop) -> Event:
    started = time.monotonic()
    outcome = _persevere(stage, state, shop)
    seconds = round(time.monotonic() - started, 3)
    return shop.decider.event(stage, state, seconds=seconds, **outcome)


def _persevere(stage: str, state: ObjectState, shop: Workshop) -> dict[str, Any]:
    last = shop.config.execution.attempts
    for attempt in range(1, last + 1):
        outcome = _attempt(stage, state, shop)
        kind = outcome.get("kind", "")
        if kind not in _MACHINE or attempt == last:
            break
        _pause(kind, attempt)
    return outcome


def _pause(kind: str, attempt: int) -> None:
    # Whatever killed a child has got what it wanted; room and connections take their time.
    if kind != "killed":
        time.sleep(_PAUSE_SECONDS * attempt**2)


def _attempt(stage: str, state: ObjectState, shop: Workshop) -> dict[str, Any]:
    try:
        return {"data": _STAGES[stage](state, shop)}
    except (FetchFailed, GlbRefused) as error:
        return {"status": "failed", "kind": error.kind, "message": error.message}
    except RenderFailure as error:
        data = {"log_tail": error.log_tail}
        return {"status": "failed", "kind": error.kind, "message": str(error), "data": data}
    except storage_errors() as error:
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
    Samples of one damaged shard are put back into it, if that gives the bytes it had.
    """
    started = time.monotonic()
    try:
        staged, lost = _persistently(lambda: _read_staged(states, shop), shop)
    except storage_errors() as error:
        return _unpacked(states, f"staging: {error}", shop)
    restored = _restore(states, staged, shop)
    if restored:
        return restored
    if not staged:
        return lost
    names = "\n".join(shop.decider.key("pack", item.state) for item in staged)
    name = hashlib.sha256(names.encode()).hexdigest()[:16]
    shard = f"shards/{shop.rig.name}/{name}.tar"

    def write() -> str:
        samples = ((item.key, item.members) for item in staged)
        with shop.scratch_file("shard.tar") as path:
            return write_shard(shop.root, samples, path, name=lambda _: shard)[1]

    try:
        digest = _persistently(write, shop)
    except storage_errors(WorkFailed) as error:
        return lost + _unpacked([item.state for item in staged], f"{shard}: {error}", shop)
    seconds = round((time.monotonic() - started) / len(staged), 3)
    events = []
    for item in staged:
        data = {"shard": shard, "sample": item.key, "shard_sha256": digest}
        events.append(shop.decider.event("pack", item.state, data=data, seconds=seconds))
    return lost + events


def _persistently(work: Callable[[], T], shop: Workshop) -> T:
    """Try it as often as a stage, while the storage fails. Raises what it raises at last."""
    for attempt in range(1, shop.config.execution.attempts):
        try:
            return work()
        except storage_errors():
            _pause("storage", attempt)
    return work()


def _unpacked(states: Sequence[ObjectState], message: str, shop: Workshop) -> list[Event]:
    failed = {"status": "failed", "kind": "storage", "message": message}
    return [shop.decider.event("pack", state, **failed) for state in states]


def _read_staged(
    states: Sequence[ObjectState], shop: Workshop
) -> tuple[list[_Staged], list[Event]]:
    """The rendered samples that lie ready, and a failed event for each that does not.

    Raises an error of the storage if it cannot be asked.
    """
    staged, lost = [], []
    for state in states:
        path = str(state.get("render", "staging"))
        try:
            key, members = read_sample_tar(shop.root.read(path))
            if key != sample_key(state.asset_id):
                raise WorkFailed(f"{path} holds {key}")
            staged.append(_Staged(state, key, members))
        except (FileNotFoundError, WorkFailed) as error:
            failed = {"status": "failed", "kind": "staging_lost", "message": str(error)}
            lost.append(shop.decider.event("render", state, **failed))
    return staged, lost


def _restore(
    states: Sequence[ObjectState], staged: Sequence[_Staged], shop: Workshop
) -> list[Event]:
    """Mend the damaged shard that these objects lay in; nothing if that cannot be."""
    places = [shop.decider.broken_shard(state) for state in states]
    damaged = [place for place in places if place is not None]
    if len(damaged) < len(places) or len({place["shard"] for place in damaged}) != 1:
        return []
    shard, sha256 = damaged[0]["shard"], damaged[0]["shard_sha256"]
    donors = {item.key: item.members for item in staged}
    with shop.scratch_file("shard.tar") as path:
        if not restore_shard(shop.root, shard, sha256, donors, path):
            return []
    pairs = zip(states, damaged, strict=True)
    return [shop.decider.event("pack", state, data=dict(place)) for state, place in pairs]


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(spent, 3) for name, spent in seconds.items()}
