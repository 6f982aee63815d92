"""The changes of a source's listing since the last build; only the changed parts are read.

A source lists its objects in parts, each with a version. If the version of a part is the same as in
the last build, its annotations are not read again: the catalog has them, and only the versions of
the files and the captions are compared.
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from core.config import canonical_json, digest
from core.errors import BadInput, is_lost
from core.failures import FailureKind
from core.storage import Storage
from dataset.catalog.event_columns import LIST, LISTED
from dataset.catalog.event_log import Catalog, Event
from dataset.columns import is_one_of, mask
from pipelines.building.build_config import BuildConfig
from pipelines.building.projection import NOT_FOR_PLANS, listed_row, projection
from pipelines.sources import Source

__all__ = ["Listing", "read_listing", "read_parts", "write_parts"]

_PARTS_FILE = "listing.json"
_SCHEMA = pa.schema(
    [field for field in projection().schema(LIST.stage) if field.name not in NOT_FOR_PLANS]
)
_LISTED = tuple(column.name for column in LIST.listed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The present listing of a source, compared with the catalog."""

    listed: pa.Table
    """All objects that are listed now, in the form of the catalog's table of stage `list`."""
    changed: pa.Table
    """The listed objects that are new or differ from the catalog."""
    delisted: pa.Array
    """Asset ids that the catalog has and the source no longer lists."""
    previous: pa.Table
    """The catalog's rows of the objects in `changed` and `delisted` that it listed until now."""
    returned: pa.Array
    """Asset ids in `changed` that the source listed before, but not at the last build."""
    selected: pa.Array
    """Asset ids that this build works on: those of its source, up to its limit."""
    parts: Mapping[str, str]
    """The version of every part, for `write_parts` once this listing is in the catalog."""
    problems: Mapping[str, str]
    """Why the annotations of selected objects cannot be used, by asset id."""

    def events(self) -> Iterator[Event]:
        """Yield the events that bring the catalog up to date."""
        for batch in self.changed.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                yield Event(
                    asset_id=row["asset_id"],
                    stage=LIST.stage,
                    content=row["content"],
                    status=row["status"],
                    kind=row["kind"] or "",
                    message=self.problems.get(row["asset_id"], ""),
                    data={name: row[name] for name in _LISTED},
                )
        for asset_id in self.delisted.to_pylist():
            yield Event(asset_id=asset_id, stage=LIST.stage, status="gone")


def read_parts(root: Storage, config: BuildConfig) -> dict[str, str]:
    """Return the versions of the parts that the catalog holds.

    Returns an empty dict if the last build read another source or another selection of it, or if
    the catalog was replaced since, such as by an older one from a backup.
    """
    try:
        stored = json.loads(root.read(_PARTS_FILE))
        commit = Catalog(root).digest(int(stored["seq"]))
        is_same = stored["selection"] == _selection(config) and stored["commit"] == commit
        return dict(stored["parts"]) if is_same else {}
    except OSError as error:
        if not is_lost(error):
            raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    # Without the versions, the whole listing is read.
    return {}


def write_parts(root: Storage, config: BuildConfig, listing: Listing) -> None:
    """Store the versions of the parts that the catalog holds now."""
    catalog = Catalog(root)
    seq = catalog.last_seq()
    stored = {
        "selection": _selection(config),
        "parts": dict(listing.parts),
        "seq": seq,
        "commit": catalog.digest(seq),
    }
    root.write(_PARTS_FILE, canonical_json(stored).encode())


def _selection(config: BuildConfig) -> str:
    """Return the digest of the settings that decide which objects a listing holds."""
    return digest([config.source.partition("@")[0], config.lvis, LISTED_VERSION])


LISTED_VERSION = 2
"""Increment when the same annotations give a different record."""


def read_listing(
    source: Source,
    config: BuildConfig,
    captions: Mapping[str, str],
    known: pa.Table,
    parts: Mapping[str, str],
) -> Listing:
    """Compare the source's present listing with `known`, the catalog's table of stage `list`.

    `parts` are the versions of the parts that `known` was read from. Raises BadInput if the source
    cannot be read, or if --lvis is set and the source lists no LVIS object.
    """
    part_versions = source.parts()
    if config.lvis and not any(source.files(name, True) for name in part_versions):
        raise BadInput(
            f"{config.source}: no object has an LVIS category in this source: leave out --lvis"
        )
    is_active = is_one_of(known["status"], LISTED)
    of_source = pc.starts_with(known["asset_id"], f"{source.prefix}:").to_numpy()
    known = known.select(_SCHEMA.names)
    of_others = _where(known, is_active & ~of_source)
    active = _where(known, is_active & of_source)
    gone = known["asset_id"].filter(pa.array(~is_active)).combine_chunks()
    del known
    selection = _select(source, config, sorted(part_versions))
    ids, part = _column(active, "asset_id"), _column(active, "part").cast(pa.string())
    # The annotations of an object are known if it still is in the same, unchanged part. Those that
    # cannot be used are read again.
    index = pc.index_in(ids, value_set=selection.ids)
    in_same_part = mask(pc.equal(part, selection.parts.take(index)))
    unchanged = _unchanged_parts(part_versions, parts)
    is_known = in_same_part & mask(pc.is_in(part, value_set=unchanged))
    is_known &= is_one_of(active["status"], {"ok"})
    is_new = np.ones(len(selection.ids), dtype=bool)
    is_new[index.filter(pa.array(is_known)).to_numpy()] = False
    to_read = pc.unique(selection.parts.filter(pa.array(is_new)))
    is_kept = is_known & ~mask(pc.is_in(part, value_set=to_read))
    # Objects beyond the limit or outside the selection keep their rows.
    is_skipped = mask(index.is_null()) & (
        mask(pc.is_in(part, value_set=pa.array(selection.unread, pa.string())))
        | mask(pc.is_in(ids, value_set=pa.array(selection.skipped, pa.string())))
    )
    versions = selection.versions.take(index)
    texts = _present_captions(active, captions, source)
    is_same = _equal(_column(active, "version"), versions)
    is_same &= _equal(_column(active, "caption"), texts)
    is_unchanged = (is_kept & is_same) | is_skipped
    differs = pa.array(is_kept & ~is_same)
    updated = _updated(active.filter(differs), versions.filter(differs), texts.filter(differs))
    ids_to_read = selection.ids.filter(pc.is_in(selection.parts, value_set=to_read))
    wanted = set(ids_to_read.to_pylist())
    problems: dict[str, str] = {}
    read = [_table(source, name, wanted, captions, problems) for name in to_read.to_pylist()]
    new = pa.concat_tables([updated, *read])
    old = active.filter(pa.array(~is_unchanged))
    old_content = old["content"].take(pc.index_in(new["asset_id"], _column(old, "asset_id")))
    is_same_record = mask(pc.equal(new["content"], old_content))
    same = _column(_where(new, is_same_record), "asset_id")
    changed = _where(new, ~is_same_record)
    is_listed = mask(pc.is_in(old["asset_id"], value_set=_column(new, "asset_id")))
    return Listing(
        listed=pa.concat_tables([of_others, _where(active, is_unchanged), new]),
        changed=changed,
        delisted=old["asset_id"].filter(pa.array(~is_listed)).combine_chunks(),
        previous=_where(old, ~mask(pc.is_in(old["asset_id"], value_set=same))),
        returned=_column(changed.filter(pc.is_in(changed["asset_id"], value_set=gone)), "asset_id"),
        selected=selection.ids,
        parts={name: part_versions[name] for name in sorted(selection.complete)},
        problems=problems,
    )


def _unchanged_parts(now: Mapping[str, str], before: Mapping[str, str]) -> pa.Array:
    """Return the names of the parts whose version is the same as before."""
    same = [name for name, version in now.items() if before.get(name) == version]
    return pa.array(same, pa.string())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Selection:
    """The objects that a build selects from a source: in the order of the parts, up to the limit.

    `ids`, `versions` and `parts` are parallel arrays.
    """

    ids: pa.Array
    versions: pa.Array
    """The version of each object's file."""
    parts: pa.Array
    """The part that lists each object."""
    skipped: list[str]
    """Ids that are listed but not selected: beyond the limit, or no LVIS object."""
    complete: set[str]
    """Parts of which every object is selected."""
    unread: list[str]
    """Parts beyond the limit."""


def _select(source: Source, config: BuildConfig, names: Sequence[str]) -> _Selection:
    """Return the objects of these parts that the build's `limit` and `lvis` select."""
    columns: dict[str, list[pa.Array]] = {name: [] for name in ("ids", "versions", "parts")}
    skipped: list[str] = []
    complete, unread = set(), []
    remaining = config.limit if config.limit is not None else sys.maxsize
    for name in names:
        if remaining <= 0:
            unread.append(name)
            continue
        files = source.files(name, config.lvis)
        selected = dict(islice(files.items(), remaining))
        remaining -= len(selected)
        columns["ids"].append(pa.array(selected.keys(), pa.string()))
        columns["versions"].append(pa.array(selected.values(), pa.string()))
        columns["parts"].append(pa.repeat(pa.scalar(name), len(selected)))
        if len(selected) == len(files):
            complete.add(name)
        if config.lvis or len(selected) < len(files):
            all_files = source.files(name, False)
            skipped.extend(asset_id for asset_id in all_files if asset_id not in selected)
    empty = pa.array([], pa.string())
    joined = {name: pa.concat_arrays([empty, *arrays]) for name, arrays in columns.items()}
    return _Selection(**joined, skipped=skipped, complete=complete, unread=unread)


def _table(
    source: Source,
    part: str,
    wanted: Collection[str],
    captions: Mapping[str, str],
    problems: dict[str, str],
) -> pa.Table:
    """Return the rows of the `wanted` objects of a part, from its annotations.

    Adds the reasons why annotations cannot be used to `problems`.
    """
    rows = []
    for item in source.read_part(part):
        data = item.record.to_dict() | {"version": item.version, "part": part}
        asset_id = data.pop("asset_id")
        if asset_id not in wanted:
            continue
        if not source.has_captions:
            data["caption"] = captions.get(asset_id.partition(":")[2], "").strip() or None
        if item.problem:
            problems[asset_id] = item.problem
        rows.append(_row(asset_id, data, item.problem))
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _row(asset_id: str, data: Mapping[str, Any], problem: str = "") -> dict[str, Any]:
    outcome = {"content": digest(data), "status": "ok"}
    if problem:
        kind = FailureKind.BAD_ANNOTATION
        outcome = {"content": digest([data, problem]), "status": "failed", "kind": kind}
    return {"seq": 0, "asset_id": asset_id, **outcome} | listed_row(outcome["status"], data)


def _present_captions(
    rows: pa.Table, captions: Mapping[str, str], source: Source
) -> pa.Array | pa.ChunkedArray:
    """Return the present captions of known objects; null for an object without one."""
    if source.has_captions:
        return _column(rows, "caption")
    native_ids = pc.utf8_slice_codeunits(_column(rows, "asset_id"), len(source.prefix) + 1)
    index = pc.index_in(native_ids, value_set=pa.array(captions.keys(), pa.string()))
    texts = pc.utf8_trim_whitespace(pa.array(captions.values(), pa.string()).take(index))
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _updated(rows: pa.Table, versions: pa.Array, texts: pa.Array) -> pa.Table:
    """Return the rows of known objects with these file versions and captions in their place."""
    present = zip(rows.to_pylist(), versions.to_pylist(), texts.to_pylist(), strict=True)
    updated = []
    for row, version, text in present:
        data = {name: row[name] for name in _LISTED} | {"version": version, "caption": text}
        updated.append(_row(row["asset_id"], data))
    return pa.Table.from_pylist(updated, schema=_SCHEMA)


def _where(rows: pa.Table, where: Bool[np.ndarray, "n"]) -> pa.Table:
    """Return the rows where the mask is set, without a copy if these are all rows."""
    return rows if where.all() else rows.filter(pa.array(where))


def _equal(a: pa.Array, b: pa.Array) -> Bool[np.ndarray, "n"]:
    """Return a mask of where two columns are equal; null equals null."""
    return mask(pc.equal(a, b)) | (mask(a.is_null()) & mask(b.is_null()))


def _column(rows: pa.Table, name: str) -> pa.Array:
    return rows[name].combine_chunks()
