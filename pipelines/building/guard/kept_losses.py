"""The objects with a sample that a build would lose because the data changed, not its settings."""

import math
from collections.abc import Mapping, Sequence
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
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decisions
from pipelines.building.guard.groups import Group, group_of
from pipelines.building.guard.refreshed_objects import Refresh, is_in_use
from pipelines.building.guard.rig_samples import RigSamples, decide_listing

__all__ = ["MAX_SHARE", "VANISHED", "Losses", "RigLosses", "find_losses", "list_reasons"]

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
class RigLosses:
    """The objects whose samples of one rig would be lost."""

    rig: str
    kept: int
    """The number of objects that were kept until now; the lost ones are part of them."""
    causes: Mapping[str, Group]
    """The lost objects by cause: `vanished`, a failure kind, or the reason of a filter."""

    @property
    def objects(self) -> int:
        """The number of lost objects."""
        return sum(group.count for group in self.causes.values())

    @property
    def share(self) -> float:
        """The share of the kept objects that is lost."""
        return self.objects / self.kept if self.kept else 0.0

    def exceeds(self, limit: float) -> bool:
        """Return whether more than one object and more than this share is lost."""
        return self.objects > 1 and self.share > limit

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "rig": self.rig,
            "objects": self.objects,
            "kept": self.kept,
            "share": self.share,
            "causes": {cause: group.to_dict() for cause, group in self.causes.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of all rigs: no rig may lose more than the accepted share."""

    rigs: Sequence[RigLosses]
    """The losses of each rig, at least of one; the rig of the build is the first."""
    remedy: str
    """What to do instead of losing them, for messages."""

    @property
    def worst(self) -> RigLosses:
        """The losses of the rig that loses the largest share; a single object counts least."""
        return max(self.rigs, key=lambda losses: (losses.objects > 1, losses.share))

    def refusal(self, accept: float | None) -> str:
        """Return one line if this is too much to go on, else an empty string.

        `accept` is the share that the user accepts. The line says how many objects of which rig
        are lost, why, which, and what to do.
        """
        worst, limit = self.worst, MAX_SHARE if accept is None else accept
        if not worst.exceeds(limit):
            return ""
        causes = [
            f"{group.count:,} {_TITLES.get(cause) or f'dropped as {reason_title(cause)}'} "
            f"({group.named})"
            for cause, group in worst.causes.items()
        ]
        others = [
            f"also {losses.objects:,} of {losses.kept:,} for the rig {losses.rig}"
            for losses in self.rigs
            if losses is not worst and losses.exceeds(limit)
        ]
        count = f"{worst.objects:,} of {worst.kept:,} objects with a sample would be lost"
        share = percent(worst.objects, worst.kept)
        option = f"--accept-loss {math.ceil(100 * worst.share) / 100:g}"
        return (
            f"{count} for the rig {worst.rig} ({share}): {'; '.join([*causes, *others])}; "
            f"{self.remedy}, or accept the loss with {option}"
        )

    def check(self, accept: float | None) -> None:
        """Raise BadInput if this is more than the share that the user accepts."""
        refusal = self.refusal(accept)
        if refusal:
            raise BadInput(refusal)

    def to_dict(self, accept: float | None) -> dict[str, Any]:
        """Return plain values for JSON: those of the worst rig, and under `rigs` those of each."""
        refusal = self.refusal(accept)
        return self.worst.to_dict() | {
            "limit": MAX_SHARE if accept is None else accept,
            "refused": bool(refusal),
            "message": refusal,
            "rigs": [losses.to_dict() for losses in self.rigs],
        }


def find_losses(refresh: Refresh, rigs: Sequence[RigSamples], config: BuildConfig) -> Losses:
    """Return the objects with a sample that each rig loses by the present listing.

    The decisions of `refresh` count for the rig of `config`, the build. For another rig, only the
    listing counts, under that rig's own filters: a compaction deletes nothing else of its samples.
    """
    of_rigs = []
    for samples in rigs:
        was, now = refresh.was, refresh.now
        if samples.rig != config.rig:
            was = decide_listing(refresh.before, config, samples.filters)
            now = decide_listing(refresh.after, config, samples.filters)
        of_rigs.append(_losses_of(samples, refresh, was, now))
    return Losses(rigs=of_rigs, remedy="restore the source or the captions (--captions)")


def _losses_of(samples: RigSamples, refresh: Refresh, was: Decisions, now: Decisions) -> RigLosses:
    """Return the objects with a sample of one rig that the present listing loses.

    An object counts as kept if the same settings would keep it with the listing that the catalog
    has. What the settings drop is intended, and no loss.
    """
    ids = refresh.before.ids
    was_kept = is_in_use(was) & pc.is_in(ids, value_set=samples.ids).to_numpy()
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
    has_sample = pc.is_in(refresh.after.ids, value_set=samples.ids).to_numpy()
    others = is_in_use(now) & refresh.unchanged & has_sample
    return RigLosses(rig=samples.rig, kept=int(was_kept.sum() + others.sum()), causes=causes)


def list_reasons(decisions: Decisions) -> list[int]:
    """Return the indices of the reasons of filters that need nothing but the listing."""
    names = {filter_.name for filter_, _ in decisions.filter_results if filter_.needs == LIST.stage}
    return [index for index, (name, _) in enumerate(decisions.reasons) if name in names]
