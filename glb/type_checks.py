"""Checks of the types of JSON values; glb.schema is built from them.

A check takes a value and returns a description of its problem that begins with the path to it, or
an empty string if the value is valid. As in Blender's importer, `null` is the same as absent.
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
    "Choice",
    "Entries",
    "Items",
    "Object",
    "Range",
]

Check = Callable[[Any], str]

_MAX_ITEMS = 250_000
"""Maximum number of items of one list, which bounds the time of the checks; the JSON itself is
bounded by max_json_bytes."""


def _index(value: Any) -> str:
    return "" if type(value) is int and value >= 0 else ": not an index"


def _integer(value: Any) -> str:
    return "" if type(value) is int else ": not an integer"


def _number(value: Any) -> str:
    # Integers of any length compare exactly, and NaN compares as false.
    finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
    return "" if finite else ": not a finite number"


def _switch(value: Any) -> str:
    return "" if type(value) is bool else ": not true or false"


def _text(value: Any) -> str:
    return "" if type(value) is str else ": not a string"


def _anything(value: Any) -> str:  # noqa: ARG001 - has the signature of a check
    return ""


INDEX: Check = _index
"""A non-negative integer."""
INTEGER: Check = _integer
NUMBER: Check = _number
"""A finite number."""
SWITCH: Check = _switch
TEXT: Check = _text
ANYTHING: Check = _anything


@dataclass(frozen=True)
class Range:
    """A finite number; one outside the range means the nearer end."""

    low: float
    high: float

    def __call__(self, value: Any) -> str:
        """Return the problem of a value, or an empty string."""
        return _number(value)

    def pick(self, value: float) -> float:
        """Return the number of the range that a valid value means."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: frozenset[Any]

    def __call__(self, value: Any) -> str:
        """Return the problem of a value, or an empty string."""
        return "" if type(value) in (int, str) and value in self.values else ": not a known value"


@dataclass(frozen=True)
class Items:
    """A list with bounds on the number of its items, as Blender's importer requires."""

    check: Check
    min_items: int = 0
    max_items: int | None = None
    or_empty: bool = False
    """Whether an empty list is valid too; Blender's importer then uses a default."""
    max_picked: int | None = None
    """Number of items with a meaning; more are valid, but ignored."""

    def __call__(self, value: Any) -> str:
        """Return the problem of a value, or an empty string.

        Raises GlbError (`too_large`) for a list of more than 250,000 items.
        """
        if type(value) is not list:
            return ": not a list"
        if len(value) > _MAX_ITEMS:
            raise GlbError(FailureKind.TOO_LARGE, f"JSON: a list of {len(value)} items")
        if self.or_empty and not value:
            return ""
        too_many = self.max_items is not None and len(value) > self.max_items
        if len(value) < self.min_items or too_many:
            return f": {len(value)} items instead of {self.min_items}"
        for index, item in enumerate(value):
            problem = self.check(item)
            if problem:
                return f".{index}{problem}"
        return ""

    def pick(self, value: list[Any]) -> list[Any]:
        """Return the items with a meaning, as their check means them."""
        return [_picked(self.check, item) for item in value[: self.max_picked]]


@dataclass(frozen=True)
class Entries:
    """An object with any keys, such as the attributes of a primitive."""

    check: Check

    def __call__(self, value: Any) -> str:
        """Return the problem of a value, or an empty string."""
        if type(value) is not dict:
            return ": not an object"
        problems = ((name, self.check(item)) for name, item in value.items())
        return next((f".{name[:40]!r}{problem}" for name, problem in problems if problem), "")


@dataclass(frozen=True)
class Object:
    """An object with known fields; all other fields are ignored."""

    fields: Mapping[str, Check]
    required: frozenset[str] = field(default=frozenset())
    loose: Mapping[str, Check] = field(default_factory=dict)
    """Fields that a picture may do without: a wrong value is the same as none."""

    def __call__(self, value: Any) -> str:
        """Return the problem of a value, or an empty string."""
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
        """Return a copy of a valid object with only its known fields."""
        picked = {}
        for name, check in self.fields.items():
            item = value.get(name)
            if item is not None:
                picked[name] = _picked(check, item)
        for name, check in self.loose.items():
            item = value.get(name)
            if item is not None and not check(item):
                picked[name] = _picked(check, item)
        return picked


def _picked(check: Check, item: Any) -> Any:
    return check.pick(item) if isinstance(check, Object | Items | Range) else item
