"""Filters on what the source says of an object: caption, tags, licence, age restriction."""

import re
import unicodedata
from typing import Annotated

import pyarrow as pa
import pydantic

from core.config import Config
from dataset.columns import Columns
from filters.verdict import Fact, Filter, Judgement

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

# "low" begins a word ("yellow poly", "slow-poly" do not match) and "poly" may go on ("lowpolyart",
# "low-polygon"), though not into another English word ("low-polyester").
_LOWPOLY = re.compile(r"(?:(?<![^\W\d_])|(?<=3d))low[\W_]*poly(?!ester|mer|phon)")
_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class CaptionConfig(Config):
    """Objects without a Cap3D caption (InstantMesh, arXiv 2404.07191)."""

    enabled: bool = True
    """Drop objects without a caption."""
    min_characters: Annotated[int, pydantic.Field(ge=1)] = 1
    """A shorter caption is none."""


class LowPolyConfig(Config):
    """Objects whose tags call them low-poly, in any spelling (InstantMesh, arXiv 2404.07191)."""

    enabled: bool = True
    """Drop objects tagged as low-poly."""


class LicenceConfig(Config):
    """Objects under a licence outside an allow-list."""

    enabled: bool = False
    """Drop objects under other licences, or none."""
    allowed: tuple[str, ...] = ("by", "by-sa", "cc0")
    """Licences in the source's own spelling; capitals do not matter."""


class AgeConfig(Config):
    """Objects that their source restricts to adults."""

    enabled: bool = False
    """Drop objects restricted to adults."""


def is_lowpoly_tag(tag: str) -> bool:
    """Whether a tag says "low poly": any case, separator, plural or compound."""
    words = _CAMEL_HUMP.sub(" ", unicodedata.normalize("NFKC", tag))
    return _LOWPOLY.search(words.casefold()) is not None


def _caption(facts: Columns, config: CaptionConfig) -> Judgement:
    length = facts.numbers("list.caption_characters")
    return Judgement(
        drops={"no_caption": length < config.min_characters},
        measured=lambda row: int(length[row]),
        limit=config.min_characters,
    )


def _lowpoly(facts: Columns, config: LowPolyConfig) -> Judgement:  # noqa: ARG001 - one signature
    return Judgement(
        drops={"lowpoly_tag": facts.present("list.lowpoly_tags")},
        measured=lambda row: list(facts.value("list.lowpoly_tags", row) or ()),
        limit=[],
    )


def _licence(facts: Columns, config: LicenceConfig) -> Judgement:
    allowed = {licence.casefold() for licence in config.allowed}
    return Judgement(
        drops={"licence_not_allowed": ~facts.one_of("list.licence_folded", allowed)},
        measured=lambda row: facts.value("list.licence_folded", row),
        limit=list(config.allowed),
    )


def _age(facts: Columns, config: AgeConfig) -> Judgement:  # noqa: ARG001 - one signature
    restricted = facts.flags("list.age_restricted")
    return Judgement(
        drops={"age_restricted": restricted},
        measured=lambda row: bool(restricted[row]),
        limit=False,
    )


CAPTION = Filter(
    name="caption",
    needs="list",
    version=1,
    facts=(
        Fact(
            name="caption_characters",
            type=pa.int32(),
            of=lambda record: len((record["caption"] or "").strip()),
        ),
    ),
    judge=_caption,
)
LOWPOLY = Filter(
    name="lowpoly",
    needs="list",
    version=1,
    facts=(
        Fact(
            name="lowpoly_tags",
            type=pa.list_(pa.string()),
            of=lambda record: [tag for tag in record["tags"] if is_lowpoly_tag(tag)] or None,
        ),
    ),
    judge=_lowpoly,
)
LICENCE = Filter(
    name="licence",
    needs="list",
    version=1,
    facts=(
        Fact(
            name="licence_folded",
            type=pa.string(),
            of=lambda record: record["licence"] and record["licence"].casefold(),
        ),
    ),
    judge=_licence,
)
AGE = Filter(
    name="age",
    needs="list",
    version=1,
    facts=(
        Fact(
            name="age_restricted", type=pa.bool_(), of=lambda record: bool(record["age_restricted"])
        ),
    ),
    judge=_age,
)
