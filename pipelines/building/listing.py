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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from core.config import canonical_json, digest
from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.event_log import Event
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
                data = {name: row[name] for name in _LISTED}
                yield Event(
                    asset_id=row["asset_id"], stage=LIST.stage, content=row["content"], data=data
                )
        for asset_id in self.gone.to_pylist():
            yield Event(asset_id=asset_id, stage=LIST.stage, status="gone")


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
    is_active = is_one_of(known["status"], {"ok"})
    of_source = pc.starts_with(known["asset_id"], f"{source.prefix}:").to_numpy()
    known = known.select(_SCHEMA.names)
    others, mine = _where(known, is_active & ~of_source), _where(known, is_active & of_source)
    del known
    walk = _walk(source, config, sorted(now))
    ids, part = _column(mine, "asset_id"), _column(mine, "part").cast(pa.string())
    # Where the source lists it now; its annotations are known if they stand in the same part.
    place = pc.index_in(ids, value_set=walk.ids)
    stands = mask(pc.equal(part, walk.parts.take(place)))
    is_known = stands & mask(pc.is_in(part, value_set=_same_parts(now, parts)))
    is_new = np.ones(len(walk.ids), dtype=bool)
    is_new[place.filter(pa.array(is_known)).to_numpy()] = False
    to_read = pc.unique(walk.parts.filter(pa.array(is_new)))
    is_kept = is_known & ~mask(pc.is_in(part, value_set=to_read))
    # Beyond the limit, or outside the selection, but still there: left as they are.
    passed_over = mask(place.is_null()) & (
        mask(pc.is_in(part, value_set=pa.array(walk.unread, pa.string())))
        | mask(pc.is_in(ids, value_set=pa.array(walk.passed_over, pa.string())))
    )
    versions = walk.versions.take(place)
    texts = _captions_now(mine, captions, source)
    is_same = _equal(_column(mine, "version"), versions) & _equal(_column(mine, "caption"), texts)
    stays = (is_kept & is_same) | passed_over
    differs = pa.array(is_kept & ~is_same)
    renewed = _renewed(mine.filter(differs), versions.filter(differs), texts.filter(differs))
    wanted = set(walk.ids.filter(pc.is_in(walk.parts, value_set=to_read)).to_pylist())
    read = [_table(source, name, wanted, captions) for name in to_read.to_pylist()]
    found = pa.concat_tables([renewed, *read])
    before = mine.select(["asset_id", "content"]).filter(pa.array(~stays))
    old = before["content"].take(pc.index_in(found["asset_id"], _column(before, "asset_id")))
    is_changed = pc.fill_null(pc.not_equal(found["content"], old), True)
    still = pc.is_in(before["asset_id"], value_set=_column(found, "asset_id"))
    return Listing(
        listed=pa.concat_tables([others, _where(mine, stays), found]),
        changed=found.filter(is_changed),
        gone=before["asset_id"].filter(pc.invert(still)).combine_chunks(),
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
    return found | listed_row(data)


def _captions_now(
    rows: pa.Table, captions: Mapping[str, str], source: Source
) -> pa.Array | pa.ChunkedArray:
    """Today's captions of known objects; null where there is none."""
    if source.has_captions:
        return _column(rows, "caption")
    natives = pc.utf8_slice_codeunits(_column(rows, "asset_id"), len(source.prefix) + 1)
    place = pc.index_in(natives, value_set=pa.array(captions.keys(), pa.string()))
    texts = pc.utf8_trim_whitespace(pa.array(captions.values(), pa.string()).take(place))
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _renewed(rows: pa.Table, versions: pa.Array, texts: pa.Array) -> pa.Table:
    """Known objects with other versions of their files or other captions."""
    now = zip(rows.to_pylist(), versions.to_pylist(), texts.to_pylist(), strict=True)
    renewed = []
    for row, version, text in now:
        data = {name: row[name] for name in _LISTED} | {"version": version, "caption": text}
        renewed.append(_row(row["asset_id"], data))
    return pa.Table.from_pylist(renewed, schema=_SCHEMA)


def _where(rows: pa.Table, where: Bool[np.ndarray, "n"]) -> pa.Table:
    """Some of the rows; if that is all of them, they are not copied."""
    return rows if where.all() else rows.filter(pa.array(where))


def _equal(a: pa.Array, b: pa.Array) -> Bool[np.ndarray, "n"]:
    """Where two columns are equal; null equals null."""
    return mask(pc.equal(a, b)) | (mask(a.is_null()) & mask(b.is_null()))


def _column(rows: pa.Table, name: str) -> pa.Array:
    return rows[name].combine_chunks()
