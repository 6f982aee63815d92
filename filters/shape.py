"""Filters on an object's shape: a single object, not flat, that fills enough of every view."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pydantic

from core.config import Config, Fraction, NonNegativeFloat
from dataset.columns import Columns
from filters.verdict import Fact, Filter, FilterResult

__all__ = [
    "DEGENERATE",
    "MULTI_OBJECT",
    "OCCUPANCY",
    "RENDERED_OCCUPANCY",
    "DegenerateConfig",
    "MultiObjectConfig",
    "OccupancyConfig",
]

_NUM_GROUPS = 8
"""Number of groups that `measure_islands` lists."""


class OccupancyConfig(Config):
    """Objects that fill too little of the frame in any view (InstantMesh, arXiv 2404.07191).

    The filter runs twice: on silhouettes at the rig's cameras before the render, and on the
    rendered alpha after it.
    """

    enabled: bool = True
    """Drop objects that fill too little of a view."""
    min_share: Fraction = 0.1
    """Minimum share of the image area that the object must fill in every view (0.1 is 10 %)."""


class DegenerateConfig(Config):
    """Flat objects, such as a sheet, a card or a line."""

    enabled: bool = True
    """Drop objects that are almost flat."""
    min_thickness: Fraction = 0.001
    """Minimum ratio of the surface's extent along its shortest principal axis to the extent along
    its longest (0.001: a plate of 1 m must be at least 1 mm thick)."""


class MultiObjectConfig(Config):
    """Files with several separate objects.

    InstantMesh drops them without publishing a test; this one uses groups of surface islands
    (filters.islands). Gaps are in percent of the side of the normalised frame [-1, 1]^3.
    """

    enabled: bool = True
    """Drop files with several separate objects."""
    drop_uncertain: bool = False
    """Also drop files for which the geometry gives no clear answer."""
    min_area_share: Fraction = 0.1
    """Drop if the second largest group has at least this share of the surface area and is separated
    by a clear gap (4 % of the frame)."""
    min_area_share_narrow_gap: Fraction = 0.25
    """As min-area-share, for groups separated by a narrow gap (2 % of the frame)."""
    single_object_share: Fraction = 0.95
    """Count as certainly one object if the largest island has at least this share of the surface
    area; below it the answer is uncertain."""
    ground_groups: Annotated[int, pydantic.Field(ge=2, le=10**6)] = 3
    """Drop if at least this many groups of min-area-share stand apart on a common ground plate. Two
    groups may be the straps of a sandal or the handles of a tray."""
    ground_height: NonNegativeFloat = 0.1
    """Minimum height of a group on a ground plate, in units of the frame [-1, 1]^3 (0.1 is 5 % of
    its side); lower groups are ignored."""


def _share(level: Mapping[str, Any], kind: str, index: int) -> float:
    """Return the area share of the nth largest island or group; 0 if there are fewer."""
    items = level[kind]
    return float(items[index]["share"]) if index < len(items) else 0.0


def _ground(measured: Mapping[str, Any], value: str) -> list[float] | None:
    """Return a value of each group above the ground plate; None if there is no plate."""
    above = measured["islands"]["slab"] and measured["islands"]["slab"]["above"]
    return [float(group[value]) for group in above["2"]["groups"]] if above else None


_THICKNESS: Fact[float] = Fact(
    "measure",
    "thickness",
    pa.float64(),
    "extent of the surface along its shortest principal axis, divided by that along its longest",
    of=lambda stored: stored.get("thickness"),
)
_SECOND_AT_CLEAR_GAP: Fact[float] = Fact(
    "measure",
    "second_at_clear_gap",
    pa.float64(),
    "share of the surface area in the second largest group of islands, where gaps below 4 % of the "
    "frame do not separate",
    of=lambda stored: _share(stored["islands"]["whole"]["2"], "groups", 1),
)
_SECOND_AT_NARROW_GAP: Fact[float] = Fact(
    "measure",
    "second_at_narrow_gap",
    pa.float64(),
    "the same, where gaps below 2 % do not separate",
    of=lambda stored: _share(stored["islands"]["whole"]["1"], "groups", 1),
)
_LARGEST_ISLAND: Fact[float] = Fact(
    "measure",
    "largest_island",
    pa.float64(),
    "share of the surface area in the largest island",
    of=lambda stored: _share(stored["islands"]["whole"]["1"], "islands", 0),
)
_GROUND_SHARES: Fact[list[float]] = Fact(
    "measure",
    "ground_shares",
    pa.list_(pa.float64()),
    "share of the area above a common ground plate in each group there; null without a plate",
    of=lambda stored: _ground(stored, "share"),
)
_GROUND_HEIGHTS: Fact[list[float]] = Fact(
    "measure",
    "ground_heights",
    pa.list_(pa.float64()),
    "height of each of these groups in units of the frame [-1, 1]^3",
    of=lambda stored: _ground(stored, "height"),
)


def _min_coverage(stage: str, source: str) -> Fact[float]:
    return Fact(
        stage,
        "min_coverage",
        pa.float64(),
        f"smallest share of the image that the object fills in any view, by its {source}",
        of=lambda stored: min(stored["coverage"]),
    )


_MEASURED_COVERAGE = _min_coverage("measure", "silhouette")
_RENDERED_COVERAGE = _min_coverage("render", "rendered alpha")


def _multi_object(facts: Columns, config: MultiObjectConfig) -> FilterResult:
    clear = facts.numbers(_SECOND_AT_CLEAR_GAP)
    narrow = facts.numbers(_SECOND_AT_NARROW_GAP)
    shares = facts.lists(_GROUND_SHARES, _NUM_GROUPS)
    heights = facts.lists(_GROUND_HEIGHTS, _NUM_GROUPS)
    counted = (shares >= config.min_area_share) & (heights >= config.ground_height)
    apart = clear >= config.min_area_share
    narrowly_apart = ~apart & (narrow >= config.min_area_share_narrow_gap)
    on_ground = ~apart & ~narrowly_apart & (counted.sum(axis=1) >= config.ground_groups)
    rest = np.fmax(1 - facts.numbers(_LARGEST_ISLAND), 1 - shares[:, 0])
    multiple = apart | narrowly_apart | on_ground
    uncertain = ~multiple & (rest > 1 - config.single_object_share)
    share = np.where(on_ground, _second_largest(shares, counted), rest)
    share = np.where(narrowly_apart, narrow, share)
    share = np.where(apart, clear, share)

    def measured(row: int) -> dict[str, Any]:
        answer = "several" if multiple[row] else "unsure" if uncertain[row] else "one"
        return {"objects": answer, "share": round(float(share[row]), 4)}

    drops = {"several_objects": multiple}
    maybe = {"maybe_several_objects": uncertain}
    return FilterResult(
        drops=drops | maybe if config.drop_uncertain else drops,
        remarks={} if config.drop_uncertain else maybe,
        measured=measured,
        # The keys are values of the JSON output, and keep the names that they have always had.
        limit={"share": config.min_area_share, "drop_unsure": config.drop_uncertain},
    )


def _second_largest(shares: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the second largest share of each row among the groups that count."""
    ordered = np.sort(np.where(counted, shares, 0), axis=1)
    return ordered[:, -2]


def _occupancy(column: Fact[float], facts: Columns, config: OccupancyConfig) -> FilterResult:
    share = facts.numbers(column)
    return FilterResult(
        drops={"low_occupancy": share < config.min_share},
        measured=lambda row: round(float(share[row]), 6),
        limit=config.min_share,
    )


def _degenerate(facts: Columns, config: DegenerateConfig) -> FilterResult:
    thickness = facts.numbers(_THICKNESS)
    return FilterResult(
        drops={"degenerate_geometry": thickness < config.min_thickness},
        measured=lambda row: round(float(thickness[row]), 6),
        limit=config.min_thickness,
    )


DEGENERATE = Filter(name="degenerate", version=1, facts=(_THICKNESS,), evaluate=_degenerate)
MULTI_OBJECT = Filter(
    name="several",
    title="multi-object",
    reason_titles={
        "several_objects": "multi-object",
        "maybe_several_objects": "maybe multi-object",
    },
    value_titles={"drop_unsure": "drop uncertain", "unsure": "uncertain"},
    settings="multi_object",
    version=1,
    facts=(
        _SECOND_AT_CLEAR_GAP,
        _SECOND_AT_NARROW_GAP,
        _LARGEST_ISLAND,
        _GROUND_SHARES,
        _GROUND_HEIGHTS,
    ),
    evaluate=_multi_object,
)
OCCUPANCY = Filter(
    name="occupancy",
    version=1,
    facts=(_MEASURED_COVERAGE,),
    evaluate=partial(_occupancy, _MEASURED_COVERAGE),
)
RENDERED_OCCUPANCY = Filter(
    name="rendered_occupancy",
    settings="occupancy",
    version=1,
    facts=(_RENDERED_COVERAGE,),
    evaluate=partial(_occupancy, _RENDERED_COVERAGE),
)
