"""Filters on what the source says of an object: caption, tags, licence, age restriction."""

import re
import unicodedata
from typing import Annotated

import pydantic

from dataset.config import Config
from filters.verdict import PASSED, Facts, Filter, Verdict

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


def _caption(facts: Facts, config: CaptionConfig) -> Verdict:
    length = len((facts.record.caption or "").strip())
    keep = length >= config.min_characters
    return Verdict(
        filter="caption",
        keep=keep,
        reason=PASSED if keep else "no_caption",
        measured=length,
        limit=config.min_characters,
    )


def _lowpoly(facts: Facts, config: LowPolyConfig) -> Verdict:  # noqa: ARG001 - one signature
    tags = [tag for tag in facts.record.tags if is_lowpoly_tag(tag)]
    return Verdict(
        filter="lowpoly",
        keep=not tags,
        reason="lowpoly_tag" if tags else PASSED,
        measured=tags,
        limit=[],
    )


def _licence(facts: Facts, config: LicenceConfig) -> Verdict:
    licence = facts.record.licence
    keep = licence is not None and licence.casefold() in {
        allowed.casefold() for allowed in config.allowed
    }
    return Verdict(
        filter="licence",
        keep=keep,
        reason=PASSED if keep else "licence_not_allowed",
        measured=licence,
        limit=list(config.allowed),
    )


def _age(facts: Facts, config: AgeConfig) -> Verdict:  # noqa: ARG001 - one signature
    restricted = facts.record.age_restricted
    return Verdict(
        filter="age",
        keep=not restricted,
        reason="age_restricted" if restricted else PASSED,
        measured=restricted,
        limit=False,
    )


CAPTION = Filter(name="caption", needs="list", version=1, judge=_caption)
LOWPOLY = Filter(name="lowpoly", needs="list", version=1, judge=_lowpoly)
LICENCE = Filter(name="licence", needs="list", version=1, judge=_licence)
AGE = Filter(name="age", needs="list", version=1, judge=_age)
