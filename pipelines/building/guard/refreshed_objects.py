"""The objects of a dataset before and after a refresh of its listing, decided by one build."""

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from dataset.catalog.event_columns import LIST
from dataset.columns import Column, mask
from pipelines.building.decide import Decisions
from pipelines.building.listing import Listing
from pipelines.building.object_table import Objects
from pipelines.sources.stored_files import MISSING

__all__ = ["Refresh", "is_in_use"]


class Refresh:
    """Compares objects whose listing changes: n rows of `before`, with those of `after`.

    Both are decided under the settings of the present build, so that they differ by data only.
    """

    def __init__(
        self, listing: Listing, before: Objects, was: Decisions, after: Objects, now: Decisions
    ) -> None:
        """`before` has the rows of `listing.previous`, `after` all that are listed now."""
        self.listing = listing
        self.before, self.was = before, was
        self.after, self.now = after, now

    @cached_property
    def rows(self) -> Int64[np.ndarray, "n"]:
        """The row in `after` of each object; -1 if it is not listed any more."""
        found = pc.index_in(self.before.ids, value_set=self.after.ids.combine_chunks())
        return found.fill_null(-1).to_numpy().astype(np.int64)

    @property
    def vanished(self) -> Bool[np.ndarray, "n"]:
        """The objects that are not listed any more."""
        return self.rows < 0

    @cached_property
    def missing(self) -> Bool[np.ndarray, "n"]:
        """The objects that are listed still, but whose file does not exist any more."""
        is_missing = self.after.columns.one_of(LIST.version, {MISSING})
        return self.afterwards(is_missing) & ~self.before.columns.one_of(LIST.version, {MISSING})

    @cached_property
    def unchanged(self) -> Bool[np.ndarray, "m"]:
        """The objects in `after` whose listing is that of the catalog."""
        changed = self.listing.changed["asset_id"].combine_chunks()
        return ~pc.is_in(self.after.ids, value_set=changed).to_numpy()

    def afterwards(self, values: Bool[np.ndarray, "m"]) -> Bool[np.ndarray, "n"]:
        """Return the values in a mask of `after` for each object; False if it has vanished."""
        return np.append(values, False)[self.rows]

    def differs(self, column: Column[str]) -> Bool[np.ndarray, "n"]:
        """Return a mask of the objects that have another text now; none of them has vanished."""
        old = self.before.table[column.key]
        index = pa.array(self.rows, pa.int64(), mask=self.vanished)
        new = self.after.table[column.key].take(index)
        same = mask(pc.equal(old, new)) | (mask(old.is_null()) & mask(new.is_null()))
        return ~same & ~self.vanished


def is_in_use(decisions: Decisions) -> Bool[np.ndarray, "n"]:
    """Return a mask of the objects that are kept, or that will be if their work succeeds."""
    return decisions.where("kept") | decisions.where("pending")
