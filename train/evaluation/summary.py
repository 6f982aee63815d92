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

__all__ = ["CONFIDENCE", "interval", "summarise", "write_objects"]

CONFIDENCE = 0.95
"""Level of the confidence intervals."""
_RESAMPLES = 9_999
"""Bootstrap resamples: SciPy's default."""
_TEXT_COLUMNS = ("object", "error")


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


def write_objects(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    """Write one Parquet row per object: object, error (null if there was none), its scores."""
    schema = pa.schema(
        [(name, pa.string()) for name in _TEXT_COLUMNS] + [(name, pa.float64()) for name in names]
    )
    table = pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema=schema
    )
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
