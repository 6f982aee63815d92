"""The state of one object: its listing and the last event of each stage."""

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
    """The row of one object in the table of all objects."""

    row: Mapping[str, Any]
    """The values by column key, such as `fetch.sha256`; absent if null."""

    @property
    def asset_id(self) -> str:
        """The asset id, `source:native_id`."""
        return str(self.row["asset_id"])

    @cached_property
    def record(self) -> ObjectRecord:
        """The object as its source lists it."""
        names = ObjectRecord.__dataclass_fields__
        values = {name: self.row.get(f"list.{name}") for name in names}
        lists = {name: list(values[name] or ()) for name in ("tags", "categories")}
        return ObjectRecord.from_dict(values | lists | {"asset_id": self.asset_id})

    def get(self, column: Column[T]) -> T | None:
        """Return the value of a column; None if it has none."""
        return self.row.get(column.key)

    def require(self, column: Column[T]) -> T:
        """Return a value that an earlier stage stored. Raises KeyError if there is none."""
        value = self.row.get(column.key)
        if value is None:
            raise KeyError(f"{self.asset_id}: the catalog has no value of {column.key}")
        return value
