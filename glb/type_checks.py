"""Checks of the types of a JSON value, from which glb.schema is made.

A check takes a value and returns the problem with it, after the path to where it is: an empty
string if there is none. As in Blender's importer, `null` is the same as nothing.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.failures import FailureKind
from glb.glb_error import GlbError

__all__ = [
    "ANYTHING",
    "INDEX",
    "INTEGER",
    "NUMBER",
    "SWITCH",
    "TEXT",
    "Check",
    "Entries",
    "Items",
    "Object",
]

Check = Callable[[Any], str]

_MAX_ITEMS = 250_000
"""Items of one list; bounds the time of the checks.

The JSON itself is bounded by max_json_bytes.
"""


def _index(value: Any) -> str:
    return "" if type(value) is int and value >= 0 else ": not an index"


def _integer(value: Any) -> str:
    return "" if type(value) is int else ": not an integer"


def _number(value: Any) -> str:
    # Integers of any length compare exactly; not a number compares as false.
    finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
    return "" if finite else ": not a finite number"


def _switch(value: Any) -> str:
    return "" if type(value) is bool else ": not true or false"


def _text(value: Any) -> str:
    return "" if type(value) is str else ": not a text"


def _anything(value: Any) -> str:  # noqa: ARG001 - a check like the others
    return ""


INDEX: Check = _index
"""An integer from 0 on."""
INTEGER: Check = _integer
NUMBER: Check = _number
"""A finite number."""
SWITCH: Check = _switch
TEXT: Check = _text
ANYTHING: Check = _anything


@dataclass(frozen=True)
class Items:
    """A list with bounds on the number of its items, as Blender's importer needs them."""

    check: Check
    least: int = 0
    most: int | None = None
    or_none: bool = False
    """Whether no items at all stand for a default, as in Blender's importer."""

    def __call__(self, value: Any) -> str:
        """Return the problem of a value.

        Raises GlbError (`too_large`) for a list of more than 250,000 items.
        """
        if type(value) is not list:
            return ": not a list"
        if len(value) > _MAX_ITEMS:
            raise GlbError(FailureKind.TOO_LARGE, f"JSON: a list of {len(value)} items")
        if self.or_none and not value:
            return ""
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            return f": {len(value)} items instead of {self.least}"
        for place, item in enumerate(value):
            problem = self.check(item)
            if problem:
                return f".{place}{problem}"
        return ""


@dataclass(frozen=True)
class Entries:
    """An object with any keys, such as the attributes of a primitive."""

    check: Check

    def __call__(self, value: Any) -> str:
        """Return the problem of a value."""
        if type(value) is not dict:
            return ": not an object"
        problems = ((name, self.check(item)) for name, item in value.items())
        return next((f".{name[:40]!r}{problem}" for name, problem in problems if problem), "")


@dataclass(frozen=True)
class Object:
    """An object with known fields; others are ignored. Any may have a name and extensions."""

    fields: Mapping[str, Check]
    required: frozenset[str] = field(default=frozenset())

    def __call__(self, value: Any) -> str:
        """Return the problem of a value."""
        if type(value) is not dict:
            return ": not an object"
        for name, check in self.fields.items():
            item = value.get(name)
            if item is not None:
                problem = check(item)
                if problem:
                    return f".{name}{problem}"
            elif name in self.required:
                return f".{name}: missing"
        return ""

    def pick(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of a valid object with its known fields only."""
        picked = {}
        for name, check in self.fields.items():
            item = value.get(name)
            if item is not None:
                picked[name] = check.pick(item) if isinstance(check, Object) else item
        return picked
