"""What a build would do, and why: a pure function of listing, catalog and configuration."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Int64

from dataset.latest import Latest
from dataset.storage import Storage
from pipelines.captions import read_captions
from pipelines.columns import NOT_FOR_PLANS, PROJECTION
from pipelines.listing import Listing, read_listing, read_parts
from pipelines.objects import Objects, widen
from pipelines.settings import BuildConfig
from pipelines.sources import Source
from pipelines.state import REASONS_TO_WORK, STAGES, Decider, Decisions

__all__ = ["Estimate", "Plan", "load_plan", "make_plan"]

_DEFAULT_SECONDS = {
    "fetch": 1.0,
    "inspect": 0.1,
    "measure": 5.0,
    "render": 30.0,
    "geometry": 0.5,
    "pack": 0.2,
}
"""Core-seconds per object where the catalog has no measurement of its own yet (2 CPU cores, 512 px,
up to 12 samples)."""
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

_COLUMNS = sorted(
    {name for stage in PROJECTION.types for name in PROJECTION.schema(stage).names} - NOT_FOR_PLANS
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the work of a plan will take."""

    core_hours: float
    gpu_hours: float
    num_bytes: int
    """Of new samples and companion files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The work of one build, in the order of the asset ids."""

    listing: Listing
    objects: Objects
    decisions: Decisions
    """On the objects, row by row."""
    rows: Int64[np.ndarray, "m"]
    """Of the objects that this build works on, those with something to do."""
    estimate: Estimate
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
            "estimate": {
                "core_hours": round(self.estimate.core_hours, 4),
                "gpu_hours": round(self.estimate.gpu_hours, 4),
                "bytes": self.estimate.num_bytes,
            },
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
        estimate=_estimate(decisions.stage[rows], objects, config, decider),
        captions_revision=captions_revision,
    )


def _estimate(
    stages: np.ndarray, objects: Objects, config: BuildConfig, decider: Decider
) -> Estimate:
    """Expected cost: each object's next stage for certain, later stages by their pass shares."""
    seconds, sizes = dict(_DEFAULT_SECONDS), dict(_DEFAULT_BYTES)
    for stage in STAGES:
        done = objects.columns.one_of(f"{stage}.status", {"ok"})
        if done.any():
            seconds[stage] = float(objects.columns.numbers(f"{stage}.seconds")[done].mean())
            if stage in sizes:
                sizes[stage] = float(objects.columns.numbers(f"{stage}.bytes")[done].mean())
    starting = np.bincount(stages, minlength=len(STAGES))
    expected = dict.fromkeys(STAGES, 0.0)
    for place, first in enumerate(STAGES):
        reaching = float(starting[place])
        for stage in decider.stages[decider.stages.index(first) :] if reaching else ():
            reaching *= 1.0 if stage == first else _DEFAULT_PASS[stage]
            expected[stage] += reaching
    on_gpu = {"render"} if config.render.device == "gpu" else set()
    threads = dict.fromkeys(("measure", "render", "geometry"), config.blender.threads)
    hours = {
        stage: expected[stage] * seconds[stage] * threads.get(stage, 1) / 3600 for stage in STAGES
    }
    return Estimate(
        core_hours=sum(value for stage, value in hours.items() if stage not in on_gpu),
        gpu_hours=sum(hours[stage] for stage in on_gpu),
        num_bytes=round(sum(expected[stage] * size for stage, size in sizes.items())),
    )
