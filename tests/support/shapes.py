"""The run-time type checker behind jaxtyping's import hook."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception

__all__ = ["check"]

# An int may stand where a float is asked for, as everywhere in Python.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype, but for what it refuses: `Self` outside its class, and protocols."""
    try:
        return _checked(function)
    except (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception):
        return function
