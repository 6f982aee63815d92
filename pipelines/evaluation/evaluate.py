"""Judges predictions object by object: `lrm evaluate` without its options."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.atomic import atomic_write
from core.errors import BadInput, LrmError, WorkFailed
from core.quantities import duration
from core.storage import Storage, storage_errors
from dataset.cameras import Camera
from dataset.format.geometry import read_geometry
from dataset.format.shards import read_members
from dataset.snapshots.snapshot import Sample
from dataset.views import decode_views
from pipelines.building.progress import Display
from pipelines.evaluation.evaluate_log import RowLog
from pipelines.evaluation.evaluate_meshes import MeshFolder, cloud_of, object_name
from render.render_config import RENDERER_VERSION
from render.rigs import Rig
from train.evaluation.predict import Generate, Predicted, make_views, predict
from train.evaluation.scores import (
    SURFACE_METRICS,
    VIEW_METRICS,
    Cloud,
    Pictures,
    score_pictures,
    score_surface,
    score_views,
)
from train.evaluation.summary import summarise, write_objects
from train.inference.lrm import Reconstructor
from train.models.lpips import Lpips
from train.recipes.zero123plus_config import SampleConfig

__all__ = [
    "ByMeshes",
    "ByModel",
    "ByPipeline",
    "FolderTruths",
    "Protocol16K",
    "SnapshotTruths",
    "Truth",
    "evaluate_objects",
]

_VERSION = 3
"""Raise it when the same input gives other scores: what was judged before is judged again."""
OBJECTS = "objects.parquet"
SUMMARY = "summary.json"
_PICTURE_METRICS = ("psnr", "ssim", "lpips", "mask_iou")
METRICS = (*_PICTURE_METRICS, *SURFACE_METRICS, *VIEW_METRICS, "seconds")


@dataclass(frozen=True, kw_only=True)
class Protocol16K:
    """What is compared, and how."""

    num_points: int
    threshold: float
    seed: int
    """Of points and of the bootstrap."""
    lpips: Lpips | None
    lpips_weights: Any = None
    """What tells its weights from others, as plain values."""

    @property
    def identity(self) -> Any:
        """What a row follows from beside the object."""
        lpips = None if self.lpips is None else ["lpips", self.lpips_weights]
        return [_VERSION, self.num_points, self.threshold, self.seed, lpips]


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What an object really looks like."""

    name: str
    cameras: list[Camera]
    normalise: str
    pictures: Pictures
    cloud: Cloud | None


class Truths(Protocol):
    """Objects by name."""

    @property
    def names(self) -> Sequence[str]:
        """Of all of them, in order."""

    def identity(self, name: str) -> Any:
        """What one of them follows from, as plain values."""

    def load(self, name: str) -> Truth:
        """One of them. Raises LrmError."""


class Predictor(Protocol):
    """Gives what is judged."""

    def missing(self, names: Sequence[str]) -> list[str]:
        """Objects that it cannot say anything of."""

    def identity(self, name: str) -> Any:
        """What its prediction of an object follows from beside the truth, as plain values."""

    def predict(self, truth: Truth) -> Predicted:
        """Of one object. Raises LrmError."""


class SnapshotTruths:
    """Objects of a dataset, by the views and the companion geometry that it stores."""

    def __init__(self, root: Storage, samples: Sequence[Sample], num_points: int) -> None:
        self._root = root
        self._samples = {object_name(sample.asset_id): sample for sample in samples}
        self._num_points = num_points

    @property
    def names(self) -> Sequence[str]:
        """In the snapshot's order."""
        return list(self._samples)

    def identity(self, name: str) -> Any:
        """The render, and the geometry."""
        sample = self._samples[name]
        return [sample.sha256, sample.render_key, sample.entry.key, sample.geometry]

    def load(self, name: str) -> Truth:
        """Without geometry where the dataset has none."""
        sample = self._samples[name]
        try:
            members = read_members(self._root, sample.shard, sample.entry, sample.entry.members)
        except storage_errors(EOFError) as error:
            raise WorkFailed(f"{sample.asset_id}: cannot read its views: {error}") from error
        views, meta = decode_views(members)
        cloud = None
        if sample.geometry is not None:
            cloud = cloud_of(read_geometry(self._root, sample.geometry), self._num_points)
        return Truth(
            name=name,
            cameras=list(views.cameras),
            normalise=meta.get("normalise") or "cube",
            pictures=Pictures.of_rgba(views.rgba),
            cloud=cloud,
        )


class FolderTruths:
    """Objects by their files, rendered now from the cameras of a rig."""

    def __init__(self, meshes: MeshFolder, rig: Rig, side: int, num_points: int, seed: int) -> None:
        self._meshes, self._rig, self._side = meshes, rig, side
        self._num_points, self._seed = num_points, seed

    @property
    def names(self) -> Sequence[str]:
        """Sorted."""
        return self._meshes.names

    def identity(self, name: str) -> Any:
        """The file, and how it is shown."""
        rig = [self._rig.name, self._rig.version]
        return [self._meshes.state(name), RENDERER_VERSION, rig, self._side, self._seed]

    def load(self, name: str) -> Truth:
        """Rendered and sampled."""
        cameras, normalise = self._rig.cameras(name), self._rig.normalise
        shown = self._meshes.show(
            name, cameras, normalise, self._side, self._num_points, self._seed
        )
        return Truth(
            name=name,
            cameras=cameras,
            normalise=normalise,
            pictures=Pictures.of_rgba(shown.views.rgba),
            cloud=cloud_of(shown.surface, self._num_points),
        )


class ByMeshes:
    """Predictions that lie in a folder."""

    def __init__(self, meshes: MeshFolder, num_points: int, seed: int) -> None:
        self._meshes, self._num_points, self._seed = meshes, num_points, seed

    def missing(self, names: Sequence[str]) -> list[str]:
        """Objects without a mesh. Raises BadInput if no object has one."""
        found = [name for name in names if name not in self._meshes]
        if len(found) == len(names):
            raise BadInput(
                f"no mesh is named after an object: there are {self._meshes.names[0]}, ... and "
                f"{names[0]}, ..."
            )
        return found

    def identity(self, name: str) -> Any:
        """The file, and how it is shown."""
        return [self._meshes.state(name), RENDERER_VERSION, self._seed]

    def predict(self, truth: Truth) -> Predicted:
        """Normalised, rendered and sampled as the truth is."""
        sizes = (truth.pictures.rgb.shape[-1], self._num_points, self._seed)
        shown = self._meshes.show(truth.name, truth.cameras, truth.normalise, *sizes)
        return Predicted(
            views=list(range(len(truth.cameras))),
            pictures=Pictures.of_rgba(shown.views.rgba),
            cloud=cloud_of(shown.surface, self._num_points),
        )


class ByModel:
    """What a trained model makes of the truth's own views, or of six that are made of the first."""

    def __init__(
        self,
        model: Reconstructor,
        num_points: int,
        seed: int,
        generate: Generate | None,
        identity: Any,
    ) -> None:
        """`identity`: which weights and settings these are, as plain values."""
        self._model, self._generate, self._identity = model, generate, identity
        self._num_points, self._seed = num_points, seed

    def missing(self, names: Sequence[str]) -> list[str]:
        """None: a model has something to say of everything."""
        return []

    def identity(self, name: str) -> Any:
        """The same for all objects."""
        return self._identity

    def predict(self, truth: Truth) -> Predicted:
        """See `train.evaluation.predict`."""
        return predict(
            self._model,
            truth.pictures,
            truth.cameras,
            num_points=self._num_points,
            seed=self._seed,
            generate=self._generate,
        )


class ByPipeline:
    """The six views that Zero123++ makes of the first."""

    def __init__(self, generate: Generate, identity: Any) -> None:
        """`identity`: which weights and settings these are, as plain values."""
        self._generate, self._identity = generate, identity

    def missing(self, names: Sequence[str]) -> list[str]:
        """None: something can be made of every picture."""
        return []

    def identity(self, name: str) -> Any:
        """The same for all objects."""
        return self._identity

    def predict(self, truth: Truth) -> Predicted:
        """See `train.evaluation.predict.make_views`."""
        return make_views(truth.pictures, truth.cameras, self._generate)


def evaluate_objects(
    truths: Truths, predictor: Predictor, protocol: Protocol16K, out: Path, limit: int | None
) -> dict[str, Any]:
    """Judge them, with progress; write objects.parquet and summary.json; the summary.

    What an earlier call in the same folder judged from the same input is taken over. An object that
    fails is named in both and counts in no mean. Raises WorkFailed if all fail.
    """
    missing = predictor.missing(truths.names)
    names = [name for name in truths.names if name not in set(missing)][:limit]
    with RowLog(out) as log:
        rows = list(_judge(truths, predictor, protocol, names, log))
    whole = [row for row in rows if row["error"] is None]
    found: dict[str, Any] = {
        "objects": len(whole),
        "failed": {row["object"]: row["error"] for row in rows if row["error"] is not None},
        "missing": missing,
        "points": protocol.num_points,
        "threshold": protocol.threshold,
        "metrics": summarise(whole, METRICS, protocol.seed),
    }
    write_objects(rows, METRICS, out / OBJECTS)
    atomic_write(out / SUMMARY, json.dumps(found, indent=1))
    if not whole:
        raise WorkFailed(f"all {len(rows)} objects failed; the first: {rows[0]['error']}")
    return found


def _judge(
    truths: Truths,
    predictor: Predictor,
    protocol: Protocol16K,
    names: Sequence[str],
    log: RowLog,
) -> Iterator[Mapping[str, Any]]:
    """A row for each object."""
    display = Display(interval=10.0)
    failed = 0
    try:
        for number, name in enumerate(names):
            line = _progress(number, len(names), failed, display.started)
            display.show(lambda line=line: line)  # type: ignore[misc]
            identity = [protocol.identity, truths.identity(name), predictor.identity(name)]
            row = log.find(name, identity)
            if row is None:
                row = _row(truths, predictor, protocol, name)
                log.add(identity, row)
            failed += row["error"] is not None
            yield row
        display.end(_progress(len(names), len(names), failed, display.started))
    finally:
        display.close()


def _row(truths: Truths, predictor: Predictor, protocol: Protocol16K, name: str) -> dict[str, Any]:
    began = time.monotonic()
    try:
        truth = truths.load(name)
        predicted = predictor.predict(truth)
        scores: dict[str, float] = {}
        if predicted.pictures is not None:
            seen = truth.pictures.at(predicted.views)
            scores |= score_pictures(predicted.pictures, seen, protocol.lpips)
        if predicted.cloud is not None and truth.cloud is not None:
            scores |= score_surface(predicted.cloud, truth.cloud, protocol.threshold)
        if (made := predicted.made) is not None:
            seen = truth.pictures.at(made.true_views)
            scores |= score_views(made.rgb, seen, SampleConfig().margin, protocol.lpips)
    except LrmError as error:
        return {"object": name, "error": str(error)}
    except (ValueError, RuntimeError) as error:
        # What a library says of this object, or a device that is full: the others go on.
        problem = (str(error).strip() or "no reason given").splitlines()[0]
        return {"object": name, "error": f"{type(error).__name__}: {problem}"}
    return {"object": name, "error": None, **scores, "seconds": time.monotonic() - began}


def _progress(done: int, total: int, failed: int, started: float) -> str:
    elapsed = time.monotonic() - started
    left = duration(elapsed / done * (total - done) if done else None)
    return f"[{duration(elapsed)}] {done}/{total} objects, {failed} failed | {left} to go"
