"""The objects of a dataset that satisfy conditions, with any columns of the catalog."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from core.choices import choose, unknown_choice
from core.errors import BadInput
from core.failures import FailureKind
from core.storage import Storage
from dataset.catalog.event_columns import LIST, EventColumns
from dataset.conditions import ColumnNames, Condition, parse_condition
from filters.chain import all_reasons, reason_title
from pipelines.building.dataset_status import (
    DatasetState,
    count_dropped,
    count_failed,
    load_dataset_state,
    stored_config,
)
from pipelines.building.decide import STATES, Decider
from pipelines.building.object_table import Objects, latest_of, load_objects
from pipelines.building.projection import NOT_FOR_PLANS, all_columns, columns_for_counts
from pipelines.selection.decided_columns import DECIDED, DecidedColumns

__all__ = ["USUAL_COLUMNS", "Selection", "select_objects", "unknown_kind"]

USUAL_COLUMNS = ("asset_id", "state", "stage", "reason", "measured", "limit", "kind", "message")
"""The columns of a table for which none were named."""
_BLOCK = 1 << 16
"""Rows of which all columns are in memory at the same time."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Conditions that an object must satisfy; None is no condition."""

    state: str | None = None
    reason: str | None = None
    kind: str | None = None
    where: str | None = None


def select_objects(
    root: Storage, selection: Selection, columns: Sequence[str] = ("asset_id",)
) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Return the selected objects in the order of their ids: schema, and tables of many rows each.

    The columns have the names in `columns`. Only those that are needed are read. Raises BadInput
    for an unknown column or value, and lists those there are.
    """
    schema = _all_columns()
    names = ColumnNames(schema.names)
    wanted = {name: names.resolve("--columns", name) for name in columns}
    _require_possible(selection)
    condition = None
    if selection.where is not None:
        condition = parse_condition("--where", selection.where, schema, "objects")
    read = {*wanted.values(), *(condition.columns.values() if condition else ())}
    table = _load(root, selection, read)
    rows = table.rows(selection)
    if condition is not None:
        rows = rows[_satisfying(condition, table, rows, schema)]
    stored = pa.schema([schema.field(column) for column in wanted.values()])
    shown = pa.schema([field.with_name(name) for name, field in zip(wanted, stored, strict=True)])
    blocks = (table.at(block, stored).rename_columns(shown.names) for block in _blocks(rows))
    return shown, blocks


def unknown_kind(kind: str, counts: dict[str, int]) -> BadInput | None:
    """Return the error for a failure kind that neither the code nor the dataset has.

    `counts` are the failures in the dataset, by kind.
    """
    known = dict.fromkeys([*counts, *(one.value for one in FailureKind)])
    return None if kind in known else unknown_choice("--kind", kind, known, counts)


def _all_columns() -> pa.Schema:
    """Return the names and types of all columns; those that every stage has come last."""
    shared = {column.name for column in (*EventColumns("").of_event, *EventColumns("").of_data)}
    stored = sorted(all_columns(), key=lambda column: column.name in shared)
    return pa.schema(
        [
            ("asset_id", pa.string()),
            *((name, pa.string()) for name in DECIDED),
            *((column.key, column.type) for column in stored),
        ]
    )


def _require_possible(selection: Selection) -> None:
    """Raise BadInput for an unknown state, or for conditions that no object can satisfy."""
    if selection.state is not None:
        choose("--state", selection.state, dict.fromkeys(STATES))
    for option, value, state in (
        ("--reason", selection.reason, "dropped"),
        ("--kind", selection.kind, "failed"),
    ):
        if value is not None and selection.state not in (None, state):
            raise BadInput(f"{option} selects {state} objects: leave out --state {selection.state}")
    if selection.reason is not None and selection.kind is not None:
        raise BadInput("give --reason (of dropped objects) or --kind (of failed ones), not both")


@dataclass(frozen=True, kw_only=True)
class _Table:
    """All objects with the columns that were read, and what was decided on them if needed."""

    objects: Objects
    state: DatasetState | None

    def rows(self, selection: Selection) -> Int64[np.ndarray, "n"]:
        """Return the rows of the objects with the selection's state, reason and failure kind."""
        mask = np.ones(len(self.objects), dtype=bool)
        if self.state is not None:
            if selection.state is not None:
                mask &= np.array(STATES)[self.state.decisions.state] == selection.state
            if selection.reason is not None:
                mask &= _dropped_for(self.state, selection.reason)
            if selection.kind is not None:
                mask &= _failed_with(self.state, selection.kind)
        return np.flatnonzero(mask)

    def at(self, rows: Int64[np.ndarray, "n"], schema: pa.Schema) -> pa.Table:
        """Return the columns of a schema in these rows."""
        decided = DecidedColumns(self.state) if self.state is not None else None
        stored, arrays = self.objects.table, []
        for field in schema:
            if decided is not None and field.name in DECIDED:
                arrays.append(decided.column(field.name, rows))
            elif field.name not in stored.column_names:
                arrays.append(pa.nulls(len(rows), field.type))
            else:
                arrays.append(_take(stored[field.name], rows))
        return pa.table(arrays, schema=schema)


def _take(column: pa.ChunkedArray, rows: Int64[np.ndarray, "n"]) -> pa.ChunkedArray:
    """Return a column in these ascending rows; consecutive ones are not copied."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return column.slice(int(rows[0]), len(rows))
    return column.take(pa.array(rows))


def _load(root: Storage, selection: Selection, columns: Collection[str]) -> _Table:
    """Read the objects with these columns, and decide on them if a condition or column needs it."""
    names = {column.rpartition(".")[2] for column in columns if "." in column}
    conditions = (selection.state, selection.reason, selection.kind)
    if not set(DECIDED) & set(columns) and conditions == (None, None, None):
        stages = {LIST.stage, *(column.partition(".")[0] for column in columns if "." in column)}
        decider, latest = Decider(stored_config(root)), latest_of(root)
        read = [*names, LIST.status.name]
        return _Table(objects=load_objects(latest, decider, read, stages), state=None)
    if "message" in columns:
        names.add(LIST.message.name)
    state = load_dataset_state(root, [*({*columns_for_counts()} - NOT_FOR_PLANS), *names])
    return _Table(objects=state.objects, state=state)


def _dropped_for(dataset_state: DatasetState, reason: str) -> Bool[np.ndarray, "n"]:
    decisions = dataset_state.decisions
    counts = count_dropped(decisions)
    known = dict.fromkeys([*counts, *(name for _, name in decisions.reasons), *all_reasons()])
    titles = {reason_title(name): name for name in known}
    if reason not in known and reason not in titles:
        shown = {reason_title(name): count for name, count in counts.items()}
        raise unknown_choice("--reason", reason, titles, shown)
    stored = titles.get(reason, reason)
    numbers = [i for i, (_, name) in enumerate(decisions.reasons) if name == stored]
    return np.isin(decisions.reason, numbers)


def _failed_with(dataset_state: DatasetState, kind: str) -> Bool[np.ndarray, "n"]:
    error = unknown_kind(kind, count_failed(dataset_state))
    if error is not None:
        raise error
    decisions, columns = dataset_state.decisions, dataset_state.objects.columns
    mask = np.zeros(len(decisions), dtype=bool)
    for index, outcome in enumerate(decisions.outcomes):
        mask |= (decisions.failed == index) & columns.one_of(outcome.kind, {kind})
    return mask


def _satisfying(
    condition: Condition, table: _Table, rows: Int64[np.ndarray, "n"], schema: pa.Schema
) -> Int64[np.ndarray, "m"]:
    """Return which of these rows satisfy the condition, as indices of `rows`."""
    read = pa.schema([schema.field(name) for name in sorted(set(condition.columns.values()))])
    if not len(read):  # a table needs a column to have rows
        read = pa.schema([schema.field("asset_id")])
    return condition.rows(table.at(rows, read))


def _blocks(rows: Int64[np.ndarray, "n"]) -> Iterator[Int64[np.ndarray, "m"]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
