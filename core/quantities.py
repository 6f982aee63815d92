"""Numbers as text for people: counts, sizes, percentages and durations."""

from datetime import timedelta

__all__ = [
    "amount",
    "counted",
    "duration",
    "percent",
    "round_duration",
    "short_duration",
    "size",
    "with_si_prefix",
]


def amount(number: float) -> str:
    """Format a number as `0.0021`, `3.5` or `12,345`: two significant digits, or a whole number."""
    return f"{number:,.0f}" if number == 0 or number >= 9.95 else f"{number:.2g}"


def counted(number: int, noun: str) -> str:
    """Return `1 shard`, `1,200 shards`: a number with its noun, regular plurals only."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def with_si_prefix(number: float) -> str:
    """Format a number with an SI prefix, such as `312`, `86.4 M` or `5.2 T`."""
    for prefix in ("", "k", "M", "G", "T"):
        if number < 999.95:
            return f"{number:.0f}" if not prefix else f"{number:.1f} {prefix}"
        number /= 1000
    return f"{number:,.1f} P"


def size(num_bytes: float) -> str:
    """Format a number of bytes with a decimal prefix, such as `312 B` or `5.2 MB`."""
    number = with_si_prefix(num_bytes)
    return f"{number}B" if " " in number else f"{number} B"


def percent(part: float, whole: float) -> str:
    """Format a share as `12.3 %` or `< 0.1 %`; return an empty string if the whole is 0."""
    if not whole:
        return ""
    share = 100 * part / whole
    return "< 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def duration(seconds: float | None) -> str:
    """Format seconds as `0:01:05` or `2 days, 3:00:00`; `?` if unknown or over 999999999 days."""
    if seconds is None or abs(seconds) >= timedelta.max.total_seconds():
        return "?"
    return str(timedelta(seconds=round(seconds)))


def short_duration(seconds: float) -> str:
    """Format a duration in its largest unit, such as `35 ms`, `1.3 s`, `12 min` or `3.5 h`."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    for limit, unit, scale in ((100, "s", 1), (6000, "min", 60)):
        if seconds < limit:
            value = seconds / scale
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def round_duration(seconds: int) -> str:
    """Format seconds in the largest unit that divides them, such as `1 minute` or `90 minutes`."""
    units = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
    unit, length = next((u, n) for u, n in units if seconds >= n and seconds % n == 0)
    count = seconds // length
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
