"""The last event of every object and stage, as columns: a base file per stage plus the log's tail.

The catalog's log only grows, and its data is JSON; a plan or a status of a million objects needs a
few columns of the last events. These are stored in Parquet files below `latest/`, the base files,
which cover the log up to some event; later events are read from the log and override them. The
files are a cache: they may be deleted at any time and are then written again. If they are damaged
or were made from another log, such as before a restore of the catalog, the log is read instead.
"""

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.config import digest
from core.storage import Storage
from dataset.catalog.base_files import (
    BASE_FOLDER,
    INDEX,
    NO_BASE,
    BadBase,
    Base,
    StageRig,
    check_base_file,
    read_base_file,
    read_index,
    write_base_file,
    write_index,
)
from dataset.catalog.event_columns import EventColumns
from dataset.catalog.event_log import Catalog
from dataset.catalog.log_files import CatalogProblem
from dataset.columns import is_one_of

__all__ = ["LatestEvents", "Projection", "StageRig", "align", "rows_with"]

_log = logging.getLogger(__name__)

_COMMON = {
    "seq": pa.int64(),
    "asset_id": pa.string(),
    **{column.name: column.type for column in EventColumns("").of_event},
}
"""Columns of every stage."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The columns that are extracted from the data of an event."""

    version: str
    """Change it when equal data may give other columns; the base files are then written again."""
    types: Mapping[str, Mapping[str, pa.DataType]]
    """Names and types of the columns of each stage."""
    read: Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]
    """Function (stage, status, data of an event) -> columns; a missing column becomes null."""

    def schema(self, stage: str) -> pa.Schema:
        """Return the schema of the table of a stage."""
        return pa.schema({**_COMMON, **self.types.get(stage, {})})

    @property
    def digest(self) -> str:
        """Identifier of the projection that base files were written with."""
        types = {stage: str(self.schema(stage)) for stage in self.types}
        return digest([self.version, types])


class LatestEvents:
    """Reads and updates the last events of a dataset."""

    def __init__(self, root: Storage, catalog: Catalog, projection: Projection) -> None:
        self._root = root
        self._catalog = catalog
        self._projection = projection
        self._rejected = False

    @property
    def needs_update(self) -> bool:
        """Whether base files were found that do not count, so that every command reads the log."""
        return self._rejected

    def tables(
        self,
        wanted: Iterable[StageRig],
        columns: Sequence[str] | None = None,
        only: pc.Expression | None = None,
    ) -> dict[StageRig, pa.Table]:
        """Return a table per stage and rig with the last event of every object, unordered.

        There is one row per object. `columns` limits the columns that are read, and `only`, a
        condition on `asset_id`, the objects: the others take no memory.
        """
        wanted, problem = set(wanted), ""
        for _ in range(3):
            base = self._base()
            try:
                return self._tables(base, wanted, columns, only)
            except FileNotFoundError as error:
                # The base may have been updated meanwhile, which removed the old files.
                problem = f"{error.filename} is missing"
            except BadBase as error:
                problem = str(error)
                break
        self._reject(problem)
        return self._tables(NO_BASE, wanted, columns, only)

    def stage_rigs(self) -> list[StageRig]:
        """Return every stage and rig that has an event."""
        base = self._base()
        return sorted({*base.files, *self._tail(base)})

    def _tables(
        self,
        base: Base,
        wanted: set[StageRig],
        columns: Sequence[str] | None,
        only: pc.Expression | None,
    ) -> dict[StageRig, pa.Table]:
        tails = self._tail(base)
        tables = {}
        for key in wanted:
            schema = self._projection.schema(key[0])
            names = [name for name in schema.names if columns is None or name in columns]
            names = list(dict.fromkeys(["seq", "asset_id", *names]))
            tail = [tails[key].select(names)] if key in tails else []
            parts = [part if only is None else part.filter(only) for part in tail]
            if key in base.files:
                parts.append(read_base_file(self._root, base.files[key], names, only))
            tables[key] = _last_events(parts) if parts else schema.empty_table().select(names)
        return tables

    def update_base(self) -> None:
        """Write base files that cover the whole log, while others read; only for the committer."""
        base, seq, log = self._base(), self._catalog.last_seq(), self._catalog.files()
        try:
            if self._rejected:  # a reader found a damaged file
                base = NO_BASE
            for old in base.files.values():
                check_base_file(self._root, old)
            merged = self._merged(base)
        except (BadBase, FileNotFoundError):
            base = NO_BASE
            merged = self._merged(base)
        self._write(merged, seq, log, base)
        self._rejected = False

    def _merged(self, base: Base) -> dict[StageRig, pa.Table]:
        """Return the last events of those stages and rigs that have events after the base."""
        merged = {}
        for key, tail in self._tail(base).items():
            old = [read_base_file(self._root, base.files[key])] if key in base.files else []
            merged[key] = _last_events([tail, *old])
        return merged

    def write(self, tables: Mapping[StageRig, pa.Table], seq: int, log: Collection[str]) -> None:
        """Write these tables as the base files of their stages and rigs.

        The base then covers every event up to `seq`, in the files `log`.
        """
        self._write(tables, seq, log, self._base())

    def _write(
        self, tables: Mapping[StageRig, pa.Table], seq: int, log: Collection[str], base: Base
    ) -> None:
        files = dict(base.files)
        generation = uuid.uuid4().hex[:12]
        for key, table in tables.items():
            path = f"{BASE_FOLDER}/{generation}-{'-'.join(filter(None, key))}.parquet"
            files[key] = write_base_file(self._root, path, table.sort_by("asset_id"))
        covered = Base(files=files, seq=seq, log=frozenset(log))
        write_index(self._root, self._projection.digest, covered, self._catalog.digest(seq))
        self._remove_others({file.path for file in (*files.values(), *base.files.values())})

    def problems(self) -> list[CatalogProblem]:
        """Return what is wrong with the base files, after reading all of them."""
        try:
            base = self._read_index()
        except BadBase as error:
            return [CatalogProblem(file=INDEX, problem=str(error), is_derived=True)]
        found = []
        for file in base.files.values():
            try:
                read_base_file(self._root, file)
            except (BadBase, FileNotFoundError):
                problem = "is missing or not as it was written"
                found.append(CatalogProblem(file=file.path, problem=problem, is_derived=True))
        return found

    def _base(self) -> Base:
        try:
            return self._read_index()
        except BadBase as error:
            self._catalog.last_seq()  # if it is the log that is damaged, that is the error
            self._reject(str(error))
            return NO_BASE

    def _reject(self, problem: str) -> None:
        """Remember that the base does not count, and warn once."""
        self._rejected = True
        _warn(self._root.uri, problem)

    def _read_index(self) -> Base:
        """Return the base. Raises BadBase if it is damaged or was made from another log."""
        return read_index(self._root, self._projection.digest, self._catalog.digest)

    def _tail(self, base: Base) -> dict[StageRig, pa.Table]:
        """Return the last event of every object among those that the base does not cover."""
        chunks: dict[StageRig, list[pa.Table]] = defaultdict(list)
        for batch in self._catalog.since(base.seq, base.log):
            rows: dict[StageRig, list[dict[str, Any]]] = defaultdict(list)
            for row in batch.to_pylist():
                data = json.loads(row["data"])
                row |= self._projection.read(row["stage"], row["status"], data)
                rows[row["stage"], row["rig"]].append(row)
            for (stage, rig), events in rows.items():
                schema = self._projection.schema(stage)
                chunks[stage, rig].append(pa.Table.from_pylist(events, schema=schema))
        # A chunk may contain several events of an object, but `_last_events` returns a single part
        # unchanged: an empty second part makes it reduce the chunk.
        return {key: _last_events([*parts, parts[0].slice(0, 0)]) for key, parts in chunks.items()}

    def _remove_others(self, needed: set[str]) -> None:
        for name in self._root.list_files(BASE_FOLDER):
            path = f"{BASE_FOLDER}/{name}"
            if path not in needed and path != INDEX:
                self._root.delete(path)


@lru_cache
def _warn(uri: str, problem: str) -> None:
    """Print a warning, once in a process."""
    _log.warning(
        "warning: %s: %s, so the whole log is read; the next `lrm build` writes latest/ again",
        uri,
        problem,
    )


def _last_events(parts: Sequence[pa.Table]) -> pa.Table:
    """Return one row per asset id: the one with the greatest seq.

    A single part must already have one row per asset id.
    """
    if len(parts) == 1:
        return parts[0]
    table = pa.concat_tables(parts)
    codes = table["asset_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    seqs = table["seq"].to_numpy()
    newest = np.full(int(codes.max(initial=-1)) + 1, -1, dtype=np.int64)
    np.maximum.at(newest, codes, seqs)
    rows = np.flatnonzero(seqs == newest[codes])
    # The same event may be in the base and in the tail.
    _, first = np.unique(codes[rows], return_index=True)
    return table if len(first) == table.num_rows else table.take(pa.array(rows[np.sort(first)]))


def align(ids: pa.ChunkedArray, table: pa.Table) -> pa.Table:
    """Return the rows of a table for these asset ids, in their order; a missing row is null."""
    if table.num_rows == len(ids) and table["asset_id"].equals(ids):
        return table
    return table.take(pc.index_in(ids, value_set=table["asset_id"].combine_chunks()))


def rows_with(table: pa.Table, name: str, *values: str) -> pa.Table:
    """Return the rows whose text column `name` has one of the values."""
    return table.filter(pa.array(is_one_of(table[name], values)))
