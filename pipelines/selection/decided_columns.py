"""The columns that describe the state of an object; they are computed, not stored."""

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from dataset.catalog.event_columns import REMOVE
from dataset.columns import Column
from filters.verdict import FilterResult
from pipelines.building.dataset_status import DatasetState
from pipelines.building.decide import REASONS_TO_WORK, STATES

__all__ = ["DECIDED", "JSON_COLUMNS", "DecidedColumns"]

DECIDED: Mapping[str, str] = {
    "state": "`kept`, `dropped`, `failed` or `pending`",
    "stage": "the stage that dropped or failed the object, or that is next; null if it is kept",
    "reason": "why it is dropped, such as `low_occupancy`: the first reason if there are several",
    "measured": "the value that decided, as JSON",
    "limit": "the limit that it was compared with, as JSON",
    "kind": "failure kind of a failed object",
    "message": "explanation of the failure, or the text of `lrm remove --reason`",
    "why": "why a stage is to be done, as `lrm plan` names it",
}
"""Names and meanings of the columns; all are text."""
JSON_COLUMNS = frozenset({"measured", "limit"})
"""The columns whose text is JSON."""


class DecidedColumns:
    """Computes the columns of any rows of a dataset."""

    def __init__(self, dataset_state: DatasetState) -> None:
        self._objects = dataset_state.objects
        self._decisions = dataset_state.decisions
        self._of: Mapping[str, Callable[[np.ndarray], pa.Array]] = {
            "state": lambda rows: _named(STATES, self._decisions.state[rows]),
            "stage": self._stage,
            "reason": self._reason,
            "measured": self._measured,
            "limit": self._limit,
            "kind": self._kind,
            "message": self._message,
            "why": lambda rows: _named([None, *REASONS_TO_WORK[1:]], self._decisions.why[rows]),
        }

    def column(self, name: str, rows: Int64[np.ndarray, "n"]) -> pa.Array:
        """Return the values of a column, one of `DECIDED`, in these rows."""
        return self._of[name](rows)

    def _stage(self, rows: Int64[np.ndarray, "n"]) -> pa.Array:
        decisions = self._decisions
        names = [stage.name for stage in decisions.stages]
        next_stage = _named(names, decisions.stage[rows])
        failed = _named([outcome.stage for outcome in decisions.outcomes], decisions.failed[rows])
        needs = {filter_.name: filter_.needs for filter_, _ in decisions.filter_results}
        stages = [needs.get(name, name) for name, _ in decisions.reasons]
        return pc.coalesce(_named(stages, decisions.reason[rows]), failed, next_stage)

    def _reason(self, rows: Int64[np.ndarray, "n"]) -> pa.Array:
        reasons = [reason for _, reason in self._decisions.reasons]
        return _named(reasons, self._decisions.reason[rows])

    def _measured(self, rows: Int64[np.ndarray, "n"]) -> pa.Array:
        results = self._results
        reasons = self._decisions.reason[rows].tolist()
        measured = (
            None if reason < 0 or (result := results[reason]) is None else result.measured(row)
            for reason, row in zip(reasons, rows.tolist(), strict=True)
        )
        return pa.array([_json(value) for value in measured], pa.string())

    def _limit(self, rows: Int64[np.ndarray, "n"]) -> pa.Array:
        limits = [_json(result and result.limit) for result in self._results]
        return _named(limits, self._decisions.reason[rows])

    @cached_property
    def _results(self) -> list[FilterResult | None]:
        """The result behind each reason; None if an operator removed the object."""
        by_name = {filter_.name: result for filter_, result in self._decisions.filter_results}
        return [by_name.get(name) for name, _ in self._decisions.reasons]

    def _kind(self, rows: Int64[np.ndarray, "n"]) -> pa.Array:
        return self._of_failed([one.kind for one in self._decisions.outcomes], rows)

    def _message(self, rows: Int64[np.ndarray, "n"]) -> pa.Array:
        failed = self._of_failed([one.message for one in self._decisions.outcomes], rows)
        removed = _where(self._decisions.reason[rows] == 0, self._stored(REMOVE.message, rows))
        return pc.coalesce(failed, removed)

    def _of_failed(self, columns: list[Column[str]], rows: Int64[np.ndarray, "n"]) -> pa.Array:
        """Return the values of one column of each outcome where that outcome is the failure."""
        values = pa.nulls(len(rows), pa.string())
        failed = self._decisions.failed[rows]
        for index in np.unique(failed[failed >= 0]).tolist():
            stored = self._stored(columns[index], rows)
            values = pc.coalesce(values, _where(failed == index, stored))
        return values

    def _stored(self, column: Column[str], rows: Int64[np.ndarray, "n"]) -> pa.Array:
        """Return the values of a stored column of text; empty ones become null."""
        if column.key not in self._objects.table.column_names:
            return pa.nulls(len(rows), pa.string())
        values = self._objects.table[column.key].take(pa.array(rows)).cast(pa.string())
        values = values.combine_chunks()
        return _where(pc.not_equal(values, "").to_numpy(zero_copy_only=False), values)


def _named(names: Any, index: np.ndarray) -> pa.Array:
    """Return the names at these indices; null where the index is negative."""
    codes = pa.array(index.astype(np.int32), mask=index < 0)
    return pa.array(names, pa.string()).take(codes)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _where(mask: np.ndarray, values: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(mask.astype(bool)), values, pa.nulls(len(values), pa.string()))
