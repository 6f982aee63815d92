"""The columns of every stage's events, from the declarations of all stages and filters."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pyarrow as pa

from dataset.catalog.event_columns import LIST, REMOVE, EventColumns
from dataset.catalog.event_log import Event
from dataset.catalog.latest import Projection
from dataset.columns import Column
from filters.chain import CHAIN, facts_of
from filters.verdict import Fact
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import Stage

__all__ = [
    "NOT_FOR_PLANS",
    "all_columns",
    "columns_for_counts",
    "columns_for_plans",
    "listed_row",
    "projection",
    "with_event",
]

NOT_FOR_PLANS = frozenset({"timings", "message"})
"""Names of columns that neither decisions nor workers need."""
_VERSION = 2
"""Increment when the same declarations give other columns."""


def projection() -> Projection:
    """Return the columns that the catalog keeps of the events of every stage."""
    readers = _readers()

    def read(stage: str, status: str, data: Mapping[str, Any]) -> dict[str, Any]:
        return readers[stage].read(status, data) if stage in readers else {}

    return Projection(
        version=f"{_VERSION}/" + ",".join(f"{filter_.name}{filter_.version}" for filter_ in CHAIN),
        types={stage: reader.types() for stage, reader in readers.items()},
        read=read,
    )


def all_columns() -> list[Column[Any]]:
    """Return every column of the table of all objects, in the order of the stages."""
    return [column for reader in _readers().values() for column in reader.columns()]


def columns_for_plans() -> list[str]:
    """Return the names of the columns that decisions and workers need."""
    names = {column.name for column in all_columns()}
    return sorted({"seq", "asset_id", *names} - NOT_FOR_PLANS)


def columns_for_counts() -> list[str]:
    """Return the names of the columns that counts of all objects need, without details."""
    columns = all_columns()
    details = {column.name for column in columns if column.detail}
    return sorted({"seq", "asset_id", *(column.name for column in columns)} - details)


def listed_row(status: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a listing event, by their names without the stage."""
    return _LISTING.read(status, data)


def with_event(state: ObjectState, event: Event) -> ObjectState:
    """Return an object's state after one more event."""
    prefix = f"{event.stage}."
    row = {key: value for key, value in state.row.items() if not key.startswith(prefix)}
    reader = _reader(event.stage)
    own = {column.name: getattr(event, column.name) for column in reader.events.of_event}
    own |= reader.read(event.status, event.data)
    return ObjectState(row=row | {prefix + k: v for k, v in own.items() if v is not None})


class _Reader:
    """Reads the columns of one stage's events."""

    def __init__(self, stage: str, own: tuple[Column[Any], ...]) -> None:
        self.events = EventColumns(stage)
        self._own = own
        self._facts: list[Fact[Any]] = facts_of(stage)

    def columns(self) -> list[Column[Any]]:
        """Return all columns of the stage."""
        return [*self.events.of_event, *self._of_data()]

    def types(self) -> dict[str, pa.DataType]:
        """Return the types of the columns that are read from an event's data."""
        return {column.name: column.type for column in self._of_data()}

    def read(self, status: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of one event, given its status and data."""
        values = {
            column.name: data.get(column.name) for column in (*self._own, *self.events.of_data)
        }
        timings = values[self.events.timings.name]
        if timings is not None:
            values[self.events.timings.name] = list(timings.items())
        if status != "ok":
            return values  # a failed stage measured nothing
        return values | {fact.name: fact.of(data) for fact in self._facts}

    def _of_data(self) -> list[Column[Any]]:
        # A fact may replace one of the stage's own columns of the same name.
        unique = {column.name: column for column in (*self._own, *self._facts)}
        return [*unique.values(), *self.events.of_data]


_LISTING = _Reader(LIST.stage, LIST.listed)
_REMOVALS = _Reader(REMOVE.stage, ())


@cache
def _stage_reader(stage: Stage) -> _Reader:
    return _Reader(stage.name, stage.columns)


def _reader(name: str) -> _Reader:
    stage = STAGES.find(name)
    if stage is not None:
        return _stage_reader(stage)
    return _LISTING if name == LIST.stage else _REMOVALS


def _readers() -> dict[str, _Reader]:
    own = {stage.name: _stage_reader(stage) for stage in STAGES}
    return {LIST.stage: _LISTING, **own, REMOVE.stage: _REMOVALS}
