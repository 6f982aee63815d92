"""The whole catalog, read and compared with its log: for `lrm verify` and `lrm repair`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from core.storage import Storage
from dataset.catalog.event_files import UNREADABLE, check_events, version_of_events
from dataset.catalog.log_files import CATALOG, HINT, LogListing, damaged_catalog
from dataset.catalog.log_state import CatalogState, read_catalog, read_checkpoint
from dataset.catalog.table_uri import delta_options, table_uri

__all__ = ["LATE_VERSIONS", "check_catalog", "require_intact"]

LATE_VERSIONS = 64
"""Concurrent writers number events from the table version they read, so numbers can lag by a few
commits; this is the largest lag that readers allow for."""


def require_intact(root: Storage) -> None:
    """Raise Damaged with the first problem of a catalog that loses events or stops Delta Lake."""
    state = check_catalog(root)
    lost = {f"{CATALOG}/{name}" for name in state.lost_commits}
    for problem in state.problems:
        if problem.file not in lost:  # such files stop no reader
            raise damaged_catalog(root, problem)


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
    return replace(
        state,
        broken_files=broken,
        lost_commits=dict(_lost_files(root, state, broken)),
        checkpoints=dict(_bad_checkpoints(root, state)),
        hint=_hint_problem(root, state.listing),
        num_bytes=num_bytes,
        num_events=num_events,
    )


def _lost_files(
    root: Storage, state: CatalogState, broken: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """Yield files of events that no commit names, and their version; see `CatalogState`."""
    damaged = {commit.version: commit for commit in state.damaged_commits}
    incomplete = {*damaged, *(state.live[name] for name in broken)}
    versions = dict(_unnamed_files(root, state) if incomplete else ())
    for version in incomplete:
        named = damaged[version].adds if version in damaged else ()
        names = [name for name in versions if name in named]
        names = names or [name for name, numbered in versions.items() if numbered == version]
        if not names and version in damaged:
            names = _numbered_before(versions, version)
        for name in names:
            yield name, version


def _unnamed_files(root: Storage, state: CatalogState) -> Iterator[tuple[str, int]]:
    """Yield intact files of events that no intact commit names, and the version of their events."""
    for name in root.list_files(CATALOG):
        if name.endswith(".parquet") and name not in state.adds and name not in state.live:
            version = version_of_events(root, name)
            if version is not None:
                yield name, version


def _numbered_before(versions: Mapping[str, int], version: int) -> list[str]:
    """Return the files whose writer read an earlier version than it committed, the latest ones."""
    earlier = {n for n in versions.values() if version - LATE_VERSIONS <= n < version}
    return [name for name, number in versions.items() if earlier and number == max(earlier)]


def _bad_checkpoints(root: Storage, state: CatalogState) -> Iterator[tuple[int, str]]:
    """Yield checkpoints that cannot be read or do not equal the log, and what is wrong."""
    live: set[str] = set()
    first = min(state.commits, default=0)
    if first:
        live = {name for name, version in state.live.items() if version < first}
    is_known = True
    contents = {
        version: read_checkpoint(root, names)
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
    if is_known and contents and None not in contents.values() and not state.listing.odd:
        try:
            DeltaTable(table_uri(root), storage_options=delta_options(root))
        except (DeltaError, OSError):
            # Every commit is intact, so it is the copy that Delta Lake cannot use.
            yield max(contents), "cannot be used by Delta Lake"


def _hint_problem(root: Storage, listing: LogListing) -> str:
    """Return what is wrong with `_last_checkpoint`."""
    try:
        version = int(json.loads(root.read(HINT))["version"])
    except FileNotFoundError:
        return ""
    except UNREADABLE:
        return "is torn or damaged"
    return "" if version in listing.checkpoints else f"names version {version}, which is missing"
