"""The plan of a build: what it would do, and why, from listing, catalog and configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Int64

from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.latest import LatestEvents
from pipelines.building.build_config import BuildConfig, PriceConfig
from pipelines.building.decide import REASONS_TO_WORK, Decider, Decisions
from pipelines.building.estimates.cost import Cost, money
from pipelines.building.estimates.estimate import Earlier, estimate_rest
from pipelines.building.estimates.unit_costs import earlier_measurements, known_settings
from pipelines.building.listing import Listing, read_listing, read_parts
from pipelines.building.object_table import Objects, widen
from pipelines.building.projection import columns_for_plans
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
    estimate: Cost
    """Expected cost of all the work."""
    prices: PriceConfig
    captions_revision: str
    """Digest of the captions file; empty without one."""
    skipped: Sequence[SkippedRows]
    """The tables of source and captions of which rows were skipped."""

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
        captions = self.listing.listed[LIST.caption.name]
        if self.captions_revision and len(captions) and captions.null_count == len(captions):
            lines.append(
                "no listed object has a caption: are the ids of --captions those of the source?"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of `lrm plan --json`."""
        return {
            "work": self.work,
            "listing": {
                "changed": self.listing.changed.num_rows,
                "gone": len(self.listing.delisted),
                "failed": len(self.listing.problems),
            },
            "skipped": [table.to_dict() for table in self.skipped],
            "estimate": self.estimate.to_dict() | {"money": money(self.estimate, self.prices)},
        }


def load_plan(config: BuildConfig, source: Source, root: Storage, latest: LatestEvents) -> Plan:
    """Read captions, listing and catalog, and return the plan. Writes nothing.

    Raises BadInput if the source or the captions cannot be read.
    """
    captions = None
    if config.captions and not source.has_captions:
        captions = read_captions(config.captions)
    decider = Decider(config)
    tables = latest.tables(decider.stage_rigs.values(), columns_for_plans())
    listed = decider.stage_rigs[LIST.stage]
    parts = read_parts(root, config) if tables[listed].num_rows else {}
    texts = captions.texts if captions else {}
    listing = read_listing(source, config, texts, tables.pop(listed), parts)
    read = [*source.skipped_rows(), *([captions.skipped] if captions else [])]
    revision = captions.revision if captions else ""
    del captions, texts
    skipped = [table for table in read if table.num_skipped]
    objects = widen(listing.listed, tables, decider)
    earlier = earlier_measurements(latest, config, known_settings(root))
    return _make_plan(listing, objects, config, revision, skipped, earlier)


def _make_plan(
    listing: Listing,
    objects: Objects,
    config: BuildConfig,
    captions_revision: str,
    skipped: Sequence[SkippedRows],
    earlier: Earlier,
) -> Plan:
    """Decide on every object and return the plan for those that the listing selects."""
    decider = Decider(config)
    decisions = decider.decide_all(objects.columns)
    is_selected = pc.is_in(objects.ids, value_set=listing.selected).to_numpy()
    rows = np.flatnonzero((decisions.stage >= 0) & is_selected)
    return Plan(
        listing=listing,
        objects=objects,
        decisions=decisions,
        rows=rows,
        estimate=estimate_rest(rows, decisions, objects.columns, config, earlier),
        prices=config.prices,
        captions_revision=captions_revision,
        skipped=skipped,
    )
