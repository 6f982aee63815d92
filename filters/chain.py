"""The filters in their order, the cheapest first, and their configuration.

A new filter is one function in the file of its subject, one line in `CHAIN` and one field here.
"""

from dataset.config import Config, digest
from filters.appearance import TEXTURED, TexturedConfig
from filters.geometry import OCCUPANCY, SEVERAL, OccupancyConfig, SeveralConfig
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
from filters.verdict import Facts, Filter, Verdict

__all__ = ["CHAIN", "FilterConfig", "chain_digest", "judge"]

CHAIN: tuple[Filter, ...] = (CAPTION, LOWPOLY, LICENCE, AGE, TEXTURED, SEVERAL, OCCUPANCY)


class FilterConfig(Config):
    """Which filters run, and their thresholds."""

    caption: CaptionConfig = CaptionConfig()
    lowpoly: LowPolyConfig = LowPolyConfig()
    licence: LicenceConfig = LicenceConfig()
    age: AgeConfig = AgeConfig()
    textured: TexturedConfig = TexturedConfig()
    several: SeveralConfig = SeveralConfig()
    occupancy: OccupancyConfig = OccupancyConfig()


def judge(facts: Facts, config: FilterConfig) -> list[Verdict]:
    """The verdicts of all enabled filters whose measurements are there, in the chain's order.

    An object is kept while every verdict keeps it; its first reason is the one that counts.
    """
    verdicts = []
    for link in CHAIN:
        settings = getattr(config, link.name)
        if settings.enabled and facts.has(link.needs):
            verdicts.append(link.judge(facts, settings))
    return verdicts


def chain_digest(config: FilterConfig) -> str:
    """Identifies configuration and code of the chain: equal digests give equal verdicts."""
    return digest({"config": config.dump(), "versions": {f.name: f.version for f in CHAIN}})
