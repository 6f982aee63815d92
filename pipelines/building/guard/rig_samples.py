"""The samples of each rig, and which objects the listing lets a rig keep.

All rigs share one listing: what a build with one rig lists differently, the samples of the others
lose as well.
"""

from dataclasses import dataclass

import pyarrow as pa

from dataset.catalog.event_columns import LIST, REMOVE
from dataset.catalog.latest import LatestEvents, rows_with
from filters.chain import CHAIN, FilterConfig
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decider, Decisions
from pipelines.building.guard.remembered import Memory
from pipelines.building.object_table import Objects
from pipelines.building.stages.pack import PACK

__all__ = ["RigSamples", "decide_listing", "filters_of", "samples_of_rigs"]


@dataclass(frozen=True, kw_only=True)
class RigSamples:
    """The objects that have a sample of one rig."""

    rig: str
    ids: pa.Array
    """Their asset ids."""
    filters: FilterConfig
    """The filters of the builds with this rig."""


def samples_of_rigs(
    latest: LatestEvents, config: BuildConfig, memory: Memory, packed: pa.Table
) -> list[RigSamples]:
    """Return the samples of every rig that has results of the stage `pack`, the present rig first.

    `packed` is the present rig's table of that stage.
    """
    status = PACK.events.status.name
    others = [key for key in latest.stage_rigs() if key[0] == PACK.name and key[1] != config.rig]
    tables = {config.rig: packed}
    if others:
        read = latest.tables(others, [status])
        tables |= {rig: read[stage, rig] for stage, rig in others}
    return [
        RigSamples(
            rig=rig,
            ids=rows_with(table, status, "ok")["asset_id"].combine_chunks(),
            filters=config.filters if rig == config.rig else filters_of(rig, config, memory),
        )
        for rig, table in tables.items()
    ]


def filters_of(rig: str, config: BuildConfig, memory: Memory) -> FilterConfig:
    """Return the filters of the last build with a rig.

    Datasets of earlier versions remember no settings of a rig. Then these are those of `config`,
    the last build or the one that begins: a later build with the rig would start from its settings.
    """
    remembered = memory.rigs.get(rig)
    return config.filters if remembered is None else remembered.config.filters


def decide_listing(objects: Objects, config: BuildConfig, filters: FilterConfig) -> Decisions:
    """Return the decisions on objects by their listing, by removals, and by filters on the listing.

    Every other object is pending. `filters` replace those of `config`.
    """
    others = {filter_.settings or filter_.name for filter_ in CHAIN if filter_.needs != LIST.stage}
    off = {name: getattr(filters, name).model_copy(update={"enabled": False}) for name in others}
    of_listing = config.model_copy(update={"filters": filters.model_copy(update=off)})
    stages = (f"{LIST.stage}.", f"{REMOVE.stage}.")
    names = [name for name in objects.table.column_names if name.startswith(stages)]
    columns = Objects(objects.table.select(["asset_id", *names])).columns
    return Decider(of_listing).decide_all(columns)
