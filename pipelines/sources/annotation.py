"""The annotation of one object of Objaverse, as a record."""

from collections.abc import Mapping
from typing import Any

from dataset.object_record import ObjectRecord
from pipelines.sources.skipped_rows import text_problem

__all__ = ["read_annotation"]

_JSON_TYPES = {bool: "true or false", int: "a number", float: "a number", str: "text"}
_JSON_TYPES |= {list: "a list", dict: "an object", type(None): "null"}


def read_annotation(
    annotation: Any, *, asset_id: str, path: str, categories: tuple[str, ...]
) -> tuple[ObjectRecord, str]:
    """Return an object's record, and why its annotation cannot be used; empty if it can.

    A missing or null annotation or field is unknown. A field with a value of the wrong type is not:
    without it, the object could have another licence or other tags than its author chose. Fields
    that are not part of the record are ignored.
    """
    fields = _Fields(annotation)
    record = ObjectRecord(
        asset_id=asset_id,
        path=path,
        name=fields.text("name") or "",
        licence=fields.text("license"),
        author=fields.author(),
        tags=fields.tags(),
        categories=categories,
        caption=None,
        age_restricted=fields.flag("isAgeRestricted"),
    )
    return record, "; ".join(fields.problems)


class _Fields:
    """The fields of an annotation, and the problems found while they are read."""

    def __init__(self, annotation: Any) -> None:
        self.problems: list[str] = []
        self._values: Mapping[str, Any] = {}
        if isinstance(annotation, dict):
            self._values = annotation
        elif annotation is not None:
            self._wrong_type("the annotation", annotation, "an object")

    def text(self, name: str) -> str | None:
        """Return a field of text; None if it is null or invalid."""
        return self._text(name, self._values.get(name))

    def flag(self, name: str) -> bool:
        """Return a field of true or false; False if it is null or invalid."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            self._wrong_type(name, value, "true or false")
        return value is True

    def author(self) -> str | None:
        """Return the name of the user, which is an object with `username`, or text."""
        user = self._values.get("user")
        if isinstance(user, dict):
            return self._text("user.username", user.get("username"))
        return self._text("user", user)

    def tags(self) -> tuple[str, ...]:
        """Return the tags that are not empty; each is an object with `name`, or text."""
        tags = self._values.get("tags")
        if tags is not None and not isinstance(tags, list):
            self._wrong_type("tags", tags, "a list")
        names = []
        for tag in tags if isinstance(tags, list) else ():
            name = tag.get("name") if isinstance(tag, dict) else tag
            if name is None:
                self._wrong_type("a tag", name, "text")
                break
            text = self._text("a tag", name)
            if text is None:
                break
            names.append(text)
        return tuple(name for name in names if name)

    def _text(self, name: str, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            self._wrong_type(name, value, "text")
            return None
        problem = text_problem(value)
        if problem:
            self.problems.append(f"{name} {problem}")
            return None
        return value

    def _wrong_type(self, name: str, value: Any, expected: str) -> None:
        self.problems.append(f"{name} is {_JSON_TYPES[type(value)]}, not {expected}")
