"""The evaluation of predictions, object by object: `lrm evaluate` without its options."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.atomic import atomic_write
from core.errors import LrmError, WorkFailed
from core.quantities import duration
from pipelines.building.progress import Display
from pipelines.evaluation.evaluate_log import RowLog
from pipelines.evaluation.ground_truths import GroundTruth, GroundTruths
from pipelines.evaluation.predictors import Predictor
from train.evaluation.predict import Prediction
from train.evaluation.protocols.shape_protocol import ShapeProtocol
from train.evaluation.scores import PICTURE_METRICS, VIEW_METRICS, score_pictures, score_views
from train.evaluation.summary import summarise, summarise_categories, write_object_scores
from train.models.lpips import Lpips
from train.recipes.zero123plus_config import SampleConfig

__all__ = ["OBJECTS", "SUMMARY", "EvaluationSettings", "evaluate_objects"]

_VERSION = 3
"""Increase it when the same input gives other scores, so that objects are evaluated again."""
OBJECTS = "objects.parquet"
SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The protocol of an evaluation, and the settings that every protocol has."""

    name: str
    """The protocol's name."""
    protocol: ShapeProtocol
    num_points: int
    """Points on each surface."""
    seed: int
    """Seed of the points and of the bootstrap."""
    lpips: Lpips | None
    lpips_weights: Any = None
    """Fingerprints of the weight files of LPIPS, as plain values."""

    @property
    def identity(self) -> Any:
        """The settings that determine an object's scores, as plain values."""
        lpips = None if self.lpips is None else ["lpips", self.lpips_weights]
        return [_VERSION, self.num_points, self.protocol.identity, self.seed, lpips]

    @property
    def titles(self) -> dict[str, str]:
        """The titles of all metrics of the evaluation, by key."""
        shapes, others = dict(self.protocol.metrics), {"seconds": "seconds"}
        if self.protocol.has_pictures:
            return PICTURE_METRICS | shapes | VIEW_METRICS | others
        return shapes | others


def evaluate_objects(
    truths: GroundTruths,
    predictor: Predictor,
    settings: EvaluationSettings,
    out: Path,
    limit: int | None,
) -> dict[str, Any]:
    """Evaluate objects, write objects.parquet and summary.json to `out`, return the summary.

    Rows that an earlier call in the same folder computed from the same input are reused. An object
    that fails is named in both files and is not part of any mean. At most `limit` objects are
    evaluated. Progress is printed. Raises WorkFailed if all objects fail.
    """
    missing = predictor.missing(truths.names)
    without = set(missing)
    names = [name for name in truths.names if name not in without][:limit]
    with RowLog(out) as log:
        rows = list(_evaluate(truths, predictor, settings, names, log))
    scored = [row for row in rows if row["error"] is None]
    summary: dict[str, Any] = {
        "objects": len(scored),
        "failed": {row["object"]: row["error"] for row in rows if row["error"] is not None},
        "missing": missing,
        "protocol": settings.name,
        "points": settings.num_points,
        "threshold": getattr(settings.protocol, "threshold", None),
        "metrics": summarise(scored, list(settings.titles), settings.seed),
    }
    categories = {name: truths.categories(name) for name in names}
    if settings.protocol.has_categories:
        keys = list(settings.protocol.metrics)
        summary |= summarise_categories(scored, categories, keys)
    write_object_scores(rows, categories, list(settings.titles), out / OBJECTS)
    atomic_write(out / SUMMARY, json.dumps(summary, indent=1))
    if not scored:
        first = f"{rows[0]['object']}: {rows[0]['error']}"
        raise WorkFailed(f"no object could be evaluated; {len(rows)} failed, the first: {first}")
    return summary


def _evaluate(
    truths: GroundTruths,
    predictor: Predictor,
    settings: EvaluationSettings,
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
            identity = [settings.identity, truths.identity(name), predictor.identity(name)]
            row = log.find(name, identity)
            if row is None:
                row = _row(truths, predictor, settings, name)
                log.add(identity, row)
            failed += row["error"] is not None
            yield row
        display.end(_progress(len(names), len(names), failed, display.started))
    finally:
        display.close()


def _row(
    truths: GroundTruths, predictor: Predictor, settings: EvaluationSettings, name: str
) -> dict[str, Any]:
    started = time.monotonic()
    try:
        truth = truths.load(name)
        scores = _scores(truth, predictor.predict(truth), settings)
    except LrmError as error:
        return {"object": name, "error": str(error)}
    except (ValueError, RuntimeError) as error:
        # A library cannot handle this object, or a device is out of memory: others may succeed.
        problem = (str(error).strip() or "no message").splitlines()[0]
        return {"object": name, "error": f"{type(error).__name__}: {problem}"}
    return {"object": name, "error": None, **scores, "seconds": time.monotonic() - started}


def _scores(
    truth: GroundTruth, predicted: Prediction, settings: EvaluationSettings
) -> dict[str, float]:
    """Return an object's scores. Raises WorkFailed if it has none."""
    protocol = settings.protocol
    scores: dict[str, float] = {}
    if protocol.has_pictures and predicted.pictures is not None:
        true_pictures = truth.pictures.select(predicted.views)
        scores |= score_pictures(predicted.pictures, true_pictures, settings.lpips)
    if predicted.cloud is not None and truth.cloud is not None:
        scores |= protocol.scores(predicted.cloud, truth.cloud)
    if protocol.has_pictures and (generated := predicted.generated) is not None:
        true_pictures = truth.pictures.select(generated.reference_views)
        margin = SampleConfig().margin
        scores |= score_views(generated.rgb, true_pictures, margin, settings.lpips)
    if not scores:
        raise WorkFailed("the dataset has no geometry of it; `lrm build --geometry` adds it")
    return scores


def _progress(done: int, total: int, failed: int, started: float) -> str:
    elapsed = time.monotonic() - started
    left = duration(elapsed / done * (total - done) if done else None)
    return f"[{duration(elapsed)}] {done} of {total} objects, {failed} failed | {left} left"
