"""How numbers are written for people."""

from datetime import timedelta

__all__ = ["amount", "duration", "percent", "prefixed", "round_duration", "short", "size"]


def amount(number: float) -> str:
    """`0.0021`, `3.5`, `12,345`: two digits that count, or whole."""
    return f"{number:,.0f}" if number == 0 or number >= 9.95 else f"{number:.2g}"


def prefixed(number: float) -> str:
    """`312`, `86.4 M`, `5.2 T`: a number with the prefix of its thousands."""
    for prefix in ("", "k", "M", "G", "T"):
        if number < 999.95:
            return f"{number:.0f}" if not prefix else f"{number:.1f} {prefix}"
        number /= 1000
    return f"{number:,.1f} P"


def size(num_bytes: float) -> str:
    """`5.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def percent(part: float, whole: float) -> str:
    """`12.3 %`, `< 0.1 %`; empty if there is no whole."""
    if not whole:
        return ""
    share = 100 * part / whole
    return "< 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def duration(seconds: float | None) -> str:
    """`0:01:05`, `2 days, 3:00:00`; `?` if it is not known."""
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))


def short(seconds: float) -> str:
    """`35 ms`, `1.3 s`, `12 min`, `3.5 h`."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    for limit, unit, scale in ((100, "s", 1), (6000, "min", 60)):
        if seconds < limit:
            value = seconds / scale
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def round_duration(seconds: int) -> str:
    """`15 seconds`, `1 minute`, `2 hours`: a whole number of the largest unit that fits."""
    units = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
    unit, length = next((u, n) for u, n in units if seconds >= n and seconds % n == 0)
    count = seconds // length
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
