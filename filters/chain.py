"""The registry of filters, the cheapest first, and their configuration.

To add a filter, write its function, facts and configuration in the file of its subject, then add a
line to `CHAIN` and a field to `FilterConfig`.
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import pyarrow as pa

from core.config import Config, Renamed
from dataset.columns import Columns, TableColumns
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
    MULTI_OBJECT,
    OCCUPANCY,
    RENDERED_OCCUPANCY,
    DegenerateConfig,
    MultiObjectConfig,
    OccupancyConfig,
)
from filters.verdict import Fact, Filter, FilterResult, Verdict

__all__ = [
    "CHAIN",
    "FilterConfig",
    "all_reasons",
    "facts_of",
    "filter_title",
    "reason_title",
    "run_filters",
    "value_text",
    "verdicts",
]

CHAIN: tuple[Filter, ...] = (
    CAPTION,
    LOWPOLY,
    LICENCE,
    AGE,
    TEXTURED,
    MISSING_TEXTURE,
    DEGENERATE,
    MULTI_OBJECT,
    OCCUPANCY,
    RENDERED_OCCUPANCY,
)


class FilterConfig(Config):
    """The filters that run, and their thresholds."""

    renamed: ClassVar = {
        "several.enabled": Renamed("multi_object.enabled"),
        "several.drop_unsure": Renamed("multi_object.drop_uncertain"),
        "several.min_share": Renamed("multi_object.min_area_share"),
        "several.min_share_close": Renamed("multi_object.min_area_share_narrow_gap"),
        "several.one_share": Renamed("multi_object.single_object_share"),
        "several.ground_groups": Renamed("multi_object.ground_groups"),
        "several.ground_height": Renamed("multi_object.ground_height"),
        # The American spelling is understood, too.
        "license.enabled": Renamed("licence.enabled", deprecated=False),
        "license.allowed": Renamed("licence.allowed", deprecated=False),
    }

    caption: CaptionConfig = CaptionConfig()
    lowpoly: LowPolyConfig = LowPolyConfig()
    licence: LicenceConfig = LicenceConfig()
    age: AgeConfig = AgeConfig()
    textured: TexturedConfig = TexturedConfig()
    missing_texture: MissingTextureConfig = MissingTextureConfig()
    degenerate: DegenerateConfig = DegenerateConfig()
    multi_object: MultiObjectConfig = MultiObjectConfig()
    occupancy: OccupancyConfig = OccupancyConfig()


def run_filters(columns: Columns, config: FilterConfig) -> list[tuple[Filter, FilterResult]]:
    """Evaluate every enabled filter on all objects, in the order of `CHAIN`.

    The result of a filter is meaningless for objects that lack its measurements. An object is kept
    if all filters keep it; otherwise the first filter that drops it gives the reason.
    """
    results = []
    for filter_ in CHAIN:
        settings = getattr(config, filter_.settings or filter_.name)
        if settings.enabled:
            results.append((filter_, filter_.evaluate(columns, settings)))
    return results


def verdicts(
    columns: Columns, config: FilterConfig, known: Collection[str], row: int = 0
) -> list[Verdict]:
    """Return the verdicts on the object in a row.

    `known` names the stages whose measurements exist; filters that need another one are left out.
    """
    return [
        result.verdict(filter_.name, row)
        for filter_, result in run_filters(columns, config)
        if filter_.needs in known
    ]


def facts_of(stage: str) -> list[Fact[Any]]:
    """Return the facts that filters read from a stage's measurements."""
    return [fact for filter_ in CHAIN if filter_.needs == stage for fact in filter_.facts]


def all_reasons() -> list[str]:
    """Return every reason for which a filter can drop an object, whether it is enabled or not."""
    nothing = TableColumns(pa.table({}))
    results = (
        filter_.evaluate(nothing, getattr(FilterConfig(), filter_.settings or filter_.name))
        for filter_ in CHAIN
    )
    # What one filter remarks on, a setting may make it drop.
    return list(dict.fromkeys(name for one in results for name in (*one.drops, *one.remarks)))


def filter_title(name: str) -> str:
    """Return the name of a filter as text output shows it; other names are returned unchanged."""
    return next((filter_.title for filter_ in CHAIN if filter_.name == name), "") or name


def value_text(name: str, value: Any) -> str:
    """Return a value that a filter measured, or its limit, as text output shows it."""
    titles = next((filter_.value_titles for filter_ in CHAIN if filter_.name == name), {})
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        pairs = ((titles.get(key, key.replace("_", " ")), part) for key, part in value.items())
        return ", ".join(f"{title} {value_text(name, part)}" for title, part in pairs)
    if isinstance(value, list | tuple):
        return ", ".join(value_text(name, part) for part in value) or "none"
    return "none" if value is None else titles.get(str(value), str(value))


def reason_title(reason: str) -> str:
    """Return a stored reason as text output shows it, such as `multi-object`.

    Reasons without a title of their own, and strings that are not a filter's reason, are returned
    unchanged.
    """
    titles: dict[str, str] = {}
    for filter_ in CHAIN:
        titles |= filter_.reason_titles
    return titles.get(reason, reason)
