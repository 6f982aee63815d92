"""Summary of the scores of many objects: means with confidence intervals, and a table of all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from scipy.stats import bootstrap

from core.atomic import atomic_file

__all__ = [
    "CONFIDENCE",
    "NO_CATEGORY",
    "interval",
    "summarise",
    "summarise_categories",
    "write_object_scores",
]

CONFIDENCE = 0.95
"""Level of the confidence intervals."""
_RESAMPLES = 9_999
"""Bootstrap resamples: SciPy's default."""
NO_CATEGORY = "(no category)"
"""The name under which objects without a category are listed."""


def interval(values: Float[np.ndarray, "n"], seed: int) -> tuple[float, float] | None:
    """Return the bias-corrected and accelerated bootstrap interval of the mean (Efron 1987).

    It is None for fewer than two values. If all values are equal, both ends are that value.
    """
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    limits = bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="BCa",
        batch=1_000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(limits.low), float(limits.high)


def summarise(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Return mean, median, interval (low, high) and number of objects of each metric.

    Metrics that no object has are left out. `seed` draws the bootstrap resamples.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name in names:
        values = np.array([row[name] for row in rows if row.get(name) is not None], dtype=float)
        if not len(values):
            continue
        limits = interval(values, seed)
        summary[name] = {
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "low": None if limits is None else limits[0],
            "high": None if limits is None else limits[1],
            "objects": len(values),
        }
    return summary


def summarise_categories(
    rows: Sequence[Mapping[str, Any]],
    categories: Mapping[str, Sequence[str]],
    names: Sequence[str],
) -> dict[str, Any]:
    """Return the means of each category, and the means of those over all categories.

    `categories` has those of each object; an object counts in each of its categories. Objects
    without one are listed as `NO_CATEGORY`, which the mean over categories leaves out.
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for category in sorted(set(categories[row["object"]])) or [NO_CATEGORY]:
            members.setdefault(category, []).append(row)
    means = {
        category: {
            "objects": len(members[category]),
            **{name: float(np.mean([row[name] for row in members[category]])) for name in names},
        }
        for category in sorted(members, key=lambda name: (name == NO_CATEGORY, name))
    }
    named = [values for category, values in means.items() if category != NO_CATEGORY]
    mean: dict[str, float] | None = None
    if named:
        mean = {name: float(np.mean([values[name] for values in named])) for name in names}
    return {"categories": means, "category_mean": mean}


def write_object_scores(
    rows: Sequence[Mapping[str, Any]],
    categories: Mapping[str, Sequence[str]],
    names: Sequence[str],
    path: Path,
) -> None:
    """Write one Parquet row per object.

    Its columns are object, error (null if there was none), categories, and the scores in `names`.
    """
    schema = pa.schema(
        [
            ("object", pa.string()),
            ("error", pa.string()),
            ("categories", pa.list_(pa.string())),
            *((name, pa.float64()) for name in names),
        ]
    )
    records = [{**row, "categories": list(categories[row["object"]])} for row in rows]
    table = pa.Table.from_pylist(
        [{name: record.get(name) for name in schema.names} for record in records], schema=schema
    )
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
