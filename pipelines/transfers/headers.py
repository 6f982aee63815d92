"""Parsers of the HTTP headers that a download uses: validators, lengths, ranges and rate limits.

RateLimit is read in two forms: as in the IETF's draft (draft-ietf-httpapi-ratelimit-headers, from
version 8), `"resolvers";r=0;t=42`, and as the older set of three headers.
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

_MAX_DIGITS = 18
"""Digits of a number that is believed; Python refuses to convert more than 4300."""
_MAX_WAIT = 24 * 3600.0
"""Maximum wait in seconds that is believed: the cluster's budget outlives the build, and a wait
without end would stop every later one."""
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", re.ASCII)
_LIMIT = re.compile(r'"[^"]*"\s*;\s*r\s*=\s*(\d{1,18})\s*;\s*t\s*=\s*(\d{1,18})\b', re.ASCII)
_POLICY = re.compile(
    r'"[^"]*"\s*;[^,]*?\bq\s*=\s*(\d{1,18})\b[^,]*?;\s*w\s*=\s*(\d{1,18})\b', re.ASCII
)


@dataclass(frozen=True)
class ContentRange:
    """The bytes of a file that a response holds (RFC 9110, section 14.4)."""

    start: int | None = None
    """The position of the first byte; None if the range was not satisfiable."""
    total: int | None = None
    """The size of the whole file, if the server states it."""


@dataclass(frozen=True)
class RateLimits:
    """The server's rate limits, from the headers of a response."""

    policy: tuple[int, float] | None = None
    """Requests per window and the window's length in seconds, of the strictest policy."""
    reset_seconds: float | None = None
    """Seconds until requests are allowed again; None unless no request is left."""


def entity_tag(headers: Mapping[str, str], name: str = "etag") -> str | None:
    """Return the entity tag in a header, without its quotes and the prefix of weak tags."""
    return headers.get(name, "").removeprefix("W/").strip('"') or None


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return Content-Length in bytes; None if it is absent or not a number."""
    return whole_number(headers.get("content-length", ""))


def content_range(headers: Mapping[str, str]) -> ContentRange:
    """Return Content-Range; its start and total are None if it is absent or malformed."""
    match = _RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        return ContentRange()
    return ContentRange(whole_number(match[1] or ""), whole_number(match[2]))


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the wait of Retry-After in seconds; None if it is absent or malformed.

    The header holds seconds or a date.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
        return min(float(value), _MAX_WAIT)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return min(max(0.0, (then - (now or datetime.now(UTC))).total_seconds()), _MAX_WAIT)


def rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """Return the limits in RateLimit, RateLimit-Policy and the older headers."""
    limits = [(int(r), int(t)) for r, t in _LIMIT.findall(headers.get("ratelimit", ""))]
    left = whole_number(headers.get("ratelimit-remaining", ""))
    reset = whole_number(headers.get("ratelimit-reset", ""))
    if left is not None and reset is not None:
        limits.append((left, reset))
    policies = [(int(q), float(w)) for q, w in _POLICY.findall(headers.get("ratelimit-policy", ""))]
    return RateLimits(
        policy=min(
            (item for item in policies if item[0] and 0 < item[1] <= _MAX_WAIT),
            key=_rate,
            default=None,
        ),
        reset_seconds=max((min(float(t), _MAX_WAIT) for r, t in limits if r == 0), default=None),
    )


def whole_number(text: str) -> int | None:
    """Return the number that a text of up to 18 decimal digits represents; else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _rate(policy: tuple[int, float]) -> float:
    return policy[0] / policy[1]
