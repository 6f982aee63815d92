"""Which byte ranges of a file become one request: few requests, little that nobody asked for."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

__all__ = ["MAX_WASTE", "Range", "coalesce"]

Range = tuple[int, int]
"""Bytes [start, stop) of a file."""
MAX_WASTE = 0.25
"""Bytes between the wanted ones that may be read with them, as a part of the wanted."""


def coalesce(
    ranges: Iterable[Range], max_gap: int, max_waste: float = MAX_WASTE
) -> Sequence[Range]:
    """Disjoint ranges, in order, that hold all the given ones.

    Neighbours no more than `max_gap` bytes apart become one, the closest first, as long as all the
    bytes between them are at most `max_waste` of those asked for. Empty ranges ask for nothing.
    """
    apart: list[Range] = []
    for start, stop in sorted(found for found in ranges if found[0] < found[1]):
        if apart and start <= apart[-1][1]:
            apart[-1] = apart[-1][0], max(apart[-1][1], stop)
        else:
            apart.append((start, stop))
    left = max_waste * sum(stop - start for start, stop in apart)
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(apart)]
    closed: set[int] = set()
    for i in sorted(range(len(gaps)), key=gaps.__getitem__):
        left -= gaps[i]
        if gaps[i] > max_gap or left < 0:
            break
        closed.add(i)
    merged = apart[:1]
    for i, later in enumerate(apart[1:]):
        if i in closed:
            merged[-1] = merged[-1][0], later[1]
        else:
            merged.append(later)
    return merged
