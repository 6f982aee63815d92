"""The names of the files of the catalog's log, and the record of its last commit.

`catalog/_last_commit.json` names the last commit that was flushed to a local disk, with its
SHA-256, so that the loss of a commit that was reported as done is noticed. It has its own digest;
without it, or if it is damaged, the last commit of the log counts.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.config import canonical_json, digest
from core.errors import Damaged, is_lost
from core.storage import Storage

__all__ = [
    "CATALOG",
    "HINT",
    "LAST_COMMIT",
    "LOG",
    "CatalogProblem",
    "LogListing",
    "commit_digest",
    "commit_path",
    "damaged_catalog",
    "evidence_of_lost_catalog",
    "file_problem",
    "is_named_by_digest",
    "list_log",
    "record_last_commit",
]

CATALOG = "catalog"
LOG = f"{CATALOG}/_delta_log"
HINT = f"{LOG}/_last_checkpoint"
"""The name of the last checkpoint."""
LAST_COMMIT = f"{CATALOG}/_last_commit.json"
_COMMIT = re.compile(r"([0-9]{20})\.json")
_CHECKPOINT = re.compile(r"([0-9]{20})\.checkpoint(?:\..+)?\.parquet")
_DIGEST_NAME = re.compile(r"[0-9a-f]{64}\.parquet")
_EVIDENCE = (LAST_COMMIT, "latest/index.json", "snapshots", "shards")
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
class LogListing:
    """The versions whose files are in the log's folder, ascending."""

    commits: Sequence[int]
    checkpoints: Mapping[int, Sequence[str]]
    """The names of the files of each checkpoint."""
    recorded: tuple[int, str] | None = None
    """The last commit that was flushed, and its SHA-256; None if that is not recorded."""
    is_record_damaged: bool = False
    odd: Mapping[str, str] = field(default_factory=dict)
    """What has the name of a file of the log but is none, such as a folder or a pipe, and what it
    is: Delta Lake may wait for ever for a pipe."""

    @property
    def last(self) -> int:
        """The last version; -1 if the log is empty."""
        recorded = [self.recorded[0]] if self.recorded else []
        return max([*self.commits, *self.checkpoints, *recorded], default=-1)


def list_log(root: Storage) -> LogListing:
    """Return the versions in the log of a dataset's catalog."""
    commits, checkpoints = [], dict[int, list[str]]()
    odd = dict[str, str]()
    names = root.versions(LOG, on_problem=odd.__setitem__)
    odd = {name: odd[name] for name in odd if _is_of_log(name)}
    for name in sorted({*names, *odd}):
        if match := _COMMIT.fullmatch(name):
            commits.append(int(match[1]))
        elif match := _CHECKPOINT.fullmatch(name):
            checkpoints.setdefault(int(match[1]), []).append(name)
    recorded, is_damaged = _recorded(root) if root.is_local else (None, False)
    return LogListing(
        commits=commits,
        checkpoints=checkpoints,
        recorded=recorded,
        is_record_damaged=is_damaged,
        odd=odd,
    )


def _is_of_log(name: str) -> bool:
    is_numbered = _COMMIT.fullmatch(name) or _CHECKPOINT.fullmatch(name)
    return bool(is_numbered) or name == HINT.rpartition("/")[2]


def record_last_commit(root: Storage, version: int) -> None:
    """Record the last commit of a local log, after it was flushed; an older one is not recorded."""
    recorded, _ = _recorded(root)
    record = {"version": version, "sha256": commit_digest(root, version)}
    # A concurrent writer may have recorded a later commit.
    if recorded is None or recorded[0] <= version:
        content = {**record, "digest": digest(record)}
        root.write(LAST_COMMIT, canonical_json(content).encode())


def _recorded(root: Storage) -> tuple[tuple[int, str] | None, bool]:
    """Return the recorded commit, and whether the record is damaged."""
    try:
        content = json.loads(root.read(LAST_COMMIT))
        if content.pop("digest") == digest(content):
            return (int(content["version"]), str(content["sha256"])), False
    except FileNotFoundError:
        return None, False
    except OSError as error:
        if not is_lost(error):
            raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None, True


def commit_path(version: int) -> str:
    """Return the path of a commit's file below the root."""
    return f"{LOG}/{version:020}.json"


def file_problem(root: Storage, name: str, add: Mapping[str, Any]) -> str:
    """Return what is wrong with the size of a file of events; empty if it is as stated."""
    try:
        info = root.info(f"{CATALOG}/{name}")
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        if not is_lost(error):
            raise
        return "is not a file"
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
    except OSError as error:
        if not is_lost(error):
            raise
        return ""
