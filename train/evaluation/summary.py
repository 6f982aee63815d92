"""Scores of many objects: a table of them all, and their means with confidence intervals."""

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
_RESAMPLES = 9_999
_TEXT = ("object", "error")


def interval(values: Float[np.ndarray, "n"], seed: int) -> tuple[float, float] | None:
    """The bootstrap interval of the mean: bias-corrected, accelerated (Efron 1987).

    None of fewer than two values. Where all are equal, it is that value.
    """
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="BCa",
        batch=1_000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def summarise(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Of each metric: mean, median, low and high of its interval, and how many objects have it."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        values = np.array([row[name] for row in rows if row.get(name) is not None], dtype=float)
        if not len(values):
            continue
        limits = interval(values, seed)
        found[name] = {
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "low": None if limits is None else limits[0],
            "high": None if limits is None else limits[1],
            "objects": len(values),
        }
    return found


def write_objects(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    """A row per object as Parquet: object, error (null if there was none), its scores."""
    schema = pa.schema(
        [(name, pa.string()) for name in _TEXT] + [(name, pa.float64()) for name in names]
    )
    table = pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema=schema
    )
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
