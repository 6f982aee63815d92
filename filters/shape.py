"""Filters on an object's shape: one object, with a body, that fills enough of every view."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pydantic

from core.config import Config
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

Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]

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


def _several(facts: Columns, config: SeveralConfig) -> Judgement:
    clear = facts.numbers("measure.second_at_clear_gap")
    close = facts.numbers("measure.second_at_narrow_gap")
    shares = facts.lists("measure.ground_shares", _NUM_GROUPS)
    heights = facts.lists("measure.ground_heights", _NUM_GROUPS)
    standing = (shares >= config.min_share) & (heights >= config.ground_height)
    apart = clear >= config.min_share
    apart_close = ~apart & (close >= config.min_share_close)
    on_ground = ~apart & ~apart_close & (standing.sum(axis=1) >= config.ground_groups)
    rest = np.fmax(1 - facts.numbers("measure.largest_island"), 1 - shares[:, 0])
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


def _piece(level: Mapping[str, Any], kind: str, index: int) -> float:
    pieces = level[kind]
    return float(pieces[index]["share"]) if index < len(pieces) else 0.0


def _ground(measured: Mapping[str, Any], value: str) -> list[float] | None:
    """A value of each group above the ground plate; None if there is no plate."""
    above = measured["islands"]["slab"] and measured["islands"]["slab"]["above"]
    return [float(group[value]) for group in above["2"]["groups"]] if above else None


def _occupancy(column: str, facts: Columns, config: OccupancyConfig) -> Judgement:
    least = facts.numbers(column)
    return Judgement(
        drops={"low_occupancy": least < config.min_share},
        measured=lambda row: round(float(least[row]), 6),
        limit=config.min_share,
    )


def _degenerate(facts: Columns, config: DegenerateConfig) -> Judgement:
    thickness = facts.numbers("measure.thickness")
    return Judgement(
        drops={"degenerate_geometry": thickness < config.min_thickness},
        measured=lambda row: round(float(thickness[row]), 6),
        limit=config.min_thickness,
    )


DEGENERATE = Filter(
    name="degenerate",
    needs="measure",
    version=1,
    facts=(Fact(name="thickness", type=pa.float64(), of=lambda found: found.get("thickness")),),
    judge=_degenerate,
)
SEVERAL = Filter(
    name="several",
    needs="measure",
    version=1,
    facts=(
        Fact(
            name="second_at_clear_gap",
            type=pa.float64(),
            of=lambda found: _piece(found["islands"]["whole"]["2"], "groups", 1),
        ),
        Fact(
            name="second_at_narrow_gap",
            type=pa.float64(),
            of=lambda found: _piece(found["islands"]["whole"]["1"], "groups", 1),
        ),
        Fact(
            name="largest_island",
            type=pa.float64(),
            of=lambda found: _piece(found["islands"]["whole"]["1"], "islands", 0),
        ),
        Fact(
            name="ground_shares",
            type=pa.list_(pa.float64()),
            of=lambda found: _ground(found, "share"),
        ),
        Fact(
            name="ground_heights",
            type=pa.list_(pa.float64()),
            of=lambda found: _ground(found, "height"),
        ),
    ),
    judge=_several,
)
_MIN_COVERAGE = Fact(
    name="min_coverage", type=pa.float64(), of=lambda found: min(found["coverage"])
)
OCCUPANCY = Filter(
    name="occupancy",
    needs="measure",
    version=1,
    facts=(_MIN_COVERAGE,),
    judge=partial(_occupancy, "measure.min_coverage"),
)
RENDERED_OCCUPANCY = Filter(
    name="rendered_occupancy",
    settings="occupancy",
    needs="render",
    version=1,
    facts=(_MIN_COVERAGE,),
    judge=partial(_occupancy, "render.min_coverage"),
)
