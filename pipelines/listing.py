"""What has changed in a source's listing since the last build: only the parts that differ are read.

The source names its parts with a version each. The annotations of a part of the same version are
not read again: what the catalog knows of its objects is compared with their files and captions.
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataset.catalog import Event
from dataset.config import canonical_json, digest
from dataset.errors import BadInput
from dataset.latest import rows_with
from dataset.storage import Storage
from pipelines.columns import LISTED, NOT_FOR_PLANS, PROJECTION, flatten
from pipelines.settings import BuildConfig
from pipelines.sources import Source

__all__ = ["Listing", "read_listing", "read_parts", "write_parts"]

_PARTS_FILE = "listing.json"
_SCHEMA = pa.schema(
    [field for field in PROJECTION.schema("list") if field.name not in NOT_FOR_PLANS]
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """What a source lists now, beside what the catalog knows."""

    listed: pa.Table
    """Every object as it is listed now, as the catalog's table of stage `list`."""
    changed: pa.Table
    """Those of them that are new or differ from what the catalog knows."""
    gone: pa.Array
    """Asset ids that are not listed any more."""
    chosen: pa.Array
    """Asset ids that this build works on: of its source, within its limit."""
    parts: Mapping[str, str]
    """Version of every part, for `write_parts` when this listing is in the catalog."""

    def events(self) -> Iterator[Event]:
        """What the catalog has to learn."""
        for batch in self.changed.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                data = {name: row[name] for name in LISTED}
                yield Event(
                    asset_id=row["asset_id"], stage="list", content=row["content"], data=data
                )
        for asset_id in self.gone.to_pylist():
            yield Event(asset_id=asset_id, stage="list", status="gone")


def read_parts(root: Storage, config: BuildConfig) -> dict[str, str]:
    """The versions of the parts that are in the catalog; none if another source was read last."""
    try:
        found = json.loads(root.read(_PARTS_FILE))
        return dict(found["parts"]) if found["selection"] == _selection(config) else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def write_parts(root: Storage, config: BuildConfig, listing: Listing) -> None:
    """Record the versions of the parts that the catalog now holds."""
    found = {"selection": _selection(config), "parts": dict(listing.parts)}
    root.write(_PARTS_FILE, canonical_json(found).encode())


def _selection(config: BuildConfig) -> str:
    return digest([config.source.partition("@")[0], config.lvis, LISTED_VERSION])


LISTED_VERSION = 1
"""Raise it when the same annotations give another record."""


def read_listing(
    source: Source,
    config: BuildConfig,
    captions: Mapping[str, str],
    known: pa.Table,
    parts: Mapping[str, str],
) -> Listing:
    """Compare the source with `known`, the catalog's table of stage `list`.

    `parts` are the versions that `known` was read at. Raises BadInput if the source cannot be read.
    """
    now = source.parts()
    if config.lvis and not any(source.files(name, True) for name in now):
        raise BadInput(f"{config.source}: --lvis: this source has no objects of LVIS")
    active = rows_with(known, "status", "ok").select(_SCHEMA.names)
    of_source = pc.starts_with(active["asset_id"], f"{source.prefix}:")
    others, mine = active.filter(pc.invert(of_source)), active.filter(of_source)
    walk = _walk(source, config, sorted(now))
    # Its place among the known, if the known one stands in the same part.
    place = pc.index_in(walk.ids, value_set=_ids(mine))
    stands = pc.equal(mine["part"].cast(pa.string()).take(place), walk.parts)
    is_known = pc.and_(
        pc.fill_null(stands, False), pc.is_in(walk.parts, value_set=_same_parts(now, parts))
    )
    to_read = pc.unique(walk.parts.filter(pc.invert(is_known)))
    is_kept = pc.invert(pc.is_in(walk.parts, value_set=to_read))
    kept = mine.take(place.filter(is_kept))
    kept = _renewed(kept, walk.versions.filter(is_kept), captions, source)
    taken = set(walk.ids.filter(pc.invert(is_kept)).to_pylist())
    rows = [_table(source, name, taken, captions) for name in to_read.to_pylist()]
    # Beyond the limit, or outside the selection, but still there: left as they are.
    passed_over = pc.or_(
        pc.is_in(mine["part"].cast(pa.string()), value_set=pa.array(walk.unread, pa.string())),
        pc.is_in(mine["asset_id"], value_set=pa.array(walk.passed_over, pa.string())),
    )
    of_mine = pa.concat_tables([kept, *rows, mine.filter(passed_over)])
    before = mine["content"].take(pc.index_in(of_mine["asset_id"], value_set=_ids(mine)))
    differs = pc.fill_null(pc.not_equal(of_mine["content"], before), True)
    still = pc.is_in(mine["asset_id"], value_set=_ids(of_mine))
    return Listing(
        listed=pa.concat_tables([others, of_mine]),
        changed=of_mine.filter(differs),
        gone=mine["asset_id"].filter(pc.invert(still)).combine_chunks(),
        chosen=walk.ids,
        parts={name: now[name] for name in sorted(walk.complete)},
    )


def _same_parts(now: Mapping[str, str], before: Mapping[str, str]) -> pa.Array:
    """Parts whose annotations are known already."""
    same = [name for name, version in now.items() if before.get(name) == version]
    return pa.array(same, pa.string())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Walk:
    """What the parts list, in their order and up to the limit."""

    ids: pa.Array
    versions: pa.Array
    """Of the files of these objects."""
    parts: pa.Array
    """The part of each."""
    passed_over: list[str]
    """Ids that are listed, but not taken: beyond the limit, or outside the selection."""
    complete: set[str]
    """Parts of which every object was taken."""
    unread: list[str]
    """Parts beyond the limit."""


def _walk(source: Source, config: BuildConfig, names: Sequence[str]) -> _Walk:
    columns: dict[str, list[pa.Array]] = {name: [] for name in ("ids", "versions", "parts")}
    passed_over: list[str] = []
    complete, unread = set(), []
    room = config.limit if config.limit is not None else sys.maxsize
    for name in names:
        if room <= 0:
            unread.append(name)
            continue
        files = source.files(name, config.lvis)
        taken = dict(islice(files.items(), room))
        room -= len(taken)
        columns["ids"].append(pa.array(taken.keys(), pa.string()))
        columns["versions"].append(pa.array(taken.values(), pa.string()))
        columns["parts"].append(pa.repeat(pa.scalar(name), len(taken)))
        if len(taken) == len(files):
            complete.add(name)
        if config.lvis or len(taken) < len(files):
            every = source.files(name, False)
            passed_over.extend(asset_id for asset_id in every if asset_id not in taken)
    empty = pa.array([], pa.string())
    joined = {name: pa.concat_arrays([empty, *parts]) for name, parts in columns.items()}
    return _Walk(**joined, passed_over=passed_over, complete=complete, unread=unread)


def _table(
    source: Source, part: str, wanted: Collection[str], captions: Mapping[str, str]
) -> pa.Table:
    """Rows of those objects of a part that are wanted, from its annotations."""
    rows = []
    for item in source.read_part(part):
        data = item.record.to_dict() | {"version": item.version, "part": part}
        asset_id = data.pop("asset_id")
        if asset_id not in wanted:
            continue
        if not source.has_captions:
            data["caption"] = captions.get(asset_id.partition(":")[2], "").strip() or None
        rows.append(_row(asset_id, data))
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _row(asset_id: str, data: Mapping[str, Any]) -> dict[str, Any]:
    found = {"seq": 0, "asset_id": asset_id, "content": digest(data), "status": "ok"}
    return found | flatten("list", "ok", data)


def _renewed(
    rows: pa.Table, versions: pa.Array, captions: Mapping[str, str], source: Source
) -> pa.Table:
    """Known objects with the versions of their files and the captions of today."""
    texts = rows["caption"]
    if not source.has_captions:
        natives = pc.utf8_slice_codeunits(rows["asset_id"], len(source.prefix) + 1)
        place = pc.index_in(natives, value_set=pa.array(captions.keys(), pa.string()))
        texts = pc.utf8_trim_whitespace(pa.array(captions.values(), pa.string()).take(place))
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
    now = rows.append_column("version_now", versions).append_column("caption_now", texts)
    equal = pc.and_(
        _same(now["version"], now["version_now"]), _same(now["caption"], now["caption_now"])
    )
    if pc.all(equal).as_py() is not False:
        return rows
    renewed = []
    for row in now.filter(pc.invert(equal)).to_pylist():
        data = {name: row[name] for name in LISTED}
        data |= {"version": row["version_now"], "caption": row["caption_now"]}
        renewed.append(_row(row["asset_id"], data))
    return pa.concat_tables([rows.filter(equal), pa.Table.from_pylist(renewed, schema=_SCHEMA)])


def _same(a: pa.ChunkedArray, b: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where two columns are equal; null equals null."""
    equal = pc.fill_null(pc.equal(a, b), False)
    return pc.or_(equal, pc.and_(pc.is_null(a), pc.is_null(b)))


def _ids(rows: pa.Table) -> pa.Array:
    return rows["asset_id"].combine_chunks()
