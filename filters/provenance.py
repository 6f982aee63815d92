"""Filters on the metadata of the source: caption, tags, licence, age restriction."""

import re
import unicodedata

import pyarrow as pa

from core.config import Config, PositiveInt
from dataset.catalog.event_columns import LIST
from dataset.columns import Columns
from filters.verdict import Fact, Filter, FilterResult

__all__ = [
    "AGE",
    "CAPTION",
    "LICENCE",
    "LOWPOLY",
    "AgeConfig",
    "CaptionConfig",
    "LicenceConfig",
    "LowPolyConfig",
    "is_lowpoly_tag",
]

# "low" must start a word: "yellow poly" and "slow-poly" do not match. "poly" may have more letters
# after it ("lowpolyart", "low-polygon") unless they make another English word ("low-polyester").
_LOWPOLY = re.compile(r"(?:(?<![^\W\d_])|(?<=3d))low[\W_]*poly(?!ester|mer|phon)")
_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class CaptionConfig(Config):
    """Objects without a caption (InstantMesh, arXiv 2404.07191)."""

    enabled: bool = True
    """Drop objects without a caption."""
    min_characters: PositiveInt = 1
    """Minimum length of a caption in characters, spaces at its ends not counted."""


class LowPolyConfig(Config):
    """Objects with a tag that says low-poly, in any spelling (InstantMesh, arXiv 2404.07191)."""

    enabled: bool = True
    """Drop objects tagged as low-poly."""


class LicenceConfig(Config):
    """Objects whose licence is not in an allow-list."""

    enabled: bool = False
    """Drop objects whose licence is not allowed, or that state no licence."""
    allowed: tuple[str, ...] = ("by", "by-sa", "cc0")
    """Allowed licences as the source spells them, in capitals or not, such as [by, cc0]."""


class AgeConfig(Config):
    """Objects that their source restricts to adults."""

    enabled: bool = False
    """Drop objects restricted to adults."""


def is_lowpoly_tag(tag: str) -> bool:
    """Return whether a tag says "low poly", with any case, separator, plural or compound."""
    words = _CAMEL_HUMP.sub(" ", unicodedata.normalize("NFKC", tag))
    return _LOWPOLY.search(words.casefold()) is not None


_CAPTION_CHARACTERS: Fact[int] = Fact(
    "list",
    "caption_characters",
    pa.int32(),
    "length of the caption in characters, 0 without a caption",
    of=lambda record: len((record["caption"] or "").strip()),
)
_LOWPOLY_TAGS: Fact[list[str]] = Fact(
    "list",
    "lowpoly_tags",
    pa.list_(pa.string()),
    "tags that say low-poly; null if there are none",
    of=lambda record: [tag for tag in record["tags"] if is_lowpoly_tag(tag)] or None,
)
_LICENCE_FOLDED: Fact[str] = Fact(
    "list",
    "licence_folded",
    pa.string(),
    "the licence in lower case",
    of=lambda record: record["licence"] and record["licence"].casefold(),
)
_AGE_RESTRICTED: Fact[bool] = Fact(
    LIST.age_restricted.stage,
    LIST.age_restricted.name,
    LIST.age_restricted.type,
    LIST.age_restricted.meaning,
    of=lambda record: bool(record["age_restricted"]),
)


def _caption(facts: Columns, config: CaptionConfig) -> FilterResult:
    length = facts.numbers(_CAPTION_CHARACTERS)
    return FilterResult(
        drops={"no_caption": length < config.min_characters},
        measured=lambda row: int(length[row]),
        limit=config.min_characters,
    )


def _lowpoly(facts: Columns, config: LowPolyConfig) -> FilterResult:  # noqa: ARG001 - the signature of a filter
    return FilterResult(
        drops={"lowpoly_tag": facts.present(_LOWPOLY_TAGS)},
        measured=lambda row: list(facts.value(_LOWPOLY_TAGS, row) or ()),
        limit=[],
    )


def _licence(facts: Columns, config: LicenceConfig) -> FilterResult:
    allowed = {licence.casefold() for licence in config.allowed}
    return FilterResult(
        drops={"licence_not_allowed": ~facts.one_of(_LICENCE_FOLDED, allowed)},
        measured=lambda row: facts.value(_LICENCE_FOLDED, row),
        limit=list(config.allowed),
    )


def _age(facts: Columns, config: AgeConfig) -> FilterResult:  # noqa: ARG001 - the signature of a filter
    restricted = facts.flags(_AGE_RESTRICTED)
    return FilterResult(
        drops={"age_restricted": restricted},
        measured=lambda row: bool(restricted[row]),
        limit=False,
    )


CAPTION = Filter(name="caption", version=1, facts=(_CAPTION_CHARACTERS,), evaluate=_caption)
LOWPOLY = Filter(name="lowpoly", version=1, facts=(_LOWPOLY_TAGS,), evaluate=_lowpoly)
LICENCE = Filter(name="licence", version=1, facts=(_LICENCE_FOLDED,), evaluate=_licence)
AGE = Filter(name="age", version=1, facts=(_AGE_RESTRICTED,), evaluate=_age)
