"""Look-up of a named choice, and the error for an unknown one, which lists those there are."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from core.errors import BadInput

__all__ = ["choose", "unknown_choice"]

Choice = TypeVar("Choice")


def choose(kind: str, name: str, known: Mapping[str, Choice]) -> Choice:
    """Return `known[name]`. Raises BadInput that suggests the closest name if there is none."""
    try:
        return known[name]
    except KeyError:
        raise unknown_choice(kind, name, known) from None


def unknown_choice(
    kind: str, name: str, known: Iterable[str], counts: Mapping[str, int] | None = None
) -> BadInput:
    """Return the error for a name that does not exist; it lists those there are, the closest first.

    `counts` are shown behind the names that have one.
    """
    counts = counts or {}
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3)
    ordered = dict.fromkeys([*close, *sorted(names, key=lambda other: -counts.get(other, 0))])
    listed = ", ".join(f"{one} ({counts[one]:,})" if counts.get(one) else one for one in ordered)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return BadInput(f"{kind} {name!r} does not exist; {hint}there are: {listed or 'none'}")
