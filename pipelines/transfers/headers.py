"""Read the HTTP headers that a transfer uses: validators, lengths, ranges and rate limits.

RateLimit is read as the IETF's draft (draft-ietf-httpapi-ratelimit-headers) writes it since its
eighth version, `"resolvers";r=0;t=42`, and in the older form of three headers.
"""

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = [
    "ContentRange",
    "RateLimits",
    "content_length",
    "content_range",
    "entity_tag",
    "rate_limits",
    "retry_after",
    "whole_number",
]

_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", re.ASCII)
_LIMIT = re.compile(r'"[^"]*"\s*;\s*r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)')
_POLICY = re.compile(r'"[^"]*"\s*;[^,]*?\bq\s*=\s*(\d+)[^,]*?;\s*w\s*=\s*(\d+)')


@dataclass(frozen=True)
class ContentRange:
    """Which bytes of a file a response holds (RFC 9110, section 14.4)."""

    start: int | None = None
    """The position of the first byte; None if the range was not satisfiable."""
    total: int | None = None
    """The size of the whole file, if the server states it."""


@dataclass(frozen=True)
class RateLimits:
    """What a response says about the server's rate limits."""

    policy: tuple[int, float] | None = None
    """Requests per window and the window's seconds, of the strictest policy that is announced."""
    reset_seconds: float | None = None
    """Seconds until requests are allowed again; None unless the limit is used up."""


def entity_tag(headers: Mapping[str, str], name: str = "etag") -> str | None:
    """Return the entity tag in a header, without quotes and the mark of a weak one."""
    return headers.get(name, "").removeprefix("W/").strip('"') or None


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return Content-Length; None if it is absent or no number."""
    return whole_number(headers.get("content-length", ""))


def content_range(headers: Mapping[str, str]) -> ContentRange:
    """Return Content-Range; without start and total if it is absent or malformed."""
    match = _RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        return ContentRange()
    return ContentRange(whole_number(match[1] or ""), whole_number(match[2]))


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds of Retry-After, given as seconds or as a date; None without it."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """Return what RateLimit, RateLimit-Policy and their older forms say."""
    limits = [(int(r), int(t)) for r, t in _LIMIT.findall(headers.get("ratelimit", ""))]
    left = whole_number(headers.get("ratelimit-remaining", ""))
    reset = whole_number(headers.get("ratelimit-reset", ""))
    if left is not None and reset is not None:
        limits.append((left, reset))
    policies = [(int(q), float(w)) for q, w in _POLICY.findall(headers.get("ratelimit-policy", ""))]
    return RateLimits(
        policy=min((item for item in policies if all(item)), key=_rate, default=None),
        reset_seconds=max((float(t) for r, t in limits if r == 0), default=None),
    )


def whole_number(text: str) -> int | None:
    """Return the number that the decimal digits of a text stand for; None for another text."""
    return int(text) if text.isascii() and text.isdigit() else None


def _rate(policy: tuple[int, float]) -> float:
    return policy[0] / policy[1]
