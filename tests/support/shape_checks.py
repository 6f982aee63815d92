"""The run-time type checker behind jaxtyping's import hook."""

import functools
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception

from tests.support.paths import REPOSITORY
from tests.support.sources import PACKAGES

__all__ = ["check", "modules_with_shapes"]

# Accept an int for a float, as Python does.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def modules_with_shapes() -> list[str]:
    """Return the names of the project's modules that annotate shapes.

    The import hook recompiles a module at every import, so it is used for these modules only.
    """
    return [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        if "jaxtyping" in path.read_text()
    ]


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check calls with beartype; its checking code is generated at the first call.

    A test process never calls most of the functions that it imports, so this saves time.
    """
    checked: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if checked is None:
            checked = _decorate(function)
        return checked(*args, **kwargs)

    return call


def _decorate(function: Callable[..., Any]) -> Callable[..., Any]:
    """Apply beartype, except to annotations it rejects: `Self` outside a class, and protocols."""
    try:
        return _checked(function)
    except (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception):
        return function
