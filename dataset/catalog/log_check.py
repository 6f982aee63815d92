"""The whole catalog, read and compared with its log: for `lrm verify` and `lrm repair`."""

import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from core.storage import Storage
from dataset.catalog.log_files import (
    CATALOG,
    LOG,
    CatalogProblem,
    LogCommit,
    LogListing,
    commit_path,
    damaged_catalog,
    file_problem,
    is_named_by_digest,
    list_log,
    read_commit,
)
from dataset.catalog.table_uri import delta_options, table_uri

__all__ = [
    "BATCH_BITS",
    "CatalogState",
    "check_catalog",
    "check_events",
    "read_catalog",
    "require_intact",
]

BATCH_BITS = 24
"""seq = table version << 24 | index in the batch: grows with every event."""
_COMMIT_SECONDS = 0.5
"""Time in which a writer commits a file of events that it has written."""
_LAST_CHECKPOINT = f"{LOG}/_last_checkpoint"
_UNREADABLE = (OSError, pa.ArrowException, ValueError, KeyError, TypeError, EOFError)
"""Errors of files that are missing, torn or not what their name says."""


@dataclass(frozen=True, kw_only=True)
class CatalogState:
    """The files of a catalog, and everything that is wrong with them."""

    listing: LogListing
    commits: Mapping[int, LogCommit]
    """The commits from the first that is kept to the last, missing ones included."""
    live: Mapping[str, int]
    """The version that added each current file of events, by name."""
    broken_files: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with current files of events, by name."""
    lost_commits: Mapping[str, int] = field(default_factory=dict)
    """Intact files of events that no commit names, although they belong to a version that is
    damaged, missing or after the end of the log: their name, with that version."""
    checkpoints: Mapping[int, str] = field(default_factory=dict)
    """What is wrong with checkpoints, by version."""
    hint: str = ""
    """What is wrong with the file that names the last checkpoint."""
    num_bytes: int = 0
    num_events: int = 0

    @cached_property
    def adds(self) -> dict[str, Mapping[str, Any]]:
        """What the intact commits state of each file of events that they add, by name."""
        intact = (commit for _, commit in sorted(self.commits.items()) if not commit.problem)
        return {name: add for commit in intact for name, add in commit.adds.items()}

    @property
    def damaged_commits(self) -> list[LogCommit]:
        """The commits that are missing or damaged, the oldest first."""
        return [commit for _, commit in sorted(self.commits.items()) if commit.problem]

    @property
    def losses(self) -> list[str]:
        """What earlier repairs could not recover."""
        return [text for _, commit in sorted(self.commits.items()) for text in _lost(commit)]

    @property
    def problems(self) -> list[CatalogProblem]:
        """Everything that is wrong, what loses events first."""
        found = [
            CatalogProblem(file=commit_path(commit.version), problem=commit.problem)
            for commit in self.damaged_commits
        ]
        found += [
            CatalogProblem(file=f"{CATALOG}/{name}", problem=problem)
            for name, problem in sorted(self.broken_files.items())
        ]
        found += [
            CatalogProblem(
                file=f"{CATALOG}/{name}",
                problem=f"has events of version {version}, which the log does not contain: its "
                "commit was lost, or its writer was killed",
            )
            for name, version in sorted(self.lost_commits.items())
        ]
        derived = [
            (f"{LOG}/{name}", problem)
            for version, problem in sorted(self.checkpoints.items())
            for name in self.listing.checkpoints[version]
        ]
        derived += [(_LAST_CHECKPOINT, self.hint)] if self.hint else []
        found += [
            CatalogProblem(file=file, problem=problem, is_derived=True) for file, problem in derived
        ]
        return found


def _lost(commit: LogCommit) -> list[str]:
    lost = commit.stated.get("lost")
    return [str(text) for text in lost] if isinstance(lost, list) else []


def require_intact(root: Storage) -> None:
    """Raise Damaged with the first problem of a catalog that loses events or stops Delta Lake."""
    state = check_catalog(root)
    lost = {f"{CATALOG}/{name}" for name in state.lost_commits}
    for problem in state.problems:
        if problem.file not in lost:  # such files stop no reader
            raise damaged_catalog(root, problem)


def read_catalog(root: Storage) -> CatalogState:
    """Read the log, and find out which files of events are current."""
    listing = list_log(root)
    first = min(listing.commits, default=0)
    start = min((v for v in listing.checkpoints if v >= first - 1), default=None) if first else None
    commits, live = {}, dict[str, int]()
    if start is not None:
        # An earlier version of Delta Lake's settings deleted old commits.
        first = start + 1
        added = _read_checkpoint(root, listing.checkpoints[start])
        live = dict.fromkeys(added or (), start)
    elif first:
        first = 0
    for version in range(first, listing.last + 1):
        commit = commits[version] = read_commit(root, version)
        if not commit.problem:
            live |= dict.fromkeys(commit.adds, version)
            for name in commit.removes:
                live.pop(name, None)
    return CatalogState(listing=listing, commits=commits, live=live)


def check_catalog(root: Storage) -> CatalogState:
    """Read every file of the catalog, and return what is wrong."""
    state = read_catalog(root)
    adds = state.adds
    broken, num_bytes, num_events = {}, 0, 0
    for name in state.live:
        add = adds.get(name, {})
        problem, events = check_events(root, name, add)
        num_bytes, num_events = num_bytes + int(add.get("size", 0)), num_events + events
        if problem:
            broken[name] = problem
    return CatalogState(
        listing=state.listing,
        commits=state.commits,
        live=state.live,
        broken_files=broken,
        lost_commits=dict(_lost_commits(root, state, broken)),
        checkpoints=dict(_bad_checkpoints(root, state)),
        hint=_hint_problem(root, state.listing),
        num_bytes=num_bytes,
        num_events=num_events,
    )


def check_events(root: Storage, name: str, add: Mapping[str, Any]) -> tuple[str, int]:
    """Return what is wrong with a file of events, and the number of its events."""
    problem = file_problem(root, name, add)
    if problem:
        return problem, 0
    try:
        data = root.read(f"{CATALOG}/{name}")
        rows = pq.read_table(io.BytesIO(data), page_checksum_verification=True).num_rows
    except _UNREADABLE:
        return "is torn or damaged", 0
    if is_named_by_digest(name) and hashlib.sha256(data).hexdigest() != name.partition(".")[0]:
        return "does not have the SHA-256 of its name", rows
    stated = _stated_rows(add)
    return ("" if stated in (None, rows) else f"has {rows} events instead of {stated}"), rows


def _stated_rows(add: Mapping[str, Any]) -> int | None:
    try:
        return int(json.loads(add["stats"])["numRecords"])
    except (KeyError, TypeError, ValueError):
        return None


def _lost_commits(
    root: Storage, state: CatalogState, broken: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """Yield files of events that no commit names, and their version; see `CatalogState`."""
    incomplete = {
        v for v, commit in state.commits.items() if commit.problem or is_placeholder(commit)
    }
    incomplete |= {state.live[name] for name in broken}
    last, found = state.listing.last, dict[str, int]()
    for name in root.list_files(CATALOG):
        if name.endswith(".parquet") and name not in state.adds and name not in state.live:
            if not incomplete and not _may_follow(root, name, last):
                continue
            version = _version_of_events(root, name)
            if version is not None and (version in incomplete or version > last):
                found[name] = version
    if any(version > last for version in found.values()):
        # Another command may be about to commit.
        time.sleep(_COMMIT_SECONDS)
        last = list_log(root).last
    yield from ((n, v) for n, v in found.items() if v in incomplete or v > last)


def _may_follow(root: Storage, name: str, last: int) -> bool:
    """Return whether a file may have events after the last version, from its statistics alone."""
    try:
        with root.open(f"{CATALOG}/{name}") as file:
            metadata = pq.ParquetFile(file).metadata
            group = metadata.row_group(metadata.num_row_groups - 1)
            columns = [group.column(i) for i in range(group.num_columns)]
            seqs = next(column for column in columns if column.path_in_schema == "seq")
            return seqs.statistics is None or seqs.statistics.max >> BATCH_BITS > last
    except (*_UNREADABLE, StopIteration):
        return False


def _version_of_events(root: Storage, name: str) -> int | None:
    """Return the version that all events of an intact file belong to; None otherwise."""
    problem, num_events = check_events(root, name, {})
    if problem or not num_events:
        return None
    try:
        with root.open(f"{CATALOG}/{name}") as file:
            seqs = pq.read_table(file, columns=["seq"])["seq"]
    except _UNREADABLE:
        return None
    ends = pc.min_max(seqs).as_py()
    first, last = (int(ends[end]) >> BATCH_BITS for end in ("min", "max"))
    return first if first == last else None


def is_placeholder(commit: LogCommit) -> bool:
    """Return whether `lrm repair` wrote a commit in the place of a damaged one."""
    return bool(commit.stated.get("replaced"))


def _bad_checkpoints(root: Storage, state: CatalogState) -> Iterator[tuple[int, str]]:
    """Yield checkpoints that cannot be read or do not equal the log, and what is wrong."""
    live: set[str] = set()
    first = min(state.commits, default=0)
    if first:
        live = {name for name, version in state.live.items() if version < first}
    is_known = True
    contents = {
        version: _read_checkpoint(root, names)
        for version, names in state.listing.checkpoints.items()
    }
    for version, content in contents.items():
        if content is None:
            yield version, "is torn or damaged"
    for version in sorted(state.commits):
        commit = state.commits[version]
        is_known &= not commit.problem
        live = (live | set(commit.adds)) - set(commit.removes)
        content = contents.get(version)
        if content is not None and is_known and not first and content != live:
            yield version, "does not list the files that the log lists"
    if is_known and contents and None not in contents.values():
        try:
            DeltaTable(table_uri(root), storage_options=delta_options(root))
        except DeltaError:
            # Every commit is intact, so it is the copy that Delta Lake cannot use.
            yield max(contents), "cannot be used by Delta Lake"


def _read_checkpoint(root: Storage, names: Sequence[str]) -> set[str] | None:
    """Return the files of events in a checkpoint; None if it is damaged."""
    found: set[str] = set()
    try:
        for name in names:
            table = pq.read_table(io.BytesIO(root.read(f"{LOG}/{name}")))
            if "add" in table.column_names:
                paths = pc.struct_field(table["add"].combine_chunks(), "path")
                found |= {path for path in paths.to_pylist() if path is not None}
    except _UNREADABLE:
        return None
    return found


def _hint_problem(root: Storage, listing: LogListing) -> str:
    """Return what is wrong with `_last_checkpoint`."""
    try:
        version = int(json.loads(root.read(_LAST_CHECKPOINT))["version"])
    except FileNotFoundError:
        return ""
    except _UNREADABLE:
        return "is torn or damaged"
    return "" if version in listing.checkpoints else f"names version {version}, which is missing"
