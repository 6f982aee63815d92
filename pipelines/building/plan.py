"""The plan of a build: what it would do, and why, from listing, catalog and configuration."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.latest import LatestEvents
from filters.provenance import CAPTION
from pipelines.building.build_config import BuildConfig, PriceConfig
from pipelines.building.decide import REASONS_TO_WORK, Decider, Decisions
from pipelines.building.estimates.cost import Cost, money
from pipelines.building.estimates.estimate import estimate_rest
from pipelines.building.estimates.unit_costs import earlier_measurements
from pipelines.building.guard.kept_losses import Losses, find_losses
from pipelines.building.guard.listing_changes import ListingChanges, find_changes
from pipelines.building.guard.refreshed_objects import Refresh, is_in_use
from pipelines.building.guard.remembered import Memory
from pipelines.building.guard.rig_samples import samples_of_rigs
from pipelines.building.listing import Listing, read_listing, read_parts
from pipelines.building.object_table import Objects, widen
from pipelines.building.projection import columns_for_plans
from pipelines.building.stages.pack import PACK
from pipelines.sources import Source
from pipelines.sources.captions import read_captions
from pipelines.sources.skipped_rows import SkippedRows

__all__ = ["Plan", "load_plan"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The work of one build, in the order of the asset ids."""

    listing: Listing
    objects: Objects
    decisions: Decisions
    """The decisions on the objects, in the same order."""
    rows: Int64[np.ndarray, "m"]
    """Rows of the selected objects that need a stage."""
    num_without_caption: int
    """Number of selected objects that the caption filter drops."""
    estimate: Cost
    """Expected cost of all the work."""
    prices: PriceConfig
    captions_revision: str
    """Digest of the captions file; empty without one."""
    skipped: Sequence[SkippedRows]
    """The tables of source and captions of which rows were skipped."""
    changes: ListingChanges
    """What the listing and the filters change for objects."""
    losses: Losses
    """The objects with a sample that the present listing would lose."""
    other_sources: Mapping[str, int]
    """Number of objects in use of sources that this build does not read, by prefix of the ids."""

    @cached_property
    def work(self) -> dict[str, dict[str, int]]:
        """The number of objects per next stage and reason to do it."""
        stages = self.decisions.stages
        pairs = self.decisions.stage[self.rows].astype(np.int64) * len(REASONS_TO_WORK)
        pairs += self.decisions.why[self.rows]
        counts = np.bincount(pairs, minlength=len(stages) * len(REASONS_TO_WORK))
        table = counts.reshape(len(stages), len(REASONS_TO_WORK))
        return {
            stage.name: {why: int(n) for why, n in zip(REASONS_TO_WORK, row, strict=True) if n}
            for stage, row in zip(stages, table, strict=True)
            if row.any()
        }

    def warnings(self) -> list[str]:
        """Return a line for each fault of the source and of the captions that the build ignores."""
        lines = [table.warning() for table in self.skipped]
        problems = self.listing.problems
        if problems:
            some = [f"{asset_id}: {text}" for asset_id, text in list(problems.items())[:3]]
            more = "; …" if len(problems) > len(some) else ""
            noun = "object fails" if len(problems) == 1 else "objects fail"
            cause = "because the annotation cannot be used"
            lines.append(f"{len(problems):,} listed {noun} {cause}: {'; '.join(some)}{more}")
        return [*lines, *self._without_caption(), *self._not_refreshed()]

    def notes(self) -> list[str]:
        """Return a line for each kind of change of the listing; none for a first build."""
        is_first = self.listing.changed.num_rows == self.listing.listed.num_rows
        return [] if is_first and not self.listing.previous.num_rows else self.changes.lines()

    def _without_caption(self) -> list[str]:
        """Return a line if the caption filter drops most of the selected objects."""
        num_objects, num_dropped = len(self.listing.selected), self.num_without_caption
        if 2 * num_dropped <= num_objects:
            return []
        number = f"{num_dropped:,} of" if num_dropped < num_objects else "all"
        remedy = "give --captions FILE, or keep them with --no-filters.caption.enabled"
        if self.captions_revision:
            remedy = "are the ids in --captions those of the source?"
        text = "listed objects will be dropped, because they have no caption"
        return [f"{number} {num_objects:,} {text}: {remedy}"]

    def _not_refreshed(self) -> list[str]:
        """Return a line if this build does not read the sources of all objects in use."""
        count = sum(self.other_sources.values())
        if not count:
            return []
        names = ", ".join(self.other_sources)
        text = "object of another source" if count == 1 else "objects of other sources"
        is_not = "is not" if count == 1 else "are not"
        return [f"{count:,} {text} ({names}) {is_not} refreshed: give --source for that"]

    def to_dict(self, accept_loss: float | None = None) -> dict[str, Any]:
        """Return the JSON of `lrm plan --json`; `accept_loss` is the option of that name."""
        return {
            "work": self.work,
            "listing": {
                "changed": self.listing.changed.num_rows,
                "gone": len(self.listing.delisted),
                "failed": len(self.listing.problems),
                "other_sources": dict(self.other_sources),
                **self.changes.to_dict(),
            },
            "loss": self.losses.to_dict(accept_loss),
            "skipped": [table.to_dict() for table in self.skipped],
            "estimate": self.estimate.to_dict() | {"money": money(self.estimate, self.prices)},
        }


def load_plan(
    config: BuildConfig, source: Source, root: Storage, latest: LatestEvents, memory: Memory
) -> Plan:
    """Read captions, listing and catalog, and return the plan. Writes nothing.

    `memory` is what the dataset remembers of its builds. Raises BadInput if the source or the
    captions cannot be read.
    """
    captions = None
    if config.captions and not source.has_captions:
        captions = read_captions(config.captions)
    decider = Decider(config)
    tables = latest.tables(decider.stage_rigs.values(), columns_for_plans())
    known = tables.pop(decider.stage_rigs[LIST.stage])
    remembered = memory.of(config.rig)
    last = remembered.config if remembered and known.num_rows else None
    parts = read_parts(root, config) if last else {}
    texts = captions.texts if captions else {}
    listing = read_listing(source, config, texts, known, parts)
    read = [*source.skipped_rows(), *([captions.skipped] if captions else [])]
    revision = captions.revision if captions else ""
    del captions, texts, known
    packed = tables[decider.stage_rigs[PACK.name]]
    rigs = samples_of_rigs(latest, config, memory, packed)
    del packed
    before = widen(listing.previous, dict(tables), decider)
    was = decider.decide_all(before.columns)
    objects = widen(listing.listed, tables, decider)
    decisions = decider.decide_all(objects.columns)
    refresh = Refresh(listing, before, was, objects, decisions)
    is_selected = pc.is_in(objects.ids, value_set=listing.selected).to_numpy()
    rows = np.flatnonzero((decisions.stage >= 0) & is_selected)
    earlier = earlier_measurements(latest, config, memory.configs)
    return Plan(
        listing=listing,
        objects=objects,
        decisions=decisions,
        rows=rows,
        num_without_caption=_num_without_caption(decisions, is_selected),
        estimate=estimate_rest(rows, decisions, objects.columns, config, earlier),
        prices=config.prices,
        captions_revision=revision,
        skipped=[table for table in read if table.num_skipped],
        changes=find_changes(refresh, _with_last_filters(objects, config, last)),
        losses=find_losses(refresh, rigs, config),
        other_sources=_other_sources(objects.ids, decisions, source.prefix),
    )


def _num_without_caption(decisions: Decisions, is_selected: Bool[np.ndarray, "n"]) -> int:
    """Return the number of selected objects that the caption filter drops."""
    reasons = [i for i, (name, _) in enumerate(decisions.reasons) if name == CAPTION.name]
    return int((np.isin(decisions.reason, reasons) & is_selected).sum())


def _with_last_filters(
    objects: Objects, config: BuildConfig, last: BuildConfig | None
) -> Decisions | None:
    """Return the decisions with the filters of the last build; None if these are the same."""
    if last is None or last.filters == config.filters:
        return None
    changed = config.model_copy(update={"filters": last.filters})
    return Decider(changed).decide_all(objects.columns)


def _other_sources(ids: pa.ChunkedArray, decisions: Decisions, prefix: str) -> dict[str, int]:
    """Return the number of objects in use whose ids have another prefix, by prefix."""
    is_other = ~pc.starts_with(ids, f"{prefix}:").to_numpy() & is_in_use(decisions)
    prefixes = pc.split_pattern(ids.filter(pa.array(is_other)), ":", max_splits=1)
    return dict(sorted(Counter(pc.list_element(prefixes, 0).to_pylist()).items()))
