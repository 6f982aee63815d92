"""Repair of a damaged catalog: recover what its files still contain, and say what is lost.

Every step is a whole file that is written and flushed, and a later run finds the same state: the
repair may be killed at any moment and is then started again. Intact commits are never changed.
Damaged bytes are copied to `catalog/_damaged/` before they are replaced.

1. Base files in `latest/` are dropped: they may hold events that the log has lost.
2. A placeholder takes the place of each damaged or missing commit. It names the files of its
   events that are intact, so the log never looks healthy without them.
3. Checkpoints that are damaged, or that cover a damaged commit, are removed; they are copies.
4. One commit restores files whose merged copy is damaged, and takes damaged and missing files out
   of the table.
"""

import contextlib
import hashlib
import json
import stat
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from core.atomic import make_folder, move_file
from core.errors import WorkFailed
from core.storage import Storage
from dataset.catalog.event_columns import EVENT_SCHEMA
from dataset.catalog.event_files import (
    add_action,
    check_events,
    create_table,
    sync_commits,
)
from dataset.catalog.log_check import check_catalog
from dataset.catalog.log_commits import STATED, LogCommit, read_commit
from dataset.catalog.log_files import (
    CATALOG,
    HINT,
    LAST_COMMIT,
    LOG,
    commit_path,
    evidence_of_lost_catalog,
    is_named_by_digest,
)
from dataset.catalog.log_losses import Loss, loss_of
from dataset.catalog.log_state import CatalogState
from dataset.catalog.table_uri import delta_options, table_uri

__all__ = ["Repair", "plan_repair", "repair_catalog"]

_ASIDE = f"{CATALOG}/_damaged"
_KEPT = ("protocol", "metaData", "txn")
"""Intact actions of a damaged commit that its placeholder repeats."""
_MERGED = "OPTIMIZE"
"""Operation of a commit that merges files: it loses no event, because the small files remain."""


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
    is_empty = not (state.listing.commits or state.listing.checkpoints)
    evidence = evidence_of_lost_catalog(root) if is_empty else ""
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
        lost += [loss_of(state, f"{CATALOG}/{each}") for each in missing]
    for commit in state.damaged_commits:
        is_merge = commit.info.get("operation") == _MERGED
        if not is_merge and commit.version and commit.version not in state.lost_commits.values():
            lost.append(loss_of(state, commit_path(commit.version)))
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


def repair_catalog(root: Storage, repair: Repair) -> None:
    """Carry out a repair."""
    _remove(root, ["latest/index.json"])
    losses = {loss.file: str(loss) for loss in repair.lost}
    named = set[str]()
    for commit in repair.state.damaged_commits:
        path = commit_path(commit.version)
        found = repair.state.lost_commits.items()
        names = [name for name, version in found if version == commit.version]
        placeholder = _placeholder(commit, losses.get(path), [_add(root, name) for name in names])
        named.update(names)
        _put_aside(root, path)
        root.write(path, placeholder)
    if repair.bad_checkpoints or repair.state.hint:
        # The name of the last checkpoint goes first: Delta Lake fails if what it names is missing.
        paths = [HINT]
        for version in repair.bad_checkpoints:
            paths += [f"{LOG}/{name}" for name in repair.state.listing.checkpoints[version]]
        _remove(root, paths)
    if repair.state.listing.is_record_damaged:
        _remove(root, [LAST_COMMIT])
    sync_commits(root, 0, repair.state.listing.last)
    others = [name for name in repair.recovered if name not in named]
    if others or repair.state.broken_files:
        _commit(root, repair, others)
    _remove(root, [f"{CATALOG}/{name}" for name in repair.unusable])


def _commit(root: Storage, repair: Repair, recovered: Sequence[str]) -> None:
    """Add recovered files to the table, and take the broken ones out of it."""
    table = DeltaTable(table_uri(root), storage_options=delta_options(root))
    before = table.version()
    actions: list[AddAction | RemoveAction] = [_add(root, name) for name in recovered]
    now = int(time() * 1000)
    actions += [
        RemoveAction(name, data_change=True, deletion_timestamp=now) for name in repair.unusable
    ]
    lost = [str(loss) for loss in repair.lost if not loss.file.startswith(LOG)]
    stated = {"files": len(recovered), "lost": lost}
    table.create_write_transaction(
        actions,
        "append",
        EVENT_SCHEMA,
        commit_properties=CommitProperties(custom_metadata={STATED: stated}),
    )
    table.update_incremental()
    sync_commits(root, before + 1, table.version())


def _add(root: Storage, name: str) -> AddAction:
    """Return the entry of the log for an intact file of events."""
    return add_action(name, root.size(f"{CATALOG}/{name}"), _read_events(root, name))


def _placeholder(commit: LogCommit, loss: str | None, adds: Sequence[AddAction]) -> bytes:
    """Return a commit that takes the place of a damaged one, with its events that are intact."""
    stated = {"replaced": commit.problem, "files": len(adds), "lost": [loss] if loss else []}
    info = {
        "timestamp": int(time() * 1000),
        "operation": "REPAIR",
        "operationParameters": {},
        STATED: stated,
    }
    kept = commit.actions if commit.version else _creation()
    kept = [(name, values) for name, values in kept if name in _KEPT]
    kept += [("add", _add_values(add)) for add in adds]
    return "\n".join(
        json.dumps({name: values}) for name, values in [("commitInfo", info), *kept]
    ).encode()


def _add_values(add: AddAction) -> Mapping[str, Any]:
    """Return the entry of a file as Delta Lake writes it to the log."""
    return {
        "path": add.path,
        "partitionValues": {},
        "size": add.size,
        "modificationTime": add.modification_time,
        "dataChange": True,
        "stats": add.stats,
    }


def _creation() -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return the actions that create the table, as its first commit has them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Storage(folder)
        create_table(root)
        return read_commit(root, 0).actions


def _remove(root: Storage, paths: Iterable[str]) -> None:
    """Remove damaged files after a copy."""
    for path in paths:
        _put_aside(root, path)
        root.delete(path)


def _put_aside(root: Storage, path: str) -> None:
    """Copy a damaged file, named by its path and content, so that no byte is destroyed.

    What is no file, such as a folder or a link, is moved.
    """
    name = f"{_ASIDE}/{path.rpartition('/')[2]}"
    local = Path(root.resolve(path))
    if root.is_local and _is_other(local):
        make_folder(Path(root.resolve(_ASIDE)))
        move_file(local, Path(root.resolve(f"{name}.{uuid.uuid4().hex[:12]}")))
        return
    with contextlib.suppress(FileNotFoundError):
        data = root.read(path)
        root.write(f"{name}.{hashlib.sha256(data).hexdigest()[:12]}", data)


def _is_other(path: Path) -> bool:
    """Return whether a folder, link, pipe or socket has the name of a file."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _read_events(root: Storage, name: str) -> pa.Table:
    data = root.read(f"{CATALOG}/{name}")
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
