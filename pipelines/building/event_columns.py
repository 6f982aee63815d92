"""Which columns of the catalog plans and workers read, and how an event becomes columns."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dataset.catalog.latest import FEW, Projection
from filters.chain import CHAIN, fact_types, read_facts

__all__ = ["LISTED", "NOT_FOR_PLANS", "PROJECTION", "SAMPLE_PLACE", "flatten"]

_TEXT, _COUNT, _TEXTS = pa.string(), pa.int64(), pa.list_(pa.string())
LISTED: dict[str, pa.DataType] = {
    "path": _TEXT,
    "name": _TEXT,
    "licence": _TEXT,
    "author": _TEXT,
    "tags": _TEXTS,
    "categories": _TEXTS,
    "caption": _TEXT,
    "age_restricted": pa.bool_(),
    "version": _TEXT,
    "part": FEW,
}
"""What a source lists of an object: the fields of `ObjectRecord`, the version of its file, and the
part of the listing that it stands in."""
_PLACE: dict[str, pa.DataType] = {"shard": FEW, "sample": _TEXT, "shard_sha256": FEW}
SAMPLE_PLACE = tuple(_PLACE)
"""What an event of `pack` says of where the sample lies: the shard, the key in it, its bytes."""
_MADE: dict[str, dict[str, pa.DataType]] = {
    "list": LISTED,
    "fetch": {"sha256": _TEXT, "bytes": _COUNT, "raw": _TEXT},
    "inspect": {},
    "measure": {},
    "render": {"staging": _TEXT, "bytes": _COUNT},
    "geometry": {"path": _TEXT, "bytes": _COUNT},
    "pack": _PLACE,
    "remove": {},
}
"""Per stage, fields of an event's data that later stages need."""
_ALWAYS = {"limits": FEW, "timings": pa.map_(_TEXT, pa.float64())}
NOT_FOR_PLANS = frozenset({"timings", "message"})
"""Columns that neither decisions nor workers need."""
_VERSION = 2


def _types(stage: str) -> dict[str, pa.DataType]:
    return {**_MADE[stage], **fact_types(stage), **_ALWAYS}


def flatten(stage: str, status: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an event's data, without the stage's name before theirs."""
    if stage not in _MADE:
        return {}
    columns = {name: data.get(name) for name in (*_MADE[stage], *_ALWAYS)}
    if columns["timings"] is not None:
        columns["timings"] = list(columns["timings"].items())
    # A failed stage measured nothing.
    return columns | read_facts(stage, data) if status == "ok" else columns


PROJECTION = Projection(
    version=f"{_VERSION}/" + ",".join(f"{link.name}{link.version}" for link in CHAIN),
    types={stage: _types(stage) for stage in _MADE},
    read=flatten,
)
