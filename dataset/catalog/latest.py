"""The last event of every object and stage, as columns: a base file per stage plus the log's tail.

The catalog's log grows for ever and holds JSON. What a plan or a status asks of a million objects
is a few columns of the newest events. These lie in Parquet files below `latest/`, made from the log
up to some event; whatever came later is read from the log and laid on top. The files may be deleted
at any time: they are made anew.
"""

import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.config import canonical_json, digest
from core.storage import Storage
from dataset.catalog.event_columns import EventColumns
from dataset.catalog.event_log import Catalog
from dataset.columns import is_one_of

__all__ = ["Latest", "Place", "Projection", "align", "rows_with"]

Place = tuple[str, str]
"""A stage, and the rig column of its events."""

_FOLDER = "latest"
_INDEX = f"{_FOLDER}/index.json"
_COMMON = {
    "seq": pa.int64(),
    "asset_id": pa.string(),
    **{column.name: column.type for column in EventColumns("").of_event},
}
"""Of every stage."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Which columns are kept of the data of an event."""

    version: str
    """Changes whenever equal data may give other columns: then all is read from the log again."""
    types: Mapping[str, Mapping[str, pa.DataType]]
    """Name and type of the columns of each stage."""
    read: Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]
    """(stage, status, data of an event) -> columns. What is missing becomes null."""

    def schema(self, stage: str) -> pa.Schema:
        """Of the table of a stage."""
        return pa.schema({**_COMMON, **self.types.get(stage, {})})

    @property
    def digest(self) -> str:
        """Identifies what the base files were made with."""
        types = {stage: str(self.schema(stage)) for stage in self.types}
        return digest([self.version, types])


@dataclass(frozen=True, kw_only=True)
class _Base:
    """The base files that are there."""

    files: Mapping[Place, str]
    seq: int
    """They hold every event up to this one,"""
    log: frozenset[str]
    """which lay in these files of the log."""


_NOTHING = _Base(files={}, seq=0, log=frozenset())


class Latest:
    """Reads and renews the newest events of a dataset."""

    def __init__(self, root: Storage, catalog: Catalog, projection: Projection) -> None:
        self._root = root
        self._catalog = catalog
        self._projection = projection

    def tables(
        self, wanted: Iterable[Place], columns: Sequence[str] | None = None
    ) -> dict[Place, pa.Table]:
        """The newest event of every object, per place; one row an object, in no order.

        `columns` (of all that there are) limits what is read.
        """
        for _ in range(3):
            base = self._base()
            try:
                return self._tables(base, set(wanted), columns)
            except FileNotFoundError:
                # The base was renewed in this very moment, and its old files removed.
                continue
        return self._tables(_NOTHING, set(wanted), columns)

    def places(self) -> list[Place]:
        """Every stage and rig of which there is an event."""
        base = self._base()
        return sorted({*base.files, *self._tail(base)})

    def _tables(
        self, base: _Base, wanted: set[Place], columns: Sequence[str] | None
    ) -> dict[Place, pa.Table]:
        tails = self._tail(base)
        found = {}
        for place in wanted:
            schema = self._projection.schema(place[0])
            names = [name for name in schema.names if columns is None or name in columns]
            names = list(dict.fromkeys(["seq", "asset_id", *names]))
            parts = [tails[place].select(names)] if place in tails else []
            if place in base.files:
                parts.append(self._read(base.files[place], names))
            found[place] = _newest(parts) if parts else schema.empty_table().select(names)
        return found

    def renew(self) -> None:
        """Write base files up to now. For the committer; readers may go on."""
        base, seq, log = self._base(), self._catalog.last_seq(), self._catalog.files()
        merged = {}
        for place, tail in self._tail(base).items():
            old = [self._read(base.files[place])] if place in base.files else []
            merged[place] = _newest([tail, *old])
        self.write(merged, seq, log)

    def write(self, tables: Mapping[Place, pa.Table], seq: int, log: Collection[str]) -> None:
        """Make these tables the base of their places.

        The base now covers every event up to `seq`, and the files `log`.
        """
        base = self._base()
        files = dict(base.files)
        generation = uuid.uuid4().hex[:12]
        for place, table in tables.items():
            path = f"{_FOLDER}/{generation}-{'-'.join(filter(None, place))}.parquet"
            with self._root.writing(path) as file:
                pq.write_table(table.sort_by("asset_id"), file, compression="zstd")
            files[place] = path
        index = {
            "projection": self._projection.digest,
            "files": [[*place, path] for place, path in sorted(files.items())],
            "seq": seq,
            "log": sorted(log),
        }
        self._root.write(_INDEX, canonical_json(index).encode())
        self._remove_others({*files.values(), *base.files.values()})

    def _base(self) -> _Base:
        try:
            index = json.loads(self._root.read(_INDEX))
            if index["projection"] != self._projection.digest:
                return _NOTHING
            files = {(stage, rig): path for stage, rig, path in index["files"]}
            return _Base(files=files, seq=int(index["seq"]), log=frozenset(index["log"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return _NOTHING

    def _read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self._root.open(path) as file:
            return pq.read_table(file, columns=columns and list(columns))

    def _tail(self, base: _Base) -> dict[Place, pa.Table]:
        """The newest event of every object among those that the base lacks, per place."""
        chunks: dict[Place, list[pa.Table]] = defaultdict(list)
        for batch in self._catalog.since(base.seq, base.log):
            rows: dict[Place, list[dict[str, Any]]] = defaultdict(list)
            for row in batch.to_pylist():
                data = json.loads(row["data"])
                row |= self._projection.read(row["stage"], row["status"], data)
                rows[row["stage"], row["rig"]].append(row)
            for (stage, rig), found in rows.items():
                schema = self._projection.schema(stage)
                chunks[stage, rig].append(pa.Table.from_pylist(found, schema=schema))
        # A chunk may hold several events of an object; two parts make `_newest` look.
        return {place: _newest([*parts, parts[0].slice(0, 0)]) for place, parts in chunks.items()}

    def _remove_others(self, needed: set[str]) -> None:
        for name in self._root.list_files(_FOLDER):
            path = f"{_FOLDER}/{name}"
            if path not in needed and path != _INDEX:
                self._root.delete(path)


def _newest(parts: Sequence[pa.Table]) -> pa.Table:
    """One row an asset id: the one with the greatest seq. Each part has one already."""
    if len(parts) == 1:
        return parts[0]
    table = pa.concat_tables(parts)
    codes = table["asset_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    seqs = table["seq"].to_numpy()
    newest = np.full(int(codes.max(initial=-1)) + 1, -1, dtype=np.int64)
    np.maximum.at(newest, codes, seqs)
    rows = np.flatnonzero(seqs == newest[codes])
    # The same event may lie in the base and in the tail.
    _, first = np.unique(codes[rows], return_index=True)
    return table if len(first) == table.num_rows else table.take(pa.array(rows[np.sort(first)]))


def align(ids: pa.ChunkedArray, table: pa.Table) -> pa.Table:
    """The rows of a table for these asset ids, in their order; null where there is none."""
    if table.num_rows == len(ids) and table["asset_id"].equals(ids):
        return table
    return table.take(pc.index_in(ids, value_set=table["asset_id"].combine_chunks()))


def rows_with(table: pa.Table, name: str, *values: str) -> pa.Table:
    """The rows whose column of text holds one of the values."""
    return table.filter(pa.array(is_one_of(table[name], values)))
