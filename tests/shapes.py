"""The run-time type checker behind jaxtyping's import hook."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

__all__ = ["check"]

# An int may stand where a float is asked for, as everywhere in Python.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype, but for methods that return `Self`: it takes those only with their whole class."""
    try:
        return _checked(function)
    except BeartypeDecorHintPep673Exception:
        return function
