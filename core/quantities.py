"""Numbers as text for people: counts, sizes, parts and durations."""

from datetime import timedelta

__all__ = ["amount", "duration", "percent", "prefixed", "round_duration", "short", "size"]


def amount(number: float) -> str:
    """Return `0.0021`, `3.5`, `12,345`: two significant digits, or a whole number."""
    return f"{number:,.0f}" if number == 0 or number >= 9.95 else f"{number:.2g}"


def prefixed(number: float) -> str:
    """Return `312`, `86.4 M`, `5.2 T`: a number with an SI prefix."""
    for prefix in ("", "k", "M", "G", "T"):
        if number < 999.95:
            return f"{number:.0f}" if not prefix else f"{number:.1f} {prefix}"
        number /= 1000
    return f"{number:,.1f} P"


def size(num_bytes: float) -> str:
    """Return `312 B`, `5.2 MB`: a number of bytes with a decimal prefix."""
    number = prefixed(num_bytes)
    return f"{number}B" if " " in number else f"{number} B"


def percent(part: float, whole: float) -> str:
    """Return `12.3 %`, `< 0.1 %`; empty if the whole is 0."""
    if not whole:
        return ""
    share = 100 * part / whole
    return "< 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def duration(seconds: float | None) -> str:
    """Return `0:01:05`, `2 days, 3:00:00`; `?` for an unknown duration."""
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))


def short(seconds: float) -> str:
    """Return `35 ms`, `1.3 s`, `12 min`, `3.5 h`: a duration in its largest unit."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    for limit, unit, scale in ((100, "s", 1), (6000, "min", 60)):
        if seconds < limit:
            value = seconds / scale
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def round_duration(seconds: int) -> str:
    """Return `15 seconds`, `1 minute`, `90 minutes`: whole numbers of the largest unit."""
    units = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
    unit, length = next((u, n) for u, n in units if seconds >= n and seconds % n == 0)
    count = seconds // length
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
