"""One interface to the columns of many objects, or of one.

A column is declared once, as a `Column` with a name, a type and a meaning; code refers to that
object, so that a misspelt column is an import error. Decisions about objects are written once, as
operations on columns: a plan evaluates them on a million rows of an Arrow table, a worker on the
one object that it processes, without a table.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64

__all__ = [
    "CATEGORY",
    "Column",
    "Columns",
    "RowColumns",
    "TableColumns",
    "category",
    "flag",
    "integer",
    "is_one_of",
    "mask",
    "number",
    "seconds_by_name",
    "sum_by_name",
    "text",
    "texts",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CATEGORY = pa.dictionary(pa.int32(), pa.string())
"""Arrow type of text with few distinct values: dictionary-encoded strings."""


@dataclass(frozen=True)
class Column(Generic[T_co]):
    """A value of the last event of one stage, for every object."""

    stage: str
    name: str
    type: pa.DataType
    meaning: str
    detail: bool = False
    """Whether it describes a single object, as a name or a path does; counts of all objects do not
    read it."""

    @property
    def key(self) -> str:
        """The column's name in the table of all objects, such as `fetch.sha256`."""
        return f"{self.stage}.{self.name}"


def text(stage: str, name: str, meaning: str, *, detail: bool = False) -> Column[str]:
    """Declare a column of text."""
    return Column(stage, name, pa.string(), meaning, detail)


def category(stage: str, name: str, meaning: str, *, detail: bool = False) -> Column[str]:
    """Declare a column of text with few distinct values."""
    return Column(stage, name, CATEGORY, meaning, detail)


def texts(stage: str, name: str, meaning: str, *, detail: bool = False) -> Column[list[str]]:
    """Declare a column of lists of text."""
    return Column(stage, name, pa.list_(pa.string()), meaning, detail)


def integer(stage: str, name: str, meaning: str) -> Column[int]:
    """Declare a column of integers."""
    return Column(stage, name, pa.int64(), meaning)


def number(stage: str, name: str, meaning: str) -> Column[float]:
    """Declare a column of floating-point numbers."""
    return Column(stage, name, pa.float64(), meaning)


def flag(stage: str, name: str, meaning: str) -> Column[bool]:
    """Declare a column of booleans."""
    return Column(stage, name, pa.bool_(), meaning)


def seconds_by_name(stage: str, name: str, meaning: str) -> Column[dict[str, float]]:
    """Declare a column of maps from names to seconds."""
    return Column(stage, name, pa.map_(pa.string(), pa.float64()), meaning)


class Columns(Protocol):
    """Columns of n objects. A column that does not exist is null everywhere."""

    def __len__(self) -> int: ...

    def present(self, column: Column[Any]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows that have a value."""

    def flags(self, column: Column[bool]) -> Bool[np.ndarray, "n"]:
        """Return a column of booleans; null becomes False."""

    def numbers(self, column: Column[int] | Column[float]) -> Float64[np.ndarray, "n"]:
        """Return a column of numbers; null becomes NaN."""

    def lists(self, column: Column[list[float]], width: int) -> Float64[np.ndarray, "n {width}"]:
        """Return the first `width` numbers of a column of lists, padded with NaN."""

    def one_of(self, column: Column[str], values: Collection[str]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows of a text column that equal one of the values."""

    def same(self, column: Column[str], other: Column[str]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows where two text columns are equal; null equals nothing."""

    def value(self, column: Column[T], row: int) -> T | None:
        """Return the value of one row as a Python object, or None."""


class RowColumns:
    """Columns of one object, from a mapping of plain values."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def __len__(self) -> int:
        return 1

    def present(self, column: Column[Any]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows that have a value."""
        return np.array([self._row.get(column.key) is not None])

    def flags(self, column: Column[bool]) -> Bool[np.ndarray, "n"]:
        """Return a column of booleans; null becomes False."""
        return np.array([bool(self._row.get(column.key))])

    def numbers(self, column: Column[int] | Column[float]) -> Float64[np.ndarray, "n"]:
        """Return a column of numbers; null becomes NaN."""
        value = self._row.get(column.key)
        return np.array([np.nan if value is None else value], dtype=np.float64)

    def lists(self, column: Column[list[float]], width: int) -> Float64[np.ndarray, "n {width}"]:
        """Return the first `width` numbers of a column of lists, padded with NaN."""
        values = list(self._row.get(column.key) or ())[:width]
        return np.array([values + [np.nan] * (width - len(values))], dtype=np.float64)

    def one_of(self, column: Column[str], values: Collection[str]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows of a text column that equal one of the values."""
        value = self._row.get(column.key)
        return np.array([value is not None and value in values])

    def same(self, column: Column[str], other: Column[str]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows where two text columns are equal; null equals nothing."""
        value = self._row.get(column.key)
        return np.array([value is not None and value == self._row.get(other.key)])

    def value(self, column: Column[T], row: int) -> T | None:
        """Return the value of one row as a Python object, or None."""
        return self._row.get(column.key)


class TableColumns:
    """Columns of many objects, from an Arrow table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._names = frozenset(table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def present(self, column: Column[Any]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows that have a value."""
        if column.key not in self._names:
            return self._no_rows()
        return pc.is_valid(self._table[column.key]).to_numpy()

    def flags(self, column: Column[bool]) -> Bool[np.ndarray, "n"]:
        """Return a column of booleans; null becomes False."""
        return self._no_rows() if column.key not in self._names else mask(self._table[column.key])

    def numbers(self, column: Column[int] | Column[float]) -> Float64[np.ndarray, "n"]:
        """Return a column of numbers; null becomes NaN."""
        if column.key not in self._names:
            return np.full(len(self), np.nan)
        return self._table[column.key].cast(pa.float64()).fill_null(np.nan).to_numpy()

    def lists(self, column: Column[list[float]], width: int) -> Float64[np.ndarray, "n {width}"]:
        """Return the first `width` numbers of a column of lists, padded with NaN."""
        out = np.full((len(self), width), np.nan)
        if column.key in self._names:
            stored = self._table[column.key].combine_chunks()
            lengths = pc.list_value_length(stored).fill_null(0).to_numpy(zero_copy_only=False)
            rows = np.repeat(np.arange(len(self)), lengths)
            starts = np.cumsum(lengths) - lengths
            positions = np.arange(len(rows)) - np.repeat(starts, lengths)
            values = stored.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
            inside = positions < width
            out[rows[inside], positions[inside]] = values[inside]
        return out

    def one_of(self, column: Column[str], values: Collection[str]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows of a text column that equal one of the values."""
        if column.key not in self._names:
            return self._no_rows()
        return is_one_of(self._table[column.key], values)

    def same(self, column: Column[str], other: Column[str]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the rows where two text columns are equal; null equals nothing."""
        if not {column.key, other.key} <= self._names:
            return self._no_rows()
        return mask(pc.equal(self._table[column.key], self._table[other.key]))

    def value(self, column: Column[T], row: int) -> T | None:
        """Return the value of one row as a Python object, or None."""
        exists = column.key in self._names
        return self._table[column.key][row].as_py() if exists else None

    def _no_rows(self) -> Bool[np.ndarray, "n"]:
        """Return a mask that selects no row."""
        return np.zeros(len(self), dtype=bool)


def is_one_of(values: pa.ChunkedArray, wanted: Collection[str]) -> Bool[np.ndarray, "n"]:
    """Return a mask of the rows of a text column that equal one of the values; null equals none."""
    value_set = pa.array(sorted(wanted), pa.string())
    # `is_in` is False for null.
    if not pa.types.is_dictionary(values.type):
        return pc.is_in(values, value_set=value_set).to_numpy()
    chunks = (_is_in_dictionary(chunk, value_set) for chunk in values.chunks)
    return np.concatenate([np.zeros(0, dtype=bool), *chunks])


def _is_in_dictionary(chunk: pa.DictionaryArray, value_set: pa.Array) -> Bool[np.ndarray, "n"]:
    matches = pc.is_in(chunk.dictionary, value_set=value_set).to_numpy(zero_copy_only=False)
    codes = chunk.indices.fill_null(len(matches)).to_numpy(zero_copy_only=False)
    return np.append(matches, False)[codes]


def mask(flags: pa.Array | pa.ChunkedArray) -> Bool[np.ndarray, "n"]:
    """Convert an Arrow column of booleans to numpy; null becomes False."""
    return flags.fill_null(False).to_numpy(zero_copy_only=False)


def sum_by_name(maps: pa.ChunkedArray) -> dict[str, float]:
    """Return the sum of the values of each name in a column of maps; null counts as empty."""
    entries = maps.combine_chunks().drop_null()
    names = entries.keys.dictionary_encode()
    values = entries.items.to_numpy(zero_copy_only=False)
    sums = np.bincount(
        names.indices.to_numpy(), weights=values, minlength=len(names.dictionary)
    ).tolist()
    return dict(zip(names.dictionary.to_pylist(), sums, strict=True))
