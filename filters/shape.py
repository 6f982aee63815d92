"""Filters on an object's shape: one object, with a body, that fills enough of every view."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pydantic

from core.config import Config, Fraction
from dataset.columns import Columns
from filters.verdict import Fact, Filter, Judgement

__all__ = [
    "DEGENERATE",
    "OCCUPANCY",
    "RENDERED_OCCUPANCY",
    "SEVERAL",
    "DegenerateConfig",
    "OccupancyConfig",
    "SeveralConfig",
]


_NUM_GROUPS = 8
"""As many groups as `measure_islands` lists."""


class OccupancyConfig(Config):
    """Objects that fill too little of the frame in any view (InstantMesh, arXiv 2404.07191).

    Judged twice: by silhouettes at the rig's cameras before the render, by its alpha after it.
    """

    enabled: bool = True
    """Drop objects that fill too little of a view."""
    min_share: Fraction = 0.1
    """The least share of the frame, in every view."""


class DegenerateConfig(Config):
    """Objects without a body: a sheet, a card, a line."""

    enabled: bool = True
    """Drop objects that are too thin to be bodies."""
    min_thickness: Fraction = 0.001
    """The least extent along the thinnest principal axis of the surface, by that along the
    longest."""


class SeveralConfig(Config):
    """Files that hold several separate objects (InstantMesh drops them; the test is ours)."""

    enabled: bool = True
    """Drop files with several objects."""
    drop_unsure: bool = False
    """Drop also what may be several objects: the geometry gives no clear answer."""
    min_share: Fraction = 0.1
    """Several: a second group with this share of the area stays apart over a clear gap (4 %)."""
    min_share_close: Fraction = 0.25
    """Several: the same where the gap is narrow (2 %)."""
    one_share: Fraction = 0.95
    """One: a single island holds this share of the area although narrow gaps divide it."""
    ground_groups: Annotated[int, pydantic.Field(ge=2)] = 3
    """Several: so many groups of `min_share` stand apart on a common ground plate; two may be the
    straps of a sandal or the handles of a tray."""
    ground_height: Annotated[float, pydantic.Field(ge=0)] = 0.1
    """The height, in the frame [-1, 1]^3, from which a group counts as standing on the ground."""


def _piece(level: Mapping[str, Any], kind: str, index: int) -> float:
    pieces = level[kind]
    return float(pieces[index]["share"]) if index < len(pieces) else 0.0


def _ground(measured: Mapping[str, Any], value: str) -> list[float] | None:
    """A value of each group above the ground plate; None if there is no plate."""
    above = measured["islands"]["slab"] and measured["islands"]["slab"]["above"]
    return [float(group[value]) for group in above["2"]["groups"]] if above else None


_THICKNESS: Fact[float] = Fact(
    "measure",
    "thickness",
    pa.float64(),
    "extent along the thinnest principal axis of the surface, by that along the longest",
    of=lambda found: found.get("thickness"),
)
_SECOND_AT_CLEAR_GAP: Fact[float] = Fact(
    "measure",
    "second_at_clear_gap",
    pa.float64(),
    "share of the area in the second largest group of islands, grouped across gaps below 4 %",
    of=lambda found: _piece(found["islands"]["whole"]["2"], "groups", 1),
)
_SECOND_AT_NARROW_GAP: Fact[float] = Fact(
    "measure",
    "second_at_narrow_gap",
    pa.float64(),
    "the same, grouped across gaps below 2 %",
    of=lambda found: _piece(found["islands"]["whole"]["1"], "groups", 1),
)
_LARGEST_ISLAND: Fact[float] = Fact(
    "measure",
    "largest_island",
    pa.float64(),
    "share of the area in the largest island",
    of=lambda found: _piece(found["islands"]["whole"]["1"], "islands", 0),
)
_GROUND_SHARES: Fact[list[float]] = Fact(
    "measure",
    "ground_shares",
    pa.list_(pa.float64()),
    "share of the area in each group above a common ground plate; null without a plate",
    of=lambda found: _ground(found, "share"),
)
_GROUND_HEIGHTS: Fact[list[float]] = Fact(
    "measure",
    "ground_heights",
    pa.list_(pa.float64()),
    "height of each of these groups in the frame [-1, 1]^3",
    of=lambda found: _ground(found, "height"),
)


def _min_coverage(stage: str, source: str) -> Fact[float]:
    return Fact(
        stage,
        "min_coverage",
        pa.float64(),
        f"smallest share of the frame that the object fills in any view, by its {source}",
        of=lambda found: min(found["coverage"]),
    )


_MEASURED_COVERAGE = _min_coverage("measure", "silhouette")
_RENDERED_COVERAGE = _min_coverage("render", "rendered alpha")


def _several(facts: Columns, config: SeveralConfig) -> Judgement:
    clear = facts.numbers(_SECOND_AT_CLEAR_GAP)
    close = facts.numbers(_SECOND_AT_NARROW_GAP)
    shares = facts.lists(_GROUND_SHARES, _NUM_GROUPS)
    heights = facts.lists(_GROUND_HEIGHTS, _NUM_GROUPS)
    standing = (shares >= config.min_share) & (heights >= config.ground_height)
    apart = clear >= config.min_share
    apart_close = ~apart & (close >= config.min_share_close)
    on_ground = ~apart & ~apart_close & (standing.sum(axis=1) >= config.ground_groups)
    rest = np.fmax(1 - facts.numbers(_LARGEST_ISLAND), 1 - shares[:, 0])
    several = apart | apart_close | on_ground
    unsure = ~several & (rest > 1 - config.one_share)
    share = np.where(on_ground, _second(shares, standing), rest)
    share = np.where(apart_close, close, share)
    share = np.where(apart, clear, share)

    def measured(row: int) -> dict[str, Any]:
        answer = "several" if several[row] else "unsure" if unsure[row] else "one"
        return {"objects": answer, "share": round(float(share[row]), 4)}

    drops = {"several_objects": several}
    maybe = {"maybe_several_objects": unsure}
    return Judgement(
        drops=drops | maybe if config.drop_unsure else drops,
        remarks={} if config.drop_unsure else maybe,
        measured=measured,
        limit={"share": config.min_share, "drop_unsure": config.drop_unsure},
    )


def _second(shares: np.ndarray, standing: np.ndarray) -> np.ndarray:
    """The second largest share among the groups that stand on the ground."""
    ordered = np.sort(np.where(standing, shares, 0), axis=1)
    return ordered[:, -2]


def _occupancy(column: Fact[float], facts: Columns, config: OccupancyConfig) -> Judgement:
    least = facts.numbers(column)
    return Judgement(
        drops={"low_occupancy": least < config.min_share},
        measured=lambda row: round(float(least[row]), 6),
        limit=config.min_share,
    )


def _degenerate(facts: Columns, config: DegenerateConfig) -> Judgement:
    thickness = facts.numbers(_THICKNESS)
    return Judgement(
        drops={"degenerate_geometry": thickness < config.min_thickness},
        measured=lambda row: round(float(thickness[row]), 6),
        limit=config.min_thickness,
    )


DEGENERATE = Filter(name="degenerate", version=1, facts=(_THICKNESS,), judge=_degenerate)
SEVERAL = Filter(
    name="several",
    version=1,
    facts=(
        _SECOND_AT_CLEAR_GAP,
        _SECOND_AT_NARROW_GAP,
        _LARGEST_ISLAND,
        _GROUND_SHARES,
        _GROUND_HEIGHTS,
    ),
    judge=_several,
)
OCCUPANCY = Filter(
    name="occupancy",
    version=1,
    facts=(_MEASURED_COVERAGE,),
    judge=partial(_occupancy, _MEASURED_COVERAGE),
)
RENDERED_OCCUPANCY = Filter(
    name="rendered_occupancy",
    settings="occupancy",
    version=1,
    facts=(_RENDERED_COVERAGE,),
    judge=partial(_occupancy, _RENDERED_COVERAGE),
)
