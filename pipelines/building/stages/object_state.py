"""What the source and the catalog say of one object."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from dataset.columns import Column
from dataset.object_record import ObjectRecord

__all__ = ["ObjectState"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ObjectState:
    """The row of one object in the table of all objects: the last event of each stage."""

    row: Mapping[str, Any]
    """By the keys of the columns."""

    @property
    def asset_id(self) -> str:
        """`source:native_id`."""
        return str(self.row["asset_id"])

    @cached_property
    def record(self) -> ObjectRecord:
        """The object as its source lists it."""
        names = ObjectRecord.__dataclass_fields__
        values = {name: self.row.get(f"list.{name}") for name in names}
        lists = {name: list(values[name] or ()) for name in ("tags", "categories")}
        return ObjectRecord.from_dict(values | lists | {"asset_id": self.asset_id})

    def get(self, column: Column[T]) -> T | None:
        """Return the value of a column; None if there is none."""
        return self.row.get(column.key)

    def require(self, column: Column[T]) -> T:
        """Return a value that an earlier stage has stored. Raises KeyError without it."""
        value = self.row.get(column.key)
        if value is None:
            raise KeyError(f"{self.asset_id}: {column.key} is not known")
        return value
