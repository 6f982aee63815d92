"""The filters in their order, the cheapest first, and their configuration.

A new filter is one function with its facts in the file of its subject, one line in `CHAIN` and one
field here.
"""

from collections.abc import Collection
from typing import Any

from core.config import Config
from dataset.columns import Columns
from filters.appearance import MISSING_TEXTURE, TEXTURED, MissingTextureConfig, TexturedConfig
from filters.provenance import (
    AGE,
    CAPTION,
    LICENCE,
    LOWPOLY,
    AgeConfig,
    CaptionConfig,
    LicenceConfig,
    LowPolyConfig,
)
from filters.shape import (
    DEGENERATE,
    OCCUPANCY,
    RENDERED_OCCUPANCY,
    SEVERAL,
    DegenerateConfig,
    OccupancyConfig,
    SeveralConfig,
)
from filters.verdict import Fact, Filter, Judgement, Verdict

__all__ = ["CHAIN", "FilterConfig", "facts_of", "judge", "verdicts"]

CHAIN: tuple[Filter, ...] = (
    CAPTION,
    LOWPOLY,
    LICENCE,
    AGE,
    TEXTURED,
    MISSING_TEXTURE,
    DEGENERATE,
    SEVERAL,
    OCCUPANCY,
    RENDERED_OCCUPANCY,
)


class FilterConfig(Config):
    """Which filters run, and their thresholds."""

    caption: CaptionConfig = CaptionConfig()
    lowpoly: LowPolyConfig = LowPolyConfig()
    licence: LicenceConfig = LicenceConfig()
    age: AgeConfig = AgeConfig()
    textured: TexturedConfig = TexturedConfig()
    missing_texture: MissingTextureConfig = MissingTextureConfig()
    degenerate: DegenerateConfig = DegenerateConfig()
    several: SeveralConfig = SeveralConfig()
    occupancy: OccupancyConfig = OccupancyConfig()


def judge(columns: Columns, config: FilterConfig) -> list[tuple[Filter, Judgement]]:
    """What every enabled filter says of all objects, in the chain's order.

    Where a filter's measurements are missing, what it says means nothing. An object is kept while
    every filter keeps it; the first that drops it is the reason that counts.
    """
    found = []
    for link in CHAIN:
        settings = getattr(config, link.settings or link.name)
        if settings.enabled:
            found.append((link, link.judge(columns, settings)))
    return found


def verdicts(
    columns: Columns, config: FilterConfig, known: Collection[str], row: int = 0
) -> list[Verdict]:
    """The verdicts on one object by the filters whose measurements are known."""
    return [
        judgement.verdict(link.name, row)
        for link, judgement in judge(columns, config)
        if link.needs in known
    ]


def facts_of(stage: str) -> list[Fact[Any]]:
    """Return the facts that filters keep of a stage."""
    return [fact for link in CHAIN if link.needs == stage for fact in link.facts]
