"""What a server says of its limits: Retry-After, RateLimit and RateLimit-Policy.

RateLimit is read as the IETF's draft (draft-ietf-httpapi-ratelimit-headers) writes it since its
eighth version, `"resolvers";r=0;t=42`, and in the older form of three headers.
"""

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime

__all__ = ["limit_reset", "rate_policy", "retry_after"]

_LIMIT = re.compile(r'"[^"]*"\s*;\s*r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)')
_POLICY = re.compile(r'"[^"]*"\s*;[^,]*?\bq\s*=\s*(\d+)[^,]*?;\s*w\s*=\s*(\d+)')


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that Retry-After asks to wait, given as seconds or as a date; None without it."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def limit_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until requests are allowed again, if the limit is used up."""
    found = [(int(left), int(reset)) for left, reset in _LIMIT.findall(_get(headers, ""))]
    left, reset = _get(headers, "-remaining"), _get(headers, "-reset")
    if left.isdigit() and reset.isdigit():
        found.append((int(left), int(reset)))
    return max((float(reset) for left, reset in found if left == 0), default=None)


def rate_policy(headers: Mapping[str, str]) -> tuple[int, float] | None:
    """Requests per window and the window's seconds, of the strictest policy that is announced."""
    found = [(int(q), float(w)) for q, w in _POLICY.findall(_get(headers, "-policy"))]
    return min((item for item in found if item[0] and item[1]), key=_rate, default=None)


def _get(headers: Mapping[str, str], suffix: str) -> str:
    return headers.get(f"ratelimit{suffix}", "")


def _rate(policy: tuple[int, float]) -> float:
    return policy[0] / policy[1]
