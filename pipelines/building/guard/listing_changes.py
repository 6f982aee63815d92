"""The changes of a listing as `lrm plan` and `lrm build` report them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from dataset.catalog.event_columns import LIST
from filters.chain import reason_title
from pipelines.building.decide import Decisions
from pipelines.building.guard.groups import Group, group_of
from pipelines.building.guard.refreshed_objects import Refresh, is_in_use

__all__ = ["CHANGE_KINDS", "ListingChanges", "find_changes", "groups_by_reason"]

CHANGE_KINDS = {
    "vanished": ("object vanishes from the source", "objects vanish from the source"),
    "files_missing": ("file is missing from the source", "files are missing from the source"),
    "captions_changed": ("caption changes", "captions change"),
    "licences_changed": ("licence changes", "licences change"),
    "licences_unknown": ("licence is unknown now", "licences are unknown now"),
    "annotations_changed": ("other annotation changes", "other annotations change"),
    "files_changed": ("file changes", "files change"),
    "returned": ("object is listed again", "objects are listed again"),
    "new": ("object is new", "objects are new"),
}
"""The kinds of change, each with the words after the number 1 and after other numbers."""


@dataclass(frozen=True, kw_only=True)
class ListingChanges:
    """The objects that a build would list or decide in another way than the last one."""

    groups: Mapping[str, Group]
    """The objects by kind of change; the kinds are the keys of `CHANGE_KINDS`."""
    dropped: Mapping[str, Group]
    """The objects that would be newly dropped, by reason."""

    def lines(self) -> list[str]:
        """Return a line for every kind of change that occurs."""
        lines = [
            f"{group.count:,} {CHANGE_KINDS[kind][group.count != 1]}: {group.named}"
            for kind, group in self.groups.items()
            if group.count
        ]
        for reason, group in self.dropped.items():
            noun = "object" if group.count == 1 else "objects"
            text = f"{noun} will be dropped ({reason_title(reason)})"
            lines.append(f"{group.count:,} {text}: {group.named}")
        return lines

    def counts(self) -> dict[str, int]:
        """Return the number of objects by kind of change; those newly dropped are one kind."""
        dropped = sum(group.count for group in self.dropped.values())
        counts = {kind: group.count for kind, group in self.groups.items()} | {"dropped": dropped}
        return {kind: count for kind, count in counts.items() if count}

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and examples as plain values for JSON."""
        groups = {kind: group.to_dict() for kind, group in self.groups.items()}
        return groups | {
            "dropped": {reason: group.to_dict() for reason, group in self.dropped.items()}
        }


def find_changes(refresh: Refresh, with_last_filters: Decisions | None) -> ListingChanges:
    """Return the changes of a listing.

    `with_last_filters` are the decisions on the present objects with the filters of the last build,
    if these differ from the present ones.
    """
    ids, listing = refresh.before.ids, refresh.listing
    # A warning of its own names the objects whose annotation cannot be used.
    is_described = ~refresh.vanished & ~refresh.afterwards(refresh.now.failed == 0)
    caption, licence, version = (
        refresh.differs(column) for column in (LIST.caption, LIST.licence, LIST.version)
    )
    has_licence = refresh.afterwards(refresh.after.columns.present(LIST.licence))
    masks = {
        "vanished": refresh.vanished,
        "files_missing": refresh.missing,
        "captions_changed": caption & is_described,
        "licences_changed": licence & is_described & has_licence,
        "licences_unknown": licence & is_described & ~has_licence,
        "annotations_changed": is_described & ~caption & ~licence & ~version,
        "files_changed": version & ~refresh.missing,
    }
    added = listing.changed["asset_id"]
    known = pa.concat_arrays([ids.combine_chunks(), listing.returned])
    groups = {kind: group_of(ids.filter(pa.array(where))) for kind, where in masks.items()}
    groups["returned"] = group_of(listing.returned)
    groups["new"] = group_of(added.filter(pc.invert(pc.is_in(added, value_set=known))))
    return ListingChanges(groups=groups, dropped=_newly_dropped(refresh, with_last_filters))


def _newly_dropped(refresh: Refresh, with_last_filters: Decisions | None) -> dict[str, Group]:
    """Return the objects that are dropped now and were not before, by reason."""
    now = refresh.now
    were_in_use = np.zeros(len(now), dtype=bool)
    is_listed = is_in_use(refresh.was) & ~refresh.vanished
    were_in_use[refresh.rows[is_listed]] = True
    if with_last_filters is not None:
        were_in_use |= is_in_use(with_last_filters)
    return groups_by_reason(refresh.after.ids, now, were_in_use & now.where("dropped"))


def groups_by_reason(
    ids: pa.ChunkedArray, decisions: Decisions, where: Bool[np.ndarray, "n"]
) -> dict[str, Group]:
    """Return the dropped objects in `where` by the reason that each counts under."""
    return {
        decisions.reasons[index][1]: group_of(
            ids.filter(pa.array(where & (decisions.reason == index)))
        )
        for index in np.unique(decisions.reason[where]).tolist()
    }
