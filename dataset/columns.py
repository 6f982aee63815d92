"""Columns of many objects, or of one, behind one interface.

What is decided about objects is written once, for whole columns. A plan asks it of a million rows
of an Arrow table, a worker of the one object in its hands, which needs no table.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64

__all__ = ["Columns", "RowColumns", "TableColumns", "mask"]


class Columns(Protocol):
    """Named columns of n objects. A column that does not exist is null everywhere."""

    def __len__(self) -> int: ...

    def present(self, name: str) -> Bool[np.ndarray, "n"]:
        """Where a value is there."""

    def flags(self, name: str) -> Bool[np.ndarray, "n"]:
        """A column of booleans; null is False."""

    def numbers(self, name: str) -> Float64[np.ndarray, "n"]:
        """A column of numbers; null is NaN."""

    def lists(self, name: str, width: int) -> Float64[np.ndarray, "n {width}"]:
        """The first `width` numbers of a column of lists; what is not there is NaN."""

    def one_of(self, name: str, values: Collection[str]) -> Bool[np.ndarray, "n"]:
        """Where a column of text holds one of the values; null holds none."""

    def same(self, name: str, other: str) -> Bool[np.ndarray, "n"]:
        """Where two columns of text hold the same; null equals nothing."""

    def value(self, name: str, row: int) -> Any:
        """A plain value, or None."""


class RowColumns:
    """One object, from a mapping of plain values."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def __len__(self) -> int:
        return 1

    def present(self, name: str) -> Bool[np.ndarray, "n"]:
        """Where a value is there."""
        return np.array([self._row.get(name) is not None])

    def flags(self, name: str) -> Bool[np.ndarray, "n"]:
        """A column of booleans; null is False."""
        return np.array([bool(self._row.get(name))])

    def numbers(self, name: str) -> Float64[np.ndarray, "n"]:
        """A column of numbers; null is NaN."""
        value = self._row.get(name)
        return np.array([np.nan if value is None else value], dtype=np.float64)

    def lists(self, name: str, width: int) -> Float64[np.ndarray, "n {width}"]:
        """The first `width` numbers of a column of lists; what is not there is NaN."""
        values = list(self._row.get(name) or ())[:width]
        return np.array([values + [np.nan] * (width - len(values))], dtype=np.float64)

    def one_of(self, name: str, values: Collection[str]) -> Bool[np.ndarray, "n"]:
        """Where a column of text holds one of the values; null holds none."""
        value = self._row.get(name)
        return np.array([value is not None and value in values])

    def same(self, name: str, other: str) -> Bool[np.ndarray, "n"]:
        """Where two columns of text hold the same; null equals nothing."""
        value = self._row.get(name)
        return np.array([value is not None and value == self._row.get(other)])

    def value(self, name: str, row: int) -> Any:
        """A plain value, or None."""
        return self._row.get(name)


class TableColumns:
    """Many objects, from an Arrow table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._names = frozenset(table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def present(self, name: str) -> Bool[np.ndarray, "n"]:
        """Where a value is there."""
        if name not in self._names:
            return self._nowhere()
        return pc.is_valid(self._table[name]).to_numpy()

    def flags(self, name: str) -> Bool[np.ndarray, "n"]:
        """A column of booleans; null is False."""
        return self._nowhere() if name not in self._names else mask(self._table[name])

    def numbers(self, name: str) -> Float64[np.ndarray, "n"]:
        """A column of numbers; null is NaN."""
        if name not in self._names:
            return np.full(len(self), np.nan)
        return self._table[name].cast(pa.float64()).fill_null(np.nan).to_numpy()

    def lists(self, name: str, width: int) -> Float64[np.ndarray, "n {width}"]:
        """The first `width` numbers of a column of lists; what is not there is NaN."""
        out = np.full((len(self), width), np.nan)
        if name in self._names:
            column = self._table[name].combine_chunks()
            lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
            rows = np.repeat(np.arange(len(self)), lengths)
            starts = np.cumsum(lengths) - lengths
            places = np.arange(len(rows)) - np.repeat(starts, lengths)
            numbers = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
            inside = places < width
            out[rows[inside], places[inside]] = numbers[inside]
        return out

    def one_of(self, name: str, values: Collection[str]) -> Bool[np.ndarray, "n"]:
        """Where a column of text holds one of the values; null holds none."""
        if name not in self._names:
            return self._nowhere()
        wanted = pa.array(sorted(values), pa.string())
        column = self._table[name]
        # `is_in` says False for null.
        if not pa.types.is_dictionary(column.type):
            return pc.is_in(column, value_set=wanted).to_numpy()
        chunks = (_among(chunk, wanted) for chunk in column.chunks)
        return np.concatenate([self._nowhere()[:0], *chunks])

    def same(self, name: str, other: str) -> Bool[np.ndarray, "n"]:
        """Where two columns of text hold the same; null equals nothing."""
        if name not in self._names or other not in self._names:
            return self._nowhere()
        return mask(pc.equal(self._table[name], self._table[other]))

    def value(self, name: str, row: int) -> Any:
        """A plain value, or None."""
        return self._table[name][row].as_py() if name in self._names else None

    def _nowhere(self) -> Bool[np.ndarray, "n"]:
        return np.zeros(len(self), dtype=bool)


def _among(chunk: pa.DictionaryArray, wanted: pa.Array) -> Bool[np.ndarray, "n"]:
    among = pc.is_in(chunk.dictionary, value_set=wanted).to_numpy(zero_copy_only=False)
    places = chunk.indices.fill_null(len(among)).to_numpy(zero_copy_only=False)
    return np.append(among, False)[places]


def mask(flags: pa.Array | pa.ChunkedArray) -> Bool[np.ndarray, "n"]:
    """A column of booleans; null is False."""
    return flags.fill_null(False).to_numpy(zero_copy_only=False)
