"""The evaluation of predictions, object by object: `lrm evaluate` without its options."""

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
from pipelines.evaluation.evaluate_meshes import MeshFolder, object_name, surface_cloud
from render.render_config import RENDERER_VERSION
from render.rigs import Rig
from train.evaluation.predict import Generate, Prediction, generate_views, predict
from train.evaluation.scores import (
    SURFACE_METRICS,
    VIEW_METRICS,
    Pictures,
    PointCloud,
    score_pictures,
    score_surface,
    score_views,
)
from train.evaluation.summary import summarise, write_object_scores
from train.inference.lrm import Reconstructor
from train.models.lpips import Lpips
from train.recipes.zero123plus_config import SampleConfig

__all__ = [
    "EvaluationProtocol",
    "FolderGroundTruths",
    "GroundTruth",
    "MeshPredictor",
    "ModelPredictor",
    "MultiviewPredictor",
    "SnapshotGroundTruths",
    "evaluate_objects",
]

_VERSION = 3
"""Increase it when the same input gives other scores, so that objects are evaluated again."""
OBJECTS = "objects.parquet"
SUMMARY = "summary.json"
_PICTURE_METRICS = ("psnr", "ssim", "lpips", "mask_iou")
METRICS = (*_PICTURE_METRICS, *SURFACE_METRICS, *VIEW_METRICS, "seconds")


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """The evaluation protocol: the metrics' settings."""

    num_points: int
    """Points on each surface."""
    threshold: float
    """Distance below which a point counts as matched in the F-score, in units of [-1, 1]^3."""
    seed: int
    """Seed of the points and of the bootstrap."""
    lpips: Lpips | None
    lpips_weights: Any = None
    """Fingerprints of the weight files of LPIPS, as plain values."""

    @property
    def identity(self) -> Any:
        """The settings that determine an object's scores, as plain values."""
        lpips = None if self.lpips is None else ["lpips", self.lpips_weights]
        return [_VERSION, self.num_points, self.threshold, self.seed, lpips]


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


class GroundTruths(Protocol):
    """The ground truth of all objects, by name."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all objects, in order."""

    def identity(self, name: str) -> Any:
        """Return what determines the ground truth of an object, as plain values."""

    def load(self, name: str) -> GroundTruth:
        """Return the ground truth of an object. Raises LrmError."""


class Predictor(Protocol):
    """The predictions that are evaluated."""

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the objects without a prediction."""

    def identity(self, name: str) -> Any:
        """Return what determines an object's prediction, besides the ground truth."""

    def predict(self, truth: GroundTruth) -> Prediction:
        """Return the prediction of an object. Raises LrmError."""


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
        )


class FolderGroundTruths:
    """Ground truth from a folder of GLB files, rendered with the cameras of a rig."""

    def __init__(self, meshes: MeshFolder, rig: Rig, side: int, num_points: int, seed: int) -> None:
        self._meshes, self._rig, self._side = meshes, rig, side
        self._num_points, self._seed = num_points, seed

    @property
    def names(self) -> Sequence[str]:
        """The names of all objects, sorted."""
        return self._meshes.names

    def identity(self, name: str) -> Any:
        """Return the fingerprint of the object's file and the settings of its render."""
        rig = [self._rig.name, self._rig.version]
        return [self._meshes.fingerprint(name), RENDERER_VERSION, rig, self._side, self._seed]

    def load(self, name: str) -> GroundTruth:
        """Render an object and sample its surface. Raises LrmError."""
        cameras, normalise = self._rig.cameras(name), self._rig.normalise
        rendered = self._meshes.render(
            name, cameras, normalise, self._side, self._num_points, self._seed
        )
        return GroundTruth(
            name=name,
            cameras=cameras,
            normalise=normalise,
            pictures=Pictures.from_rgba(rendered.views.rgba),
            cloud=surface_cloud(rendered.surface, self._num_points),
        )


class MeshPredictor:
    """Predictions from a folder of mesh files."""

    def __init__(self, meshes: MeshFolder, num_points: int, seed: int) -> None:
        self._meshes, self._num_points, self._seed = meshes, num_points, seed

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the objects without a mesh. Raises BadInput if no object has one."""
        missing = [name for name in names if name not in self._meshes]
        if len(missing) == len(names):
            raise BadInput(
                "no mesh has the name of an object: the meshes are called "
                f"{self._meshes.names[0]}, ..., the objects {names[0]}, ..."
            )
        return missing

    def identity(self, name: str) -> Any:
        """Return the fingerprint of the mesh file and the settings of its render."""
        return [self._meshes.fingerprint(name), RENDERER_VERSION, self._seed]

    def predict(self, truth: GroundTruth) -> Prediction:
        """Normalise, render and sample the mesh in the same way as the ground truth."""
        sizes = (truth.pictures.rgb.shape[-1], self._num_points, self._seed)
        rendered = self._meshes.render(truth.name, truth.cameras, truth.normalise, *sizes)
        return Prediction(
            views=list(range(len(truth.cameras))),
            pictures=Pictures.from_rgba(rendered.views.rgba),
            cloud=surface_cloud(rendered.surface, self._num_points),
        )


class ModelPredictor:
    """Predictions of a trained model, from true views or from six views generated from view 0."""

    def __init__(
        self,
        model: Reconstructor,
        num_points: int,
        seed: int,
        generate: Generate | None,
        identity: Any,
    ) -> None:
        """Store the model; `identity` describes its weights and settings as plain values.

        With `generate`, the model sees six views that are generated from the object's view 0.
        """
        self._model, self._generate, self._identity = model, generate, identity
        self._num_points, self._seed = num_points, seed

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return an empty list: a model predicts every object."""
        return []

    def identity(self, name: str) -> Any:
        """Return the identity of the model, which is the same for all objects."""
        return self._identity

    def predict(self, truth: GroundTruth) -> Prediction:
        """Return the model's prediction (`train.evaluation.predict`)."""
        return predict(
            self._model,
            truth.pictures,
            truth.cameras,
            num_points=self._num_points,
            seed=self._seed,
            generate=self._generate,
        )


class MultiviewPredictor:
    """Predictions of Zero123++: six views generated from view 0."""

    def __init__(self, generate: Generate, identity: Any) -> None:
        """Store the pipeline; `identity` describes its weights and settings as plain values."""
        self._generate, self._identity = generate, identity

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return an empty list: Zero123++ generates views for every picture."""
        return []

    def identity(self, name: str) -> Any:
        """Return the identity of the pipeline, which is the same for all objects."""
        return self._identity

    def predict(self, truth: GroundTruth) -> Prediction:
        """Return the generated views (`train.evaluation.predict.generate_views`)."""
        return generate_views(truth.pictures, truth.cameras, self._generate)


def evaluate_objects(
    truths: GroundTruths,
    predictor: Predictor,
    protocol: EvaluationProtocol,
    out: Path,
    limit: int | None,
) -> dict[str, Any]:
    """Evaluate objects, write objects.parquet and summary.json to `out`, return the summary.

    Rows that an earlier call in the same folder computed from the same input are reused. An object
    that fails is named in both files and is not part of any mean. At most `limit` objects are
    evaluated. Progress is printed. Raises WorkFailed if all objects fail.
    """
    missing = predictor.missing(truths.names)
    names = [name for name in truths.names if name not in set(missing)][:limit]
    with RowLog(out) as log:
        rows = list(_evaluate(truths, predictor, protocol, names, log))
    scored = [row for row in rows if row["error"] is None]
    summary: dict[str, Any] = {
        "objects": len(scored),
        "failed": {row["object"]: row["error"] for row in rows if row["error"] is not None},
        "missing": missing,
        "points": protocol.num_points,
        "threshold": protocol.threshold,
        "metrics": summarise(scored, METRICS, protocol.seed),
    }
    write_object_scores(rows, METRICS, out / OBJECTS)
    atomic_write(out / SUMMARY, json.dumps(summary, indent=1))
    if not scored:
        first = f"{rows[0]['object']}: {rows[0]['error']}"
        raise WorkFailed(f"no object could be evaluated; {len(rows)} failed, the first: {first}")
    return summary


def _evaluate(
    truths: GroundTruths,
    predictor: Predictor,
    protocol: EvaluationProtocol,
    names: Sequence[str],
    log: RowLog,
) -> Iterator[Mapping[str, Any]]:
    """Yield one row per object."""
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


def _row(
    truths: GroundTruths, predictor: Predictor, protocol: EvaluationProtocol, name: str
) -> dict[str, Any]:
    started = time.monotonic()
    try:
        truth = truths.load(name)
        predicted = predictor.predict(truth)
        scores: dict[str, float] = {}
        if predicted.pictures is not None:
            true_pictures = truth.pictures.select(predicted.views)
            scores |= score_pictures(predicted.pictures, true_pictures, protocol.lpips)
        if predicted.cloud is not None and truth.cloud is not None:
            scores |= score_surface(predicted.cloud, truth.cloud, protocol.threshold)
        if (generated := predicted.generated) is not None:
            true_pictures = truth.pictures.select(generated.reference_views)
            margin = SampleConfig().margin
            scores |= score_views(generated.rgb, true_pictures, margin, protocol.lpips)
    except LrmError as error:
        return {"object": name, "error": str(error)}
    except (ValueError, RuntimeError) as error:
        # A library cannot handle this object, or a device is out of memory: others may succeed.
        problem = (str(error).strip() or "no message").splitlines()[0]
        return {"object": name, "error": f"{type(error).__name__}: {problem}"}
    return {"object": name, "error": None, **scores, "seconds": time.monotonic() - started}


def _progress(done: int, total: int, failed: int, started: float) -> str:
    elapsed = time.monotonic() - started
    left = duration(elapsed / done * (total - done) if done else None)
    return f"[{duration(elapsed)}] {done} of {total} objects, {failed} failed | {left} left"
