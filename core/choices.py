"""Look-up of a named choice, with a suggestion for a misspelt name."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from core.errors import BadInput

__all__ = ["choose"]

Choice = TypeVar("Choice")


def choose(kind: str, name: str, known: Mapping[str, Choice]) -> Choice:
    """Return `known[name]`. Raises BadInput that suggests the closest name if there is none."""
    try:
        return known[name]
    except KeyError:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
        raise BadInput(f"{kind} {name!r} does not exist; {hint}") from None
