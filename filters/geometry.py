"""Filters on an object's shape: it fills enough of every view, and it is one object."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from dataset.config import Config
from filters.verdict import PASSED, Facts, Filter, Verdict

__all__ = ["OCCUPANCY", "SEVERAL", "OccupancyConfig", "SeveralConfig", "count_objects"]

Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]


class OccupancyConfig(Config):
    """Objects that fill too little of the frame in any view (InstantMesh, arXiv 2404.07191)."""

    enabled: bool = True
    """Drop objects that fill too little of a view."""
    min_share: Fraction = 0.1
    """The least share of the frame, in every view."""


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


def count_objects(
    islands: Mapping[str, Any], config: SeveralConfig
) -> tuple[Literal["one", "several", "unsure"], float]:
    """Read the measurement of `measure_islands`: the answer and the share of area it rests on.

    That share is the second group's for `several`, otherwise what the largest piece leaves.
    """
    close, clear = islands["whole"]["1"], islands["whole"]["2"]
    for level, least in ((clear, config.min_share), (close, config.min_share_close)):
        second = _share(level["groups"], 1)
        if second >= least:
            return "several", second
    rest = 1 - _share(close["islands"], 0)
    above = islands["slab"] and islands["slab"]["above"]
    if above:
        groups = above["2"]["groups"]
        standing = [
            group
            for group in groups
            if group["share"] >= config.min_share and group["height"] >= config.ground_height
        ]
        if len(standing) >= config.ground_groups:
            return "several", _share(standing, 1)
        rest = max(rest, 1 - _share(groups, 0))
    return ("one" if rest <= 1 - config.one_share else "unsure"), rest


def _share(pieces: list[dict[str, Any]], index: int) -> float:
    return float(pieces[index]["share"]) if index < len(pieces) else 0.0


def _several(facts: Facts, config: SeveralConfig) -> Verdict:
    assert facts.measure is not None
    answer, share = count_objects(facts.measure["islands"], config)
    keep = answer == "one" or (answer == "unsure" and not config.drop_unsure)
    reasons = {"one": PASSED, "several": "several_objects", "unsure": "maybe_several_objects"}
    return Verdict(
        filter="several",
        keep=keep,
        reason=reasons[answer],
        measured={"objects": answer, "share": round(share, 4)},
        limit={"share": config.min_share, "drop_unsure": config.drop_unsure},
    )


def _occupancy(facts: Facts, config: OccupancyConfig) -> Verdict:
    assert facts.measure is not None
    least = min(facts.measure["coverage"])
    keep = least >= config.min_share
    return Verdict(
        filter="occupancy",
        keep=keep,
        reason=PASSED if keep else "low_occupancy",
        measured=round(least, 6),
        limit=config.min_share,
    )


SEVERAL = Filter(name="several", needs="measure", version=1, judge=_several)
OCCUPANCY = Filter(name="occupancy", needs="measure", version=1, judge=_occupancy)
