"""All objects of a dataset as one wide table: what the source lists, and the last of each stage."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.event_log import Catalog
from dataset.catalog.latest import Latest, align, rows_with
from dataset.columns import TableColumns
from pipelines.building.decide import Decider
from pipelines.building.projection import NOT_FOR_PLANS, projection
from pipelines.building.stages.object_state import ObjectState

__all__ = ["Objects", "latest_of", "load_objects", "widen"]


class Objects:
    """The listed objects, in the order of their ids; see ObjectState for the names of columns."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.columns = TableColumns(table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def ids(self) -> pa.ChunkedArray:
        """Their asset ids."""
        return self.table["asset_id"]

    def state(self, row: int) -> ObjectState:
        """One of them."""
        return next(self.states([row]))

    def states(self, rows: Sequence[int] | np.ndarray) -> Iterator[ObjectState]:
        """Some of them, read together."""
        for start in range(0, len(rows), _BLOCK):
            block = self._lean.take(pa.array(rows[start : start + _BLOCK], pa.int64()))
            for row in block.to_pylist():
                yield ObjectState(row={k: v for k, v in row.items() if v is not None})

    def find(self, asset_id: str) -> int | None:
        """The row of an object."""
        row = pc.index(self.ids, asset_id).as_py()
        return None if row < 0 else int(row)

    @cached_property
    def _lean(self) -> pa.Table:
        names = self.table.column_names
        return self.table.select(
            [n for n in names if n.rpartition(".")[2] not in {"seq", *NOT_FOR_PLANS}]
        )


_BLOCK = 1024


def latest_of(root: Storage, catalog: Catalog | None = None) -> Latest:
    """The newest events of a dataset, in the columns that plans need."""
    return Latest(root, catalog or Catalog(root), projection())


def load_objects(latest: Latest, decider: Decider, columns: Sequence[str] | None = None) -> Objects:
    """Every object that its source still lists. `columns` (without stages) limits what is read."""
    tables = latest.tables(decider.places.values(), columns)
    listed = tables.pop(decider.places[LIST.stage])
    return widen(rows_with(listed, "status", "ok"), tables, decider)


def widen(listed: pa.Table, tables: dict[tuple[str, str], pa.Table], decider: Decider) -> Objects:
    """One row for each listed object, with what each stage's table says of it."""
    ids = listed["asset_id"].combine_chunks()
    if not pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py():  # the base's rows are sorted
        listed = listed.sort_by("asset_id")
    ids = listed["asset_id"]
    wide = listed.rename_columns(
        [name if name == "asset_id" else f"list.{name}" for name in listed.column_names]
    )
    for stage, place in decider.places.items():
        # An empty table has nothing to say of anybody: its columns are null anyway.
        if place in tables and tables[place].num_rows:
            found = align(ids, tables.pop(place))
            for name in found.column_names:
                if name not in ("asset_id", "seq"):
                    wide = wide.append_column(f"{stage}.{name}", found[name])
    return Objects(wide)
