"""The files of the catalog's log, read without Delta Lake: which of them are damaged, and how.

Delta Lake takes an emptied commit for one without actions, and does not look for the files that a
commit names until they are read. Therefore the log is checked here when it is opened.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from core.errors import Damaged
from core.storage import Storage
from dataset.catalog.event_columns import EVENT_SCHEMA

__all__ = [
    "CATALOG",
    "LOG",
    "STATED",
    "CatalogProblem",
    "LogCommit",
    "check_commits",
    "commit_digest",
    "commit_path",
    "damaged_catalog",
    "evidence_of_lost_catalog",
    "file_problem",
    "is_named_by_digest",
    "list_log",
    "read_commit",
]

CATALOG = "catalog"
LOG = f"{CATALOG}/_delta_log"
STATED = "lrm"
"""Key of a commit's information with what the commit contains: `files`, `events` and others."""
_COMMIT = re.compile(r"([0-9]{20})\.json")
_CHECKPOINT = re.compile(r"([0-9]{20})\.checkpoint(?:\..+)?\.parquet")
_DIGEST_NAME = re.compile(r"[0-9a-f]{64}\.parquet")
_ACTIONS = frozenset(
    {
        *("add", "cdc", "checkpointMetadata", "commitInfo", "domainMetadata", "metaData"),
        *("protocol", "remove", "sidecar", "txn"),
    }
)
"""Actions of the protocol of Delta Lake."""
_EVIDENCE = ("latest/index.json", "snapshots", "shards")
"""Files that a dataset has only after its first commit."""


@dataclass(frozen=True, kw_only=True)
class CatalogProblem:
    """Damage to one file of the catalog, or of what is derived from it."""

    file: str
    """Path below the root."""
    problem: str
    is_derived: bool = False
    """Whether the file can be made again from the log, so that nothing is lost with it."""

    def __str__(self) -> str:
        return f"{self.file} {self.problem}"


@dataclass(frozen=True, kw_only=True)
class LogCommit:
    """One commit of the log, as its file describes it."""

    version: int
    actions: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """The actions of all intact lines."""
    problem: str = ""
    """How the file is damaged; empty if it is intact."""

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


@dataclass(frozen=True, kw_only=True)
class LogListing:
    """The versions whose files are in the log's folder, ascending."""

    commits: Sequence[int]
    checkpoints: Mapping[int, Sequence[str]]
    """The names of the files of each checkpoint."""

    @property
    def last(self) -> int:
        """The last version; -1 if the log is empty."""
        return max([*self.commits, *self.checkpoints], default=-1)


def list_log(root: Storage) -> LogListing:
    """Return the versions in the log of a dataset's catalog."""
    commits, checkpoints = [], dict[int, list[str]]()
    for name in root.list_files(LOG):
        if match := _COMMIT.fullmatch(name):
            commits.append(int(match[1]))
        elif match := _CHECKPOINT.fullmatch(name):
            checkpoints.setdefault(int(match[1]), []).append(name)
    return LogListing(commits=commits, checkpoints=checkpoints)


def commit_path(version: int) -> str:
    """Return the path of a commit's file below the root."""
    return f"{LOG}/{version:020}.json"


def read_commit(root: Storage, version: int) -> LogCommit:
    """Read a commit. Its `problem` says whether the file is missing or damaged."""
    try:
        data = root.read(commit_path(version))
    except (FileNotFoundError, IsADirectoryError):
        return LogCommit(version=version, problem="is missing")
    if not data.strip(b"\0\n "):
        return LogCommit(version=version, problem="has only zeros" if data else "is empty")
    actions, problem = [], ""
    for line in data.splitlines():
        try:
            ((name, values),) = json.loads(line).items()
            if name not in _ACTIONS or (name in ("add", "remove") and not values["path"]):
                raise ValueError
            actions.append((name, dict(values)))
        except (ValueError, AttributeError, TypeError, KeyError):
            problem = "is torn or damaged"
    commit = LogCommit(version=version, actions=actions)
    return LogCommit(version=version, actions=actions, problem=problem or _incomplete(commit))


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


def check_commits(root: Storage, last: int | None = None) -> None:
    """Check the commits that Delta Lake reads when it opens a local table: from the last checkpoint
    on, with the files that they add. On an object store, which tears no files, check `last` only.

    Raises Damaged with the first problem.
    """
    if last is not None:
        versions: Iterable[int] = [last]
    else:
        log = list_log(root)
        versions = range(max(log.checkpoints, default=-1) + 1, log.last + 1)
    added = dict[str, Mapping[str, Any]]()
    for version in versions:
        commit = read_commit(root, version)
        if commit.problem:
            problem = CatalogProblem(file=commit_path(version), problem=commit.problem)
            raise damaged_catalog(root, problem)
        added |= commit.adds
        for name in commit.removes:
            added.pop(name, None)
    for name, add in added.items():
        if text := file_problem(root, name, add):
            raise damaged_catalog(root, CatalogProblem(file=f"{CATALOG}/{name}", problem=text))


def file_problem(root: Storage, name: str, add: Mapping[str, Any]) -> str:
    """Return what is wrong with the size of a file of events; empty if it is as stated."""
    try:
        info = root.info(f"{CATALOG}/{name}")
    except FileNotFoundError:
        return "is missing"
    size = int(info["size"])
    if info.get("type") != "file":
        return "is not a file"
    stated = add.get("size", size)
    return "" if size == stated else f"has {size:,} bytes instead of {stated:,}"


def is_named_by_digest(name: str) -> bool:
    """Return whether a file of events is named by its SHA-256; merged and older ones are not."""
    return _DIGEST_NAME.fullmatch(name) is not None


def damaged_catalog(root: Storage, problem: CatalogProblem) -> Damaged:
    """Return the error of a command that finds the catalog damaged."""
    return Damaged(
        f"{root.uri}: the catalog is damaged: {problem}; to see what is lost and to repair it: "
        f"lrm repair --root {root.uri}"
    )


def evidence_of_lost_catalog(root: Storage) -> str:
    """Return a file or folder that shows that a missing catalog existed; empty without any."""
    events = [f"{CATALOG}/{name}" for name in root.list_files(CATALOG) if ".parquet" in name]
    return next((path for path in _EVIDENCE if root.exists(path)), next(iter(events), ""))


def commit_digest(root: Storage, version: int) -> str:
    """Return the SHA-256 of a commit's file; empty if there is none."""
    try:
        return hashlib.sha256(root.read(commit_path(version))).hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return ""
