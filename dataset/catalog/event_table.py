"""The table of events as Delta Lake and DuckDB read it: opened, checked, retried, explained."""

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow.dataset import FileSystemDataset, ParquetFileFormat, ParquetFragmentScanOptions
from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem

from core.errors import Damaged, WorkFailed
from core.remote.waiting import reported
from core.retry import Backoff, retry
from core.storage import Storage, storage_errors
from dataset.catalog.event_files import create_table, sync_commits
from dataset.catalog.log_check import require_intact
from dataset.catalog.log_commits import check_commits
from dataset.catalog.log_files import (
    CATALOG,
    CatalogProblem,
    damaged_catalog,
    evidence_of_lost_catalog,
    file_problem,
    is_named_by_digest,
)
from dataset.catalog.table_uri import delta_options, table_uri
from dataset.format.small_files import reading_small_files_once

__all__ = ["EventTable"]

T = TypeVar("T")
_log = logging.getLogger(__name__)

_ATTEMPTS = 12
_BACKOFF = Backoff(first_seconds=1.0, max_seconds=60.0, jitter=0.5)
"""All waits together take about five minutes."""
_SILENT = 3
"""This many consecutive failures are common and not logged."""
_READING = ParquetFileFormat(
    default_fragment_scan_options=ParquetFragmentScanOptions(
        pre_buffer=True, page_checksum_verification=True
    )
)
"""Flipped bytes are errors: files that were written with checksums are compared with them."""


class EventTable:
    """The table below `catalog/` in a dataset's root."""

    def __init__(self, root: Storage) -> None:
        self._root = root
        self._uri = table_uri(root)
        self._options = delta_options(root)
        self._table: DeltaTable | None = None

    def _create(self) -> DeltaTable:
        """Create the table without events."""
        self._table = create_table(self._root)
        sync_commits(self._root, 0, self._table.version())
        return self._table

    def _sync_after(self, table: DeltaTable, before: int) -> None:
        """Flush the commits after version `before`, and the last one in any case."""
        table.update_incremental()
        sync_commits(self._root, min(before + 1, table.version()), table.version())

    def _select(
        self, query: str, parameters: dict[str, Any], **tables: pa.Table
    ) -> pa.Table | None:
        """Return the result of a query on the table `events` and on the given ones.

        Returns None before the first commit.
        """
        return self._retrying(lambda: self._run_query(query, parameters, tables))

    def _run_query(
        self, query: str, parameters: dict[str, Any], tables: Mapping[str, pa.Table]
    ) -> pa.Table | None:
        table = self._open()
        if table is None:
            return None
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for name, values in {**tables, "events": self._events(table)}.items():
                connection.register(name, values)
            return connection.sql(query, params=parameters).to_arrow_table()

    def _events(self, table: DeltaTable) -> FileSystemDataset:
        """Return the events of a table; see `_READING`. Raises Damaged if a file is missing.

        On a local disk, the log's ranges of columns are not used: the log has no checksum, and a
        wrong one would hide events. The files have such ranges, too.
        """
        dataset = table.to_pyarrow_dataset()
        actions = pa.table(table.get_add_actions()).to_pylist()
        sizes = {action["path"]: action["size_bytes"] for action in actions}
        files: FileSystem
        if self._root.is_local:
            # Delta Lake's own files are Python objects: if one of Arrow's threads releases some
            # while the process ends, the process is aborted.
            files = SubTreeFileSystem(self._root.resolve(CATALOG), LocalFileSystem())
            for path, size in sizes.items():
                if problem := file_problem(self._root, path, {"size": size}):
                    self._raise_damaged(path, problem)
        else:
            folder = f"{self._root.uri}/{CATALOG}"
            files = reading_small_files_once(dataset.filesystem, folder, sizes)
        fragments = [
            _READING.make_fragment(
                fragment.path,
                filesystem=files,
                partition_expression=None if self._root.is_local else fragment.partition_expression,
            )
            for fragment in dataset.get_fragments()
        ]
        return FileSystemDataset(fragments, dataset.schema, _READING, files)

    def _require_same(self, name: str) -> None:
        """Raise Damaged if a local file of events is not as it was written."""
        if self._root.is_local and is_named_by_digest(name):
            with self._explained(), self._root.open(f"{CATALOG}/{name}") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            if actual != name.partition(".")[0]:
                self._raise_damaged(name, "is damaged")

    def _raise_damaged(self, name: str, problem: str) -> NoReturn:
        """Raise Damaged for a file of events."""
        file = f"{CATALOG}/{name}"
        raise damaged_catalog(self._root, CatalogProblem(file=file, problem=problem))

    def _retrying(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, which is retried while an object store fails.

        Raises WorkFailed after the last attempt, of which there is one for a local table.
        """

        def explained() -> T:
            with self._explained():
                return work()

        if self._root.is_local:
            try:
                return explained()
            except (DeltaError, duckdb.Error) as error:
                problem = _one_line(error)
                raise WorkFailed(
                    f"{self._uri}: cannot use the catalog: {problem}; "
                    f"to check it: lrm verify --root {self._root.uri}"
                ) from error
        try:
            return retry(
                lambda: reported(self._uri, "the catalog", explained),
                attempts=_ATTEMPTS,
                wait=_BACKOFF.seconds,
                is_transient=lambda error: isinstance(error, _store_errors()),
                before_wait=self._reset,
            )
        except _store_errors() as error:
            self._table = None
            problem = _one_line(error)
        raise WorkFailed(
            f"{self._uri}: the object store failed {_ATTEMPTS} times, the last time with: "
            f"{problem}; run the same command again to continue"
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise Damaged if the block fails because a file of the catalog is damaged."""
        try:
            yield
        except (DeltaError, duckdb.Error, pa.ArrowException, OSError) as error:
            # Without damage, an error of the machine or the store is reported as it is.
            with contextlib.suppress(*_store_errors()):
                if self._root.is_local:
                    require_intact(self._root)
                else:
                    check_commits(self._root)
            if isinstance(error, pa.ArrowException) and not isinstance(error, OSError):
                problem = _one_line(error)
                raise WorkFailed(f"{self._uri}: cannot read the catalog: {problem}") from error
            raise

    def _reset(self, failures: int, error: Exception, seconds: float) -> None:
        """Make the next attempt open the table again, and log all but the first failures."""
        self._table = None
        if failures > _SILENT:
            _log.warning("%s: %s; retrying in %.1f s", self._uri, _one_line(error), seconds)

    def _open(self) -> DeltaTable | None:
        if self._table is None:
            if self._root.is_local:
                check_commits(self._root)
            if not DeltaTable.is_deltatable(self._uri, self._options):
                self._require_no_evidence()
                return None
            table = DeltaTable(self._uri, storage_options=self._options)
            if not self._root.is_local:
                check_commits(self._root, table.version())
            self._table = table
        self._table.update_incremental()
        return self._table

    def _require_no_evidence(self) -> None:
        """Raise Damaged if there was a catalog, which now is missing."""
        evidence = evidence_of_lost_catalog(self._root)
        if evidence:
            raise Damaged(
                f"{self._root.uri}: the catalog has no log (catalog/_delta_log/), but the dataset "
                f"has {evidence}: restore catalog/ from a backup, or build into an empty root; "
                f"lrm repair --root {self._root.uri} shows what can be recovered"
            )


def _store_errors() -> tuple[type[Exception], ...]:
    return storage_errors(DeltaError, duckdb.Error)


def _one_line(error: Exception) -> str:
    """Return the error's text as one line; Delta Lake formats causes as a coloured tree."""
    plain = re.sub(r"\x1b\[\d+m", "", str(error))
    return ": ".join(filter(None, (line.strip(" \u21b3") for line in plain.splitlines()))) or repr(
        error
    )
