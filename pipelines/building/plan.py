"""The plan of a build: what it would do, and why, from listing, catalog and configuration."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Int64

from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.latest import Latest
from pipelines.building.build_config import BuildConfig, PriceConfig
from pipelines.building.decide import REASONS_TO_WORK, Decider, Decisions
from pipelines.building.estimates.cost import Cost, money
from pipelines.building.estimates.estimate import estimate_rest
from pipelines.building.listing import Listing, read_listing, read_parts
from pipelines.building.object_table import Objects, widen
from pipelines.building.projection import columns_for_plans
from pipelines.sources import Source
from pipelines.sources.captions import read_captions

__all__ = ["Plan", "load_plan", "make_plan"]


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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of `lrm plan --json`."""
        return {
            "work": self.work,
            "listing": {
                "changed": self.listing.changed.num_rows,
                "gone": len(self.listing.delisted),
            },
            "estimate": self.estimate.to_dict() | {"money": money(self.estimate, self.prices)},
        }


def load_plan(config: BuildConfig, source: Source, root: Storage, latest: Latest) -> Plan:
    """Read captions, listing and catalog, and return the plan. Writes nothing.

    Raises BadInput if the source or the captions cannot be read.
    """
    captions: dict[str, str] = {}
    revision = ""
    if config.captions and not source.has_captions:
        captions, revision = read_captions(config.captions)
    decider = Decider(config)
    tables = latest.tables(decider.places.values(), columns_for_plans())
    listed = decider.places[LIST.stage]
    parts = read_parts(root, config) if tables[listed].num_rows else {}
    listing = read_listing(source, config, captions, tables.pop(listed), parts)
    del captions
    return make_plan(listing, widen(listing.listed, tables, decider), config, revision)


def make_plan(
    listing: Listing, objects: Objects, config: BuildConfig, captions_revision: str = ""
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
        estimate=estimate_rest(rows, decisions, objects.columns, config),
        prices=config.prices,
        captions_revision=captions_revision,
    )
