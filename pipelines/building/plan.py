"""What a build would do, and why: a pure function of listing, catalog and configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Int64

from core.storage import Storage
from dataset.catalog.latest import Latest
from pipelines.building.build_config import BuildConfig
from pipelines.building.cost import Cost, PriceConfig, StageCost, expected_objects, money
from pipelines.building.decide import REASONS_TO_WORK, STAGES, Decider, Decisions
from pipelines.building.event_columns import NOT_FOR_PLANS, PROJECTION
from pipelines.building.listing import Listing, read_listing, read_parts
from pipelines.building.object_table import Objects, widen
from pipelines.sources import Source
from pipelines.sources.captions import read_captions
from render.rigs import get_rig

__all__ = ["Plan", "first_estimate", "load_plan", "make_plan", "reserved"]

_DEFAULT_SECONDS = {
    "fetch": 1.0,
    "inspect": 0.1,
    "measure": 2.0,
    "render": 37.0,
    "geometry": 0.5,
    "pack": 0.2,
}
"""Seconds of a core per object where the catalog has no measurement of its own yet (32 views, 512
px, up to 12 samples): of real models, docs/scale.md."""
_FIXED_SECONDS = 3.0
"""Of a render: scene, kernels, packing; the rest grows with pixels and samples."""
_DEFAULT_PIXELS = 32 * 512**2
_DEFAULT_SAMPLES = 12
_DEFAULT_BYTES: dict[str, float] = {"render": 3_500_000, "geometry": 1_500_000}
"""Bytes of a sample (32 views at 512 px) and of a companion file where the catalog has none yet."""
_DEFAULT_PASS = {
    "fetch": 1.0,
    "inspect": 0.95,
    "measure": 0.5,
    "render": 0.7,
    "geometry": 1.0,
    "pack": 1.0,
}
"""Share of objects that reach a stage after the one before: Objaverse's 800,000 become 270,000."""

_ENOUGH_OBJECTS = 30
"""So many tell what share of them a filter drops."""

_COLUMNS = sorted(
    {name for stage in PROJECTION.types for name in PROJECTION.schema(stage).names} - NOT_FOR_PLANS
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The work of one build, in the order of the asset ids."""

    listing: Listing
    objects: Objects
    decisions: Decisions
    """On the objects, row by row."""
    rows: Int64[np.ndarray, "m"]
    """Of the objects that this build works on, those with something to do."""
    estimate: Cost
    prices: PriceConfig
    captions_revision: str
    """Digest of the captions' file."""

    @cached_property
    def work(self) -> dict[str, dict[str, int]]:
        """Objects per next stage and reason."""
        pairs = self.decisions.stage[self.rows].astype(np.int64) * len(REASONS_TO_WORK)
        pairs += self.decisions.why[self.rows]
        counts = np.bincount(pairs, minlength=len(STAGES) * len(REASONS_TO_WORK))
        table = counts.reshape(len(STAGES), len(REASONS_TO_WORK))
        return {
            stage: {why: int(n) for why, n in zip(REASONS_TO_WORK, table[i], strict=True) if n}
            for i, stage in enumerate(STAGES)
            if table[i].any()
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `lrm plan --json`."""
        return {
            "work": self.work,
            "listing": {
                "changed": self.listing.changed.num_rows,
                "gone": len(self.listing.gone),
            },
            "estimate": self.estimate.to_dict() | {"money": money(self.estimate, self.prices)},
        }


def load_plan(config: BuildConfig, source: Source, root: Storage, latest: Latest) -> Plan:
    """Read captions, listing and catalog, and plan. Raises BadInput; writes nothing."""
    captions: dict[str, str] = {}
    revision = ""
    if config.captions and not source.has_captions:
        captions, revision = read_captions(config.captions)
    decider = Decider(config)
    tables = latest.tables(decider.places.values(), _COLUMNS)
    listed = decider.places["list"]
    parts = read_parts(root, config) if tables[listed].num_rows else {}
    listing = read_listing(source, config, captions, tables.pop(listed), parts)
    del captions
    return make_plan(listing, widen(listing.listed, tables, decider), config, revision)


def make_plan(
    listing: Listing, objects: Objects, config: BuildConfig, captions_revision: str = ""
) -> Plan:
    """Decide on every object. Objects beyond the build's limit are left as they are."""
    decider = Decider(config)
    decisions = decider.decide_all(objects.columns)
    chosen = pc.is_in(objects.ids, value_set=listing.chosen).to_numpy()
    rows = np.flatnonzero((decisions.stage >= 0) & chosen)
    return Plan(
        listing=listing,
        objects=objects,
        decisions=decisions,
        rows=rows,
        estimate=_estimate(rows, decisions, objects, config, decider),
        prices=config.prices,
        captions_revision=captions_revision,
    )


def reserved(config: BuildConfig) -> dict[str, dict[str, float]]:
    """Cores and GPUs that a task of each stage holds while it runs.

    A render on a GPU counts as GPU-hours alone: its cores come with the GPU.
    """
    execution = config.execution
    fetching = {"core_hours": execution.fetch_cpus}
    in_blender = {"core_hours": float(config.blender.threads)}
    on_gpu = config.render.device == "gpu"
    rendering = {"gpu_hours": execution.render_gpus} if on_gpu else in_blender
    return {
        "fetch": fetching,
        "inspect": fetching,
        "measure": in_blender,
        "render": rendering,
        "geometry": in_blender,
        "pack": {"core_hours": 1.0},
    }


def _estimate(
    rows: Int64[np.ndarray, "m"],
    decisions: Decisions,
    objects: Objects,
    config: BuildConfig,
    decider: Decider,
) -> Cost:
    """Expected cost: each object's next stage for certain, later stages by the shares that pass.

    Seconds, bytes and shares are the catalog's own where it has seen enough objects.
    """
    seconds, sizes = _defaults(config)
    ended = {}
    for stage in STAGES:
        ended[stage] = objects.columns.one_of(f"{stage}.status", {"ok"})
        if ended[stage].any():
            seconds[stage] = float(objects.columns.numbers(f"{stage}.seconds")[ended[stage]].mean())
            if stage in sizes:
                bytes_each = objects.columns.numbers(f"{stage}.bytes")[ended[stage]]
                sizes[stage] = float(bytes_each.mean())
    next_stages = np.bincount(decisions.stage[rows], minlength=len(STAGES)).tolist()
    starting = dict(zip(STAGES, next_stages, strict=True))
    shares = _shares(ended, decisions, decider)
    expected = expected_objects(starting, decider.stages, shares)
    return _cost(expected, seconds, sizes, config)


def first_estimate(config: BuildConfig, num_objects: int) -> Cost:
    """What a first build is expected to take, of which so many objects are fetched."""
    stages = Decider(config).stages
    expected = expected_objects({"fetch": num_objects}, stages, _DEFAULT_PASS)
    return _cost(expected, *_defaults(config), config)


def _cost(
    expected: Mapping[str, float],
    seconds: Mapping[str, float],
    sizes: Mapping[str, float],
    config: BuildConfig,
) -> Cost:
    """Of so many objects per stage, by what each takes."""
    stages = {}
    for stage, held in reserved(config).items():
        count = expected.get(stage, 0.0)
        if count:
            hours = {kind: count * seconds[stage] / 3600 * number for kind, number in held.items()}
            stages[stage] = StageCost(objects=count, bytes=count * sizes.get(stage, 0.0), **hours)
    return Cost(stages=stages)


def _defaults(config: BuildConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and bytes of an object where nothing was measured yet, by pixels and samples."""
    pixels = get_rig(config.rig).num_views * config.render.resolution**2
    share = pixels / _DEFAULT_PIXELS
    seconds, sizes = dict(_DEFAULT_SECONDS), dict(_DEFAULT_BYTES)
    colour = (seconds["render"] - _FIXED_SECONDS) * share * config.render.samples / _DEFAULT_SAMPLES
    seconds["render"] = _FIXED_SECONDS + colour
    sizes["render"] *= share
    return seconds, sizes


def _shares(
    ended: dict[str, np.ndarray], decisions: Decisions, decider: Decider
) -> dict[str, float]:
    """Per stage, the share of those who passed the stage before that reach it."""
    shares = dict(_DEFAULT_PASS)
    for before, stage in pairwise(decider.stages):
        # Who still waits for the stage says nothing.
        waiting = decisions.stage == STAGES.index(stage)
        settled = ended[before] & ~waiting
        if settled.sum() >= _ENOUGH_OBJECTS:
            shares[stage] = float((settled & ended[stage]).sum() / settled.sum())
    return shares
