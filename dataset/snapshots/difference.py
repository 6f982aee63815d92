"""The difference of two lists of samples, as columns: a million rows take seconds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from dataset.catalog.event_columns import LIST
from dataset.columns import mask

__all__ = ["COMPARED", "Difference", "difference"]

_RENDER = {"rig": "rig", "file": "sha256", "settings": "render_key"}
"""Why a sample was rendered again, in the order in which it is tested, and the column that says
so."""
_METADATA = ("split", *(column.name for column in LIST.of_snapshot), "geometry")
_LOCATION = ("shard", "key")
COMPARED = ("asset_id", *_RENDER.values(), *_LOCATION, *_METADATA)
"""The columns that are compared; the table of one side may lack some of the metadata."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The asset ids that differ between two lists of samples, in the order of the ids."""

    samples: tuple[int, int]
    """Number of samples before and after."""
    added: pa.Array
    removed: pa.Array
    pending: pa.Array
    """Samples in one list whose object waits for a stage, so that the other lacks them for now."""
    rendered: Mapping[str, pa.Array]
    """Samples in both lists with another render, by what changed: `rig`, `file` or `settings` (also
    the version of the renderer)."""
    changed: Mapping[str, pa.Array]
    """Samples in both lists with another value, by column. A sample may be in several of them."""
    moved: pa.Array
    """Samples with the same render in another shard: no difference for a training."""


def difference(
    before: pa.Table, after: pa.Table, pending: pa.ChunkedArray | None = None
) -> Difference:
    """Compare two tables of samples with the columns COMPARED, one row per asset id.

    Samples of the objects `pending` count as neither added nor removed.
    """
    ids, other_ids = (table["asset_id"].combine_chunks() for table in (before, after))
    partners = pc.index_in(ids, value_set=other_ids)
    is_common = partners.is_valid()
    added = other_ids.filter(pc.invert(pc.is_in(other_ids, value_set=ids)))
    removed = ids.filter(pc.invert(is_common))
    waiting = pa.array([], pa.string()) if pending is None else pending.combine_chunks()
    waits = [pc.is_in(one, value_set=waiting) for one in (added, removed)]
    left, right = before.filter(is_common), after.take(partners.drop_null())
    common = left["asset_id"].combine_chunks()
    same_render = np.ones(len(common), dtype=bool)
    rendered = {}
    for why, name in _RENDER.items():
        differs = _differs(left[name], right[name]) & same_render
        rendered[why] = common.filter(pa.array(differs))
        same_render &= ~differs
    moved = np.zeros(len(common), dtype=bool)
    for name in _LOCATION:
        moved |= _differs(left[name], right[name]) & same_render
    changed = {
        name: common.filter(pa.array(_differs(left[name], right[name])))
        for name in _METADATA
        if name in left.column_names and name in right.column_names
    }
    return Difference(
        samples=(before.num_rows, after.num_rows),
        added=_sorted(added.filter(pc.invert(waits[0]))),
        removed=_sorted(removed.filter(pc.invert(waits[1]))),
        pending=_sorted(pa.concat_arrays([added.filter(waits[0]), removed.filter(waits[1])])),
        rendered={why: _sorted(ids) for why, ids in rendered.items() if len(ids)},
        changed={name: _sorted(ids) for name, ids in changed.items() if len(ids)},
        moved=_sorted(common.filter(pa.array(moved))),
    )


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Bool[np.ndarray, "n"]:
    """Return where two columns of text or of lists of text differ; two nulls are equal."""
    left, right = (_texts(column) for column in (left, right))
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return ~(mask(pc.equal(left, right)) | mask(both_null))


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as text; a list as its joined texts, where null is an empty list."""
    if pa.types.is_list(column.type):
        return pc.fill_null(pc.binary_join(column, "\0"), "")
    return column.cast(pa.string())


def _sorted(ids: pa.Array) -> pa.Array:
    return ids.take(pc.sort_indices(ids))
