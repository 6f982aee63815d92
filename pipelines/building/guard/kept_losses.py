"""The kept objects that a build would lose because the data changed, not its settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadInput
from core.failures import FailureKind
from core.quantities import percent
from dataset.catalog.event_columns import LIST
from filters.chain import reason_title
from pipelines.building.decide import Decisions
from pipelines.building.guard.groups import Group, group_of
from pipelines.building.guard.refreshed_objects import Refresh, is_in_use

__all__ = ["MAX_SHARE", "VANISHED", "Losses", "find_losses", "list_reasons"]

MAX_SHARE = 0.05
"""Largest share of the kept objects that may be lost without `--accept-loss`. The loss of a single
object is always accepted: a small dataset changes by such shares."""
VANISHED = "vanished"
"""The cause of an object that is not listed any more."""
_TITLES = {
    VANISHED: "not listed any more",
    FailureKind.MISSING: "file missing from the source",
    FailureKind.BAD_ANNOTATION: "annotation cannot be used",
}
"""Words for the causes that are not the reason of a filter."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The kept objects that would be lost."""

    kept: int
    """The number of objects that were kept until now; the lost ones are part of them."""
    causes: Mapping[str, Group]
    """The lost objects by cause: `vanished`, a failure kind, or the reason of a filter."""
    remedy: str
    """What to do instead of losing them, for messages."""

    @property
    def objects(self) -> int:
        """The number of lost objects."""
        return sum(group.count for group in self.causes.values())

    @property
    def share(self) -> float:
        """The share of the kept objects that is lost."""
        return self.objects / self.kept if self.kept else 0.0

    def refusal(self, accept: float | None) -> str:
        """Return one line if this is too much to go on, else an empty string.

        `accept` is the share that the user accepts. The line says how many objects are lost, why,
        which, and what to do.
        """
        if self.objects <= 1 or self.share <= (MAX_SHARE if accept is None else accept):
            return ""
        causes = (
            f"{group.count:,} {_TITLES.get(cause) or f'dropped as {reason_title(cause)}'} "
            f"({group.named})"
            for cause, group in self.causes.items()
        )
        count = f"{self.objects:,} of {self.kept:,} objects with a sample would be lost"
        option = f"--accept-loss {math.ceil(100 * self.share) / 100:g}"
        return (
            f"{count} ({percent(self.objects, self.kept)}): {'; '.join(causes)}; {self.remedy}, "
            f"or accept the loss with {option}"
        )

    def check(self, accept: float | None) -> None:
        """Raise BadInput if this is more than the share that the user accepts."""
        refusal = self.refusal(accept)
        if refusal:
            raise BadInput(refusal)

    def to_dict(self, accept: float | None) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "objects": self.objects,
            "kept": self.kept,
            "share": self.share,
            "limit": MAX_SHARE if accept is None else accept,
            "refused": bool(self.refusal(accept)),
            "message": self.refusal(accept),
            "causes": {cause: group.to_dict() for cause, group in self.causes.items()},
        }


def find_losses(refresh: Refresh, sampled: pa.Array) -> Losses:
    """Return the objects that the present listing loses.

    An object counts as kept if it is in `sampled`, the ids of objects with a sample, and if the
    present settings would keep it with the listing that the catalog has. What the settings drop is
    intended, and no loss.
    """
    was_kept = is_in_use(refresh.was) & pc.is_in(refresh.before.ids, value_set=sampled).to_numpy()
    now, ids = refresh.now, refresh.before.ids
    is_dropped = np.isin(now.reason, list_reasons(now))
    by_cause = {
        VANISHED: refresh.vanished,
        FailureKind.BAD_ANNOTATION: refresh.afterwards(now.failed == 0),
    }
    for index in np.unique(now.reason[is_dropped]).tolist():
        by_cause[now.reasons[index][1]] = refresh.afterwards(now.reason == index)
    by_cause[FailureKind.MISSING] = refresh.missing
    causes, rest = {}, was_kept
    for cause, where in by_cause.items():
        if (rest & where).any():
            causes[str(cause)] = group_of(ids.filter(pa.array(rest & where)))
        rest = rest & ~where
    unchanged = pc.invert(
        pc.is_in(refresh.after.ids, value_set=refresh.listing.changed["asset_id"].combine_chunks())
    )
    has_sample = pc.is_in(refresh.after.ids, value_set=sampled)
    others = is_in_use(now) & pc.and_(unchanged, has_sample).to_numpy()
    remedy = "restore the source or the captions (--captions)"
    return Losses(kept=int(was_kept.sum() + others.sum()), causes=causes, remedy=remedy)


def list_reasons(decisions: Decisions) -> list[int]:
    """Return the indices of the reasons of filters that need nothing but the listing."""
    names = {filter_.name for filter_, _ in decisions.filter_results if filter_.needs == LIST.stage}
    return [index for index, (name, _) in enumerate(decisions.reasons) if name in names]
