"""Objects as the catalog lists them, before a build brings the listing up to date."""

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.building.listing import Listing
from pipelines.building.object_table import Objects

__all__ = ["with_former_listing"]


def with_former_listing(objects: Objects, listing: Listing) -> Objects:
    """Return the objects with the rows of `list` that the present listing replaces, in any order.

    Objects that the catalog does not list are left out.
    """
    if not listing.changed.num_rows:
        return objects
    ids, previous = objects.ids, listing.previous
    is_changed = pc.is_in(ids, value_set=listing.changed["asset_id"].combine_chunks())
    index = pc.index_in(ids, value_set=previous["asset_id"].combine_chunks())
    former = objects.table.filter(pc.is_valid(index))
    rows = previous.take(index.drop_null())
    for name in rows.column_names:
        if name != "asset_id":
            column = f"list.{name}"
            former = former.set_column(former.column_names.index(column), column, rows[name])
    return Objects(pa.concat_tables([objects.table.filter(pc.invert(is_changed)), former]))
