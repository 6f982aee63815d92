"""The state of a catalog: its commits, the current files of events, and what is wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.storage import Storage
from dataset.catalog.event_files import UNREADABLE, version_of_events
from dataset.catalog.log_commits import LogCommit, read_commits
from dataset.catalog.log_files import (
    CATALOG,
    HINT,
    LAST_COMMIT,
    LOG,
    CatalogProblem,
    LogListing,
    commit_path,
    list_log,
)

__all__ = ["CatalogState", "read_catalog", "read_checkpoint"]


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
    """Intact files of events that belong to a damaged or missing commit: their name, with its
    version. Those after the end of the log were never reported as done and do not count."""
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
                problem=f"has events of version {version}, whose commit is damaged or missing",
            )
            for name, version in sorted(self.lost_commits.items())
        ]
        derived = [
            (f"{LOG}/{name}", problem)
            for version, problem in sorted(self.checkpoints.items())
            for name in self.listing.checkpoints[version]
        ]
        derived += [(HINT, self.hint)] if self.hint else []
        if self.listing.is_record_damaged:
            derived.append((LAST_COMMIT, "is torn or damaged"))
        found += [
            CatalogProblem(file=file, problem=problem, is_derived=True) for file, problem in derived
        ]
        return found


def _lost(commit: LogCommit) -> list[str]:
    lost = commit.stated.get("lost")
    return [str(text) for text in lost] if isinstance(lost, list) else []


def read_catalog(root: Storage) -> CatalogState:
    """Read the log, and find out which files of events are current."""
    listing = list_log(root)
    if listing.last < 0:
        listing = replace(listing, recorded=_last_of_events(root))
    first = min(listing.commits, default=0)
    start = min((v for v in listing.checkpoints if v >= first - 1), default=None) if first else None
    commits, live = {}, dict[str, int]()
    if start is not None:
        # An earlier version of Delta Lake's settings deleted old commits.
        first = start + 1
        added = read_checkpoint(root, listing.checkpoints[start])
        live = dict.fromkeys(added or (), start)
    elif first:
        first = 0
    for commit in read_commits(root, listing, range(first, listing.last + 1)):
        commits[commit.version] = commit
        if not commit.problem:
            live |= dict.fromkeys(commit.adds, commit.version)
            for name in commit.removes:
                live.pop(name, None)
    return CatalogState(listing=listing, commits=commits, live=live)


def _last_of_events(root: Storage) -> tuple[int, str] | None:
    """Return the last version that left a file of events; None if there is no such file."""
    names = [name for name in root.list_files(CATALOG) if name.endswith(".parquet")]
    versions = [v for v in (version_of_events(root, n) for n in names) if v is not None]
    return (max(versions), "") if versions else None


def read_checkpoint(root: Storage, names: Sequence[str]) -> set[str] | None:
    """Return the files of events in a checkpoint; None if it is damaged."""
    found: set[str] = set()
    try:
        for name in names:
            table = pq.read_table(pa.BufferReader(root.read(f"{LOG}/{name}")))
            if "add" in table.column_names:
                paths = pc.struct_field(table["add"].combine_chunks(), "path")
                found |= {path for path in paths.to_pylist() if path is not None}
    except UNREADABLE:
        return None
    return found
