"""Repair of a damaged catalog: recover what its files still contain, and say what is lost.

Every step is a whole file that is written and flushed, and a later run finds the same state: the
repair may be killed at any moment and is then started again. Intact commits are never changed.
Damaged bytes are copied to `catalog/_damaged/` before they are replaced.

1. Base files in `latest/` are dropped: they may hold events that the log has lost.
2. A placeholder without files of events takes the place of each damaged or missing commit.
3. Checkpoints that are damaged, or that cover a damaged commit, are removed; they are copies.
4. One commit adds the files of events that are intact but not named by the log, restores files
   whose merged copy is damaged, and takes damaged and missing files out of the table.
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from core.errors import WorkFailed
from core.storage import Storage
from dataset.catalog.event_columns import EVENT_SCHEMA
from dataset.catalog.event_files import add_action, create_table, sync_commits
from dataset.catalog.log_check import CatalogState, check_catalog, check_events
from dataset.catalog.log_files import (
    CATALOG,
    LOG,
    STATED,
    LogCommit,
    commit_path,
    evidence_of_lost_catalog,
    is_named_by_digest,
    read_commit,
)
from dataset.catalog.table_uri import delta_options, table_uri

__all__ = ["Loss", "Repair", "plan_repair", "repair_catalog"]

_ASIDE = f"{CATALOG}/_damaged"
_KEPT = ("protocol", "metaData", "txn")
"""Intact actions of a damaged commit that its placeholder repeats."""
_MERGED = "OPTIMIZE"
"""Operation of a commit that merges files: it loses no event, because the small files remain."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The events that were lost with a commit or with a file of events."""

    file: str
    version: int
    time: str = ""
    """Time of the commit, in ISO 8601; empty if it is unknown."""
    run: str = ""
    events: int | None = None
    """The number of events; None if it is unknown."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """The number of events by stage and status."""
    ids: Sequence[str] = ()
    """Some of the objects, all of them if there are few."""

    def __str__(self) -> str:
        number = "an unknown number of" if self.events is None else f"{self.events:,}"
        noun = "event" if self.events == 1 else "events"
        text = f"lost: {number} {noun} of version {self.version}"
        text += f" ({self.time})" if self.time else ""
        text += ": " + ", ".join(f"{n:,} {outcome}" for outcome, n in self.outcomes.items())
        text = text.removesuffix(": ")
        return text + (f" of {', '.join(self.ids)}" if self.ids else "")


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What is damaged in a catalog, what a repair does about it, and what is lost."""

    state: CatalogState
    recovered: Mapping[str, int]
    """Intact files of events that are added to the table again, with their version."""
    lost: Sequence[Loss]

    @property
    def bad_checkpoints(self) -> list[int]:
        """The checkpoints to remove: damaged ones, and those after a damaged commit."""
        damaged = [commit.version for commit in self.state.damaged_commits]
        after = min(damaged, default=self.state.listing.last + 1)
        return [
            version
            for version in self.state.listing.checkpoints
            if version >= after or version in self.state.checkpoints
        ]

    @property
    def unusable(self) -> list[str]:
        """The files of events to take out of the table."""
        return [name for name in self.state.broken_files if name not in self.recovered]

    @property
    def is_needed(self) -> bool:
        """Whether anything of the catalog is damaged."""
        return bool(self.state.problems)


def plan_repair(root: Storage) -> Repair:
    """Read the whole catalog and return what a repair would do.

    Raises WorkFailed if nothing is left of the catalog, or if old commits were deleted and the
    checkpoint that replaces them is damaged.
    """
    state = check_catalog(root)
    evidence = evidence_of_lost_catalog(root) if state.listing.last < 0 else ""
    if evidence and not state.lost_commits:
        raise WorkFailed(
            f"{root.uri}: nothing is left of the catalog, but the dataset has {evidence}; restore "
            "catalog/ from a backup"
        )
    first = min(state.commits, default=0)
    recovered = dict(state.lost_commits)
    lost: list[Loss] = []
    for name in state.broken_files:
        if _is_intact(root, state, name):
            recovered[name] = state.live[name]  # the log states a wrong size
            continue
        originals, missing = _originals(root, state, name)
        recovered |= dict.fromkeys(originals, state.live[name])
        lost += [_loss(state, f"{CATALOG}/{each}") for each in missing]
    for commit in state.damaged_commits:
        is_merge = commit.info.get("operation") == _MERGED
        if not is_merge and commit.version and commit.version not in state.lost_commits.values():
            lost.append(_loss(state, commit_path(commit.version)))
    repair = Repair(state=state, recovered=recovered, lost=lost)
    if first and repair.bad_checkpoints and first - 1 in repair.bad_checkpoints:
        raise WorkFailed(
            f"{root.uri}: the log begins with checkpoint {first - 1}, which is damaged; restore "
            "catalog/ from a backup"
        )
    return repair


def _originals(root: Storage, state: CatalogState, name: str) -> tuple[list[str], list[str]]:
    """Return the intact files that a broken one was merged from, and the files that are lost."""
    commit = next((c for c in state.commits.values() if name in c.adds), None)
    if commit is None or not commit.removes:
        # Another file with the events of its version takes its place, if there is one.
        version = -1 if commit is None else commit.version
        return [], ([] if version in state.lost_commits.values() else [name])
    intact, lost = list[str](), list[str]()
    for original in commit.removes:
        if _is_intact(root, state, original):
            intact.append(original)
        else:
            deeper, missing = _originals(root, state, original)
            intact, lost = intact + deeper, lost + missing
    return intact, lost


def _is_intact(root: Storage, state: CatalogState, name: str) -> bool:
    """Return whether a file has all its events, whatever size the log states."""
    stated = {"stats": state.adds.get(name, {}).get("stats")}
    return not check_events(root, name, {} if is_named_by_digest(name) else stated)[0]


def _loss(state: CatalogState, file: str) -> Loss:
    """Return what is known of the events of a commit, or of a file of events."""
    name = file.rpartition("/")[2]
    owner = next((c for c in state.commits.values() if name in c.adds), None)
    commit = owner or state.commits[int(name.partition(".")[0])]
    stated, info = commit.stated, commit.info
    stats = json.loads(commit.adds[name].get("stats") or "{}") if owner else {}
    metrics = info.get("operationMetrics") or {}
    events = stated.get("events", stats.get("numRecords", metrics.get("num_added_rows")))
    timestamp = info.get("timestamp")
    return Loss(
        file=file,
        version=commit.version,
        time=_iso(timestamp) if isinstance(timestamp, int) else "",
        run=str(stated.get("run", "")),
        events=events if isinstance(events, int) else None,
        outcomes=stated.get("outcomes", {}),
        ids=stated.get("ids", ()),
    )


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def repair_catalog(root: Storage, repair: Repair) -> None:
    """Carry out a repair."""
    root.delete("latest/index.json")
    if repair.state.listing.last < 0:
        missing = LogCommit(version=0, problem="is missing")
        root.write(commit_path(0), _placeholder(missing, None))
    losses = {loss.file: str(loss) for loss in repair.lost}
    for commit in repair.state.damaged_commits:
        path = commit_path(commit.version)
        _put_aside(root, [path])
        root.write(path, _placeholder(commit, losses.get(path)))
    if repair.bad_checkpoints or repair.state.hint:
        # The name of the last checkpoint goes first: Delta Lake fails if what it names is missing.
        paths = [f"{LOG}/_last_checkpoint"]
        for version in repair.bad_checkpoints:
            paths += [f"{LOG}/{name}" for name in repair.state.listing.checkpoints[version]]
        _put_aside(root, paths)
        for path in paths:
            root.delete(path)
    sync_commits(root, 0, repair.state.listing.last)
    if repair.recovered or repair.state.broken_files:
        _commit(root, repair)
    unusable = [f"{CATALOG}/{name}" for name in repair.unusable]
    _put_aside(root, unusable)
    for path in unusable:
        root.delete(path)


def _commit(root: Storage, repair: Repair) -> None:
    """Add the recovered files to the table, and take the broken ones out of it."""
    table = DeltaTable(table_uri(root), storage_options=delta_options(root))
    before = table.version()
    actions: list[AddAction | RemoveAction] = []
    for name in repair.recovered:
        size = root.size(f"{CATALOG}/{name}")
        actions.append(add_action(name, size, _read_events(root, name)))
    now = int(time() * 1000)
    actions += [
        RemoveAction(name, data_change=True, deletion_timestamp=now) for name in repair.unusable
    ]
    lost = [str(loss) for loss in repair.lost if not loss.file.startswith(LOG)]
    stated = {"files": len(repair.recovered), "lost": lost}
    table.create_write_transaction(
        actions,
        "append",
        EVENT_SCHEMA,
        commit_properties=CommitProperties(custom_metadata={STATED: stated}),
    )
    table.update_incremental()
    sync_commits(root, before + 1, table.version())


def _placeholder(commit: LogCommit, loss: str | None) -> bytes:
    """Return a commit without events that takes the place of a damaged one."""
    stated = {"replaced": commit.problem, "files": 0, "lost": [loss] if loss else []}
    info = {
        "timestamp": int(time() * 1000),
        "operation": "REPAIR",
        "operationParameters": {},
        STATED: stated,
    }
    kept = commit.actions if commit.version else _creation()
    kept = [(name, values) for name, values in kept if name in _KEPT]
    return "\n".join(
        json.dumps({name: values}) for name, values in [("commitInfo", info), *kept]
    ).encode()


def _creation() -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return the actions that create the table, as its first commit has them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Storage(folder)
        create_table(root)
        return read_commit(root, 0).actions


def _put_aside(root: Storage, paths: Iterable[str]) -> None:
    """Copy damaged files, named by their path and content, so that no byte is destroyed."""
    for path in paths:
        try:
            data = root.read(path)
        except (FileNotFoundError, IsADirectoryError):
            continue
        digest = hashlib.sha256(data).hexdigest()[:12]
        root.write(f"{_ASIDE}/{path.rpartition('/')[2]}.{digest}", data)


def _read_events(root: Storage, name: str) -> pa.Table:
    data = root.read(f"{CATALOG}/{name}")
    return pq.read_table(io.BytesIO(data), page_checksum_verification=True)
