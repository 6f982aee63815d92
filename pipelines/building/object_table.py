"""All objects of a dataset as one wide table: their listing and the last event of each stage."""

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.storage import Storage
from dataset.catalog.event_columns import LIST, LISTED
from dataset.catalog.event_log import Catalog
from dataset.catalog.latest import LatestEvents, align, rows_with
from dataset.columns import TableColumns
from pipelines.building.decide import Decider
from pipelines.building.projection import NOT_FOR_PLANS, projection
from pipelines.building.stages.object_state import ObjectState

__all__ = ["Objects", "latest_of", "load_objects", "widen"]


class Objects:
    """The listed objects, in the order of their ids.

    The columns have the names that ObjectState uses: `asset_id`, else `STAGE.NAME`.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.columns = TableColumns(table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def ids(self) -> pa.ChunkedArray:
        """The asset ids of the objects."""
        return self.table["asset_id"]

    def state(self, row: int) -> ObjectState:
        """Return the state of the object in a row."""
        return next(self.states([row]))

    def states(self, rows: Sequence[int] | np.ndarray) -> Iterator[ObjectState]:
        """Yield the states of the objects in these rows, read block by block."""
        for start in range(0, len(rows), _BLOCK):
            block = self._plan_columns.take(pa.array(rows[start : start + _BLOCK], pa.int64()))
            for row in block.to_pylist():
                yield ObjectState(row={k: v for k, v in row.items() if v is not None})

    def find(self, asset_id: str) -> int | None:
        """Return the row of an object; None if it is not listed."""
        row = pc.index(self.ids, asset_id).as_py()
        return None if row < 0 else int(row)

    @cached_property
    def _plan_columns(self) -> pa.Table:
        names = self.table.column_names
        return self.table.select(
            [n for n in names if n.rpartition(".")[2] not in {"seq", *NOT_FOR_PLANS}]
        )


_BLOCK = 1024
"""Rows that are converted to Python values at once."""


def latest_of(root: Storage, catalog: Catalog | None = None) -> LatestEvents:
    """Return the last events of a dataset, with the columns of all stages and filters."""
    return LatestEvents(root, catalog or Catalog(root), projection())


def load_objects(
    latest: LatestEvents,
    decider: Decider,
    columns: Sequence[str] | None = None,
    stages: Collection[str] | None = None,
) -> Objects:
    """Return all objects that the source lists.

    `columns` limits which columns are read, by their names without the stage, and `stages` of which
    stages, among them `list`; by default all.
    """
    wanted = decider.stage_rigs.keys() if stages is None else stages
    tables = latest.tables([decider.stage_rigs[stage] for stage in wanted], columns)
    listed = tables.pop(decider.stage_rigs[LIST.stage])
    return widen(rows_with(listed, "status", *LISTED), tables, decider)


def widen(listed: pa.Table, tables: dict[tuple[str, str], pa.Table], decider: Decider) -> Objects:
    """Return the listed objects with the columns of each stage's table joined to their rows."""
    ids = listed["asset_id"].combine_chunks()
    if not pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py():  # the base's rows are sorted
        listed = listed.sort_by("asset_id")
    ids = listed["asset_id"]
    wide = listed.rename_columns(
        [name if name == "asset_id" else f"list.{name}" for name in listed.column_names]
    )
    for stage, stage_rig in decider.stage_rigs.items():
        # A missing column reads as null. An empty table is left out, and without objects all are:
        # pyarrow cannot filter a column of maps that has no chunks.
        if len(ids) and stage_rig in tables and tables[stage_rig].num_rows:
            aligned = align(ids, tables.pop(stage_rig))
            for name in aligned.column_names:
                if name not in ("asset_id", "seq"):
                    wide = wide.append_column(f"{stage}.{name}", aligned[name])
    return Objects(wide)
