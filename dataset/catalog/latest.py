"""The last event of every object and stage, as columns: a base file per stage plus the log's tail.

The catalog's log only grows, and its data is JSON; a plan or a status of a million objects needs a
few columns of the last events. These are stored in Parquet files below `latest/`, the base files,
which cover the log up to some event; later events are read from the log and override them. The
files are a cache: they may be deleted at any time and are then written again. The index names the
commit that they were made from, by its SHA-256, and each file by its size and the SHA-256 of its
footer: if something differs (a catalog that was restored from a backup, a damaged file), the log is
read instead.
"""

import hashlib
import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.config import canonical_json, digest
from core.storage import Storage
from dataset.catalog.event_columns import EventColumns
from dataset.catalog.event_log import Catalog
from dataset.catalog.log_files import CatalogProblem
from dataset.columns import is_one_of

__all__ = ["LatestEvents", "Projection", "StageRig", "align", "rows_with"]

_log = logging.getLogger(__name__)

StageRig = tuple[str, str]
"""A stage and the rig of its events; the rig is empty for stages that do not depend on it."""

_FOLDER = "latest"
_INDEX = f"{_FOLDER}/index.json"
_TAIL = 8
"""Bytes at the end of a Parquet file: the length of its footer, and a magic number."""
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


@dataclass(frozen=True, kw_only=True)
class _BaseFile:
    """A base file, and how to find out whether it is as it was written."""

    path: str
    size: int
    footer: str
    """SHA-256 of its footer. The footer describes all pages, and each has a checksum."""

    def check(self, file: IO[bytes]) -> None:
        """Raise _BadBase if the open file is another than the one that was written."""
        size = file.seek(0, 2)
        if size != self.size or _footer_digest(file) != self.footer:
            raise _BadBase(f"{self.path} is not as it was written")
        file.seek(0)


class _BadBase(Exception):
    """Base files that are damaged, or were made from another log."""


@dataclass(frozen=True, kw_only=True)
class _Base:
    """The existing base files, and the part of the log that they cover."""

    files: Mapping[StageRig, _BaseFile]
    seq: int
    """They cover every event up to this number."""
    log: frozenset[str]
    """Names of the files of the log that contained these events."""


_NO_BASE = _Base(files={}, seq=0, log=frozenset())


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
            except _BadBase as error:
                problem = str(error)
                break
        self._reject(problem)
        return self._tables(_NO_BASE, wanted, columns, only)

    def stage_rigs(self) -> list[StageRig]:
        """Return every stage and rig that has an event."""
        base = self._base()
        return sorted({*base.files, *self._tail(base)})

    def _tables(
        self,
        base: _Base,
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
                parts.append(self._read(base.files[key], names, only))
            tables[key] = _last_events(parts) if parts else schema.empty_table().select(names)
        return tables

    def update_base(self) -> None:
        """Write base files that cover the whole log, while others read; only for the committer."""
        base, seq, log = self._base(), self._catalog.last_seq(), self._catalog.files()
        try:
            if self._rejected:  # a reader found a damaged file
                base = _NO_BASE
            for old in base.files.values():
                self._check(old)
            merged = self._merged(base)
        except (_BadBase, FileNotFoundError):
            base = _NO_BASE
            merged = self._merged(base)
        self._write(merged, seq, log, base)
        self._rejected = False

    def _merged(self, base: _Base) -> dict[StageRig, pa.Table]:
        """Return the last events of those stages and rigs that have events after the base."""
        merged = {}
        for key, tail in self._tail(base).items():
            old = [self._read(base.files[key])] if key in base.files else []
            merged[key] = _last_events([tail, *old])
        return merged

    def write(self, tables: Mapping[StageRig, pa.Table], seq: int, log: Collection[str]) -> None:
        """Write these tables as the base files of their stages and rigs.

        The base then covers every event up to `seq`, in the files `log`.
        """
        self._write(tables, seq, log, self._base())

    def _write(
        self, tables: Mapping[StageRig, pa.Table], seq: int, log: Collection[str], base: _Base
    ) -> None:
        files = dict(base.files)
        generation = uuid.uuid4().hex[:12]
        for key, table in tables.items():
            path = f"{_FOLDER}/{generation}-{'-'.join(filter(None, key))}.parquet"
            with self._root.writing(path) as file:
                rows = table.sort_by("asset_id")
                pq.write_table(rows, file, compression="zstd", write_page_checksum=True)
            with self._root.open(path) as file:
                size = file.seek(0, 2)
                files[key] = _BaseFile(path=path, size=size, footer=_footer_digest(file))
        index = {
            "projection": self._projection.digest,
            "files": [[*key, f.path, f.size, f.footer] for key, f in sorted(files.items())],
            "seq": seq,
            "commit": self._catalog.digest(seq),
            "log": sorted(log),
        }
        self._root.write(_INDEX, canonical_json(index).encode())
        self._remove_others({file.path for file in (*files.values(), *base.files.values())})

    def problems(self) -> list[CatalogProblem]:
        """Return what is wrong with the base files, after reading all of them."""
        try:
            base = self._read_index()
        except _BadBase as error:
            return [CatalogProblem(file=_INDEX, problem=str(error), is_derived=True)]
        found = []
        for file in base.files.values():
            try:
                self._read(file)
            except (_BadBase, FileNotFoundError):
                problem = "is missing or not as it was written"
                found.append(CatalogProblem(file=file.path, problem=problem, is_derived=True))
        return found

    def _base(self) -> _Base:
        try:
            return self._read_index()
        except _BadBase as error:
            self._reject(f"{_INDEX} {error}")
            return _NO_BASE

    def _reject(self, problem: str) -> None:
        """Remember that the base does not count, and warn once."""
        self._rejected = True
        _warn(self._root.uri, problem)

    def _read_index(self) -> _Base:
        """Return the base. Raises _BadBase if it was not made from this log."""
        try:
            index = json.loads(self._root.read(_INDEX))
            is_usable = index["projection"] == self._projection.digest and "commit" in index
            seq, log = int(index["seq"]), frozenset(index["log"])
            if not is_usable:
                return _NO_BASE  # of an earlier version
            files = {
                (stage, rig): _BaseFile(path=path, size=size, footer=footer)
                for stage, rig, path, size, footer in index["files"]
            }
            commit = index["commit"]
        except FileNotFoundError:
            return _NO_BASE
        except (OSError, ValueError, KeyError, TypeError):
            raise _BadBase("is torn or damaged") from None
        if not commit or self._catalog.digest(seq) != commit:
            raise _BadBase("was made from another log than catalog/, such as before a restore")
        return _Base(files=files, seq=seq, log=log)

    def _check(self, base: _BaseFile) -> None:
        with self._root.open(base.path) as file:
            base.check(file)

    def _read(
        self,
        base: _BaseFile,
        columns: Sequence[str] | None = None,
        only: pc.Expression | None = None,
    ) -> pa.Table:
        try:
            with self._root.open(base.path) as file:
                base.check(file)
                return pq.read_table(
                    file,
                    columns=columns and list(columns),
                    filters=only,
                    page_checksum_verification=True,
                )
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            if not self._root.is_local and isinstance(error, OSError):
                raise
            raise _BadBase(f"{base.path} is damaged") from None

    def _tail(self, base: _Base) -> dict[StageRig, pa.Table]:
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
        for name in self._root.list_files(_FOLDER):
            path = f"{_FOLDER}/{name}"
            if path not in needed and path != _INDEX:
                self._root.delete(path)


def _footer_digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of the footer of an open Parquet file."""
    end = file.seek(0, 2)
    file.seek(max(0, end - _TAIL))
    length = int.from_bytes(file.read(_TAIL)[: _TAIL // 2], "little")
    file.seek(max(0, end - _TAIL - length))
    return hashlib.sha256(file.read()).hexdigest()


@lru_cache
def _warn(uri: str, problem: str) -> None:
    """Print a warning, once in a process."""
    _log.warning(
        "%s: %s, so the whole log is read instead; the next `lrm build` writes latest/ again",
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
