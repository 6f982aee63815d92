"""The commits of the catalog's log, read without Delta Lake: which are damaged, and how.

Delta Lake takes an emptied commit for one without actions, and does not look for the files that a
commit names until they are read. Therefore the log is checked here when it is opened.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from core.errors import is_lost
from core.storage import Storage
from dataset.catalog.event_columns import EVENT_SCHEMA
from dataset.catalog.log_files import (
    CATALOG,
    LOG,
    CatalogProblem,
    LogListing,
    commit_path,
    damaged_catalog,
    file_problem,
    list_log,
)

__all__ = [
    "BATCH_BITS",
    "STATED",
    "LogCommit",
    "check_commits",
    "is_placeholder",
    "read_commit",
    "read_commits",
]

BATCH_BITS = 24
"""seq = table version << 24 | index in the batch: grows with every event."""

STATED = "lrm"
"""Key of a commit's information with what the commit contains: `files`, `events` and others."""
_ACTIONS = frozenset(
    {
        *("add", "cdc", "checkpointMetadata", "commitInfo", "domainMetadata", "metaData"),
        *("protocol", "remove", "sidecar", "txn"),
    }
)
"""Actions of the protocol of Delta Lake."""


@dataclass(frozen=True, kw_only=True)
class LogCommit:
    """One commit of the log, as its file describes it."""

    version: int
    actions: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """The actions of all intact lines."""
    problem: str = ""
    """How the file is damaged; empty if it is intact."""
    sha256: str = ""

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the actions of one kind."""
        return [values for name, values in self.actions if name == kind]

    @cached_property
    def adds(self) -> dict[str, Mapping[str, Any]]:
        """The files that the commit adds, by name."""
        return {add["path"]: add for add in self.of("add")}

    @cached_property
    def removes(self) -> list[str]:
        """The names of the files that the commit takes out of the table."""
        return [remove["path"] for remove in self.of("remove")]

    @property
    def info(self) -> Mapping[str, Any]:
        """The information of the commit; empty if it is lost."""
        return next(iter(self.of("commitInfo")), {})

    @property
    def stated(self) -> Mapping[str, Any]:
        """What the commit says that it contains; empty for commits of earlier versions."""
        stated = self.info.get(STATED)
        return stated if isinstance(stated, dict) else {}


def read_commit(root: Storage, version: int) -> LogCommit:
    """Read a commit. Its `problem` says whether the file is missing or damaged."""
    try:
        data = root.read(commit_path(version))
    except OSError as error:
        if not is_lost(error):
            raise
        is_missing = isinstance(error, FileNotFoundError)
        problem = "is missing" if is_missing else "is not a file"
        return LogCommit(version=version, problem=problem)
    if not data.strip(b"\0\n "):
        return LogCommit(version=version, problem="has only zeros" if data else "is empty")
    actions, problem = [], ""
    for line in data.splitlines():
        try:
            ((name, values),) = json.loads(line).items()
            if name not in _ACTIONS or (name in ("add", "remove") and not values["path"]):
                raise ValueError
            actions.append((name, dict(values)))
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
            problem = "is torn or damaged"
    commit = LogCommit(version=version, actions=actions)
    return LogCommit(
        version=version,
        actions=actions,
        problem=problem or _incomplete(commit),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def read_commits(
    root: Storage, listing: LogListing, versions: Iterable[int]
) -> Iterator[LogCommit]:
    """Read successive commits, and find those that another file has replaced, too."""
    live: set[str] = set()
    for version in versions:
        commit = read_commit(root, version)
        if not commit.problem and not is_placeholder(commit):
            recorded, sha256 = listing.recorded or (-1, "")
            is_other = version == recorded and commit.sha256 != sha256
            if is_other or _is_copy(commit, live):
                # Nothing that it states belongs to this version.
                commit = LogCommit(version=version, problem="is not the commit that was written")
        live = (live | set(commit.adds)) - set(commit.removes)
        yield commit


def is_placeholder(commit: LogCommit) -> bool:
    """Return whether `lrm repair` wrote a commit in the place of a damaged one."""
    return bool(commit.stated.get("replaced"))


def _is_copy(commit: LogCommit, live: Collection[str]) -> bool:
    """Return whether a batch of events is that of another version, earlier or later."""
    if not commit.of("txn"):
        return False
    return any(
        name in live or (_first_version(add) or 0) > commit.version
        for name, add in commit.adds.items()
    )


def _first_version(add: Mapping[str, Any]) -> int | None:
    """Return the least version that the events of a file are numbered from; None if unknown."""
    try:
        return int(json.loads(add["stats"])["minValues"]["seq"]) >> BATCH_BITS
    except (KeyError, TypeError, ValueError):
        return None


def check_commits(root: Storage, last: int | None = None) -> None:
    """Check the commits that Delta Lake reads when it opens a local table: from the last checkpoint
    on, with the files that they add. On an object store, which tears no files, check `last` only.

    Raises Damaged with the first problem.
    """
    if last is not None:
        listing = LogListing(commits=[last], checkpoints={})
        versions: Iterable[int] = [last]
    else:
        listing = list_log(root)
        for name, text in listing.odd.items():
            raise damaged_catalog(root, CatalogProblem(file=f"{LOG}/{name}", problem=text))
        if not (listing.commits or listing.checkpoints):
            return  # Delta Lake finds no table
        versions = range(max(listing.checkpoints, default=-1) + 1, listing.last + 1)
    added = dict[str, Mapping[str, Any]]()
    for commit in read_commits(root, listing, versions):
        if commit.problem:
            problem = CatalogProblem(file=commit_path(commit.version), problem=commit.problem)
            raise damaged_catalog(root, problem)
        added |= commit.adds
        for name in commit.removes:
            added.pop(name, None)
    for name, add in added.items():
        if text := file_problem(root, name, add):
            raise damaged_catalog(root, CatalogProblem(file=f"{CATALOG}/{name}", problem=text))


def _incomplete(commit: LogCommit) -> str:
    """Return which actions a commit lacks according to its own information."""
    metrics = commit.info.get("operationMetrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    num_added = commit.stated.get(
        "files", metrics.get("num_added_files", metrics.get("numFilesAdded"))
    )
    num_removed = metrics.get("num_removed_files", metrics.get("numFilesRemoved"))
    if not commit.info:
        return "is incomplete: it lacks its information"
    if commit.version == 0 and not (commit.of("protocol") and _has_schema(commit)):
        return "does not have the schema of the table"
    if num_added not in (None, len(commit.adds)) or num_removed not in (None, len(commit.removes)):
        return "is incomplete: it lacks files that it states"
    if commit.stated.get("run") and not commit.of("txn"):
        return "is incomplete: it lacks its transaction"
    return ""


def _has_schema(commit: LogCommit) -> bool:
    """Return whether a commit creates the table with the columns of events."""
    try:
        fields = json.loads(commit.of("metaData")[0]["schemaString"])["fields"]
        return [field["name"] for field in fields] == EVENT_SCHEMA.names
    except (IndexError, KeyError, TypeError, ValueError):
        return False
