"""Merging of byte ranges into few requests that read few unwanted bytes."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

__all__ = ["MAX_WASTE", "Range", "coalesce"]

Range = tuple[int, int]
"""Bytes [start, stop) of a file."""
MAX_WASTE = 0.25
"""Largest number of unwanted bytes read, as a fraction of the wanted bytes."""


def coalesce(
    ranges: Iterable[Range], max_gap: int, max_waste: float = MAX_WASTE, free_gap: int = 0
) -> Sequence[Range]:
    """Return sorted, disjoint ranges that cover all the given ones.

    Neighbours at most `max_gap` bytes apart are merged, the closest first, while the bytes in the
    merged gaps are at most `max_waste` times the wanted bytes; gaps of up to `free_gap` bytes are
    always merged and do not count. Empty ranges are ignored.
    """
    disjoint: list[Range] = []
    for start, stop in sorted(span for span in ranges if span[0] < span[1]):
        if disjoint and start <= disjoint[-1][1]:
            disjoint[-1] = disjoint[-1][0], max(disjoint[-1][1], stop)
        else:
            disjoint.append((start, stop))
    budget = max_waste * sum(stop - start for start, stop in disjoint)
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(disjoint)]
    closed: set[int] = set()
    for i in sorted(range(len(gaps)), key=gaps.__getitem__):
        budget -= gaps[i] if gaps[i] > free_gap else 0
        if gaps[i] > max_gap or budget < 0:
            break
        closed.add(i)
    merged = disjoint[:1]
    for i, later in enumerate(disjoint[1:]):
        if i in closed:
            merged[-1] = merged[-1][0], later[1]
        else:
            merged.append(later)
    return merged
