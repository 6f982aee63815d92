"""What a build would do, and why: a pure function of listing, catalog and configuration."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataset.catalog import Catalog, Event
from dataset.config import digest
from dataset.objects import ObjectRecord
from pipelines.captions import read_captions
from pipelines.settings import BuildConfig
from pipelines.sources import Source, SourceObject, list_objects
from pipelines.state import STAGES, Decider, Decision, ObjectState

__all__ = ["Estimate", "Plan", "current_states", "load_plan", "make_plan"]

CurrentEvents = Mapping[tuple[str, str, str], Event]

_DEFAULT_SECONDS = {"fetch": 1.0, "inspect": 0.1, "measure": 5.0, "render": 40.0, "pack": 0.2}
"""Core-seconds per object where the catalog has no measurement of its own yet (2 CPU cores, 512 px,
8 samples)."""
_DEFAULT_BYTES = 10_000_000
"""Bytes of a sample (32 views at 512 px) where the catalog has none yet."""
_DEFAULT_PASS = {"fetch": 1.0, "inspect": 0.95, "measure": 0.5, "render": 0.7, "pack": 1.0}
"""Share of objects that reach a stage after the one before: Objaverse's 800,000 become 270,000."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the work of a plan will take."""

    core_hours: float
    gpu_hours: float
    num_bytes: int
    """Of new samples."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of one build, in the order of the asset ids."""

    listing: Sequence[Event]
    """What is new in the source's listing: objects that came, changed or went."""
    states: Mapping[str, ObjectState]
    decisions: Mapping[str, Decision]
    estimate: Estimate
    captions_revision: str = ""
    """Digest of the captions' file."""

    @property
    def work(self) -> dict[str, dict[str, int]]:
        """Objects per next stage and reason."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for decision in self.decisions.values():
            if decision.stage is not None:
                counts[decision.stage][decision.why] += 1
        return {stage: dict(counts[stage]) for stage in STAGES if stage in counts}

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `lrm plan --json`."""
        return {
            "work": self.work,
            "estimate": {
                "core_hours": round(self.estimate.core_hours, 4),
                "gpu_hours": round(self.estimate.gpu_hours, 4),
                "bytes": self.estimate.num_bytes,
            },
        }


def load_plan(config: BuildConfig, source: Source, catalog: Catalog) -> Plan:
    """Read captions, listing and catalog, and plan. Raises BadInput; writes nothing."""
    captions, revision = read_captions(config.captions) if config.captions else ({}, "")
    objects, all_ids = list_objects(source, config.source, captions, config.limit)
    plan = make_plan(objects, all_ids, catalog.current(), config)
    return replace(plan, captions_revision=revision)


def make_plan(
    objects: Sequence[SourceObject],
    all_ids: frozenset[str],
    current: CurrentEvents,
    config: BuildConfig,
) -> Plan:
    """Compare the listing with the catalog. Objects beyond a limit are left as they are."""
    decider = Decider(config)
    listed = [_listed_event(item) for item in objects]
    changed = [event for event in listed if _differs(event, current)]
    gone = [
        Event(asset_id=asset_id, stage="list", key="gone", status="gone")
        for asset_id, stage, _ in current
        if stage == "list" and asset_id not in all_ids
    ]
    gone = [event for event in gone if _differs(event, current)]
    merged = dict(current) | {(e.asset_id, "list", ""): e for e in [*changed, *gone]}
    states = current_states(merged, config.rig)
    chosen = {item.record.asset_id for item in objects}
    decisions = {
        asset_id: decider.decide(state) for asset_id, state in states.items() if asset_id in chosen
    }
    return Plan(
        listing=[*changed, *gone],
        states=states,
        decisions=decisions,
        estimate=_estimate(decisions.values(), current.values(), config),
    )


def current_states(current: CurrentEvents, rig: str) -> dict[str, ObjectState]:
    """The state of every object that its source still lists, in the order of the asset ids."""
    results: dict[str, dict[str, Event]] = defaultdict(dict)
    for (asset_id, stage, event_rig), event in current.items():
        if event_rig in ("", rig):
            results[asset_id][stage] = event
    states = {}
    for asset_id in sorted(results):
        stages = results[asset_id]
        listed = stages.pop("list", None)
        if listed is not None and listed.status == "ok":
            states[asset_id] = ObjectState(
                record=ObjectRecord.from_dict(dict(listed.data["record"])),
                version=listed.data["version"],
                results=stages,
            )
    return states


def _listed_event(item: SourceObject) -> Event:
    data = {"record": item.record.to_dict(), "version": item.version}
    return Event(asset_id=item.record.asset_id, stage="list", key=digest(data), data=data)


def _differs(event: Event, current: CurrentEvents) -> bool:
    known = current.get((event.asset_id, "list", ""))
    return known is None or known.key != event.key


def _estimate(
    decisions: Iterable[Decision], events: Iterable[Event], config: BuildConfig
) -> Estimate:
    """Expected cost: each object's next stage for certain, later stages by their pass shares."""
    done: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.status == "ok" and event.rig in ("", config.rig):
            done[event.stage].append(event)
    seconds = dict(_DEFAULT_SECONDS)
    for stage in STAGES:
        if done[stage]:
            seconds[stage] = sum(event.seconds for event in done[stage]) / len(done[stage])
    sizes = [event.data["bytes"] for event in done["render"] if "bytes" in event.data]
    sample_bytes = sum(sizes) / len(sizes) if sizes else _DEFAULT_BYTES
    expected: dict[str, float] = defaultdict(float)
    for decision in decisions:
        if decision.stage is None:
            continue
        share = 1.0
        for stage in STAGES[STAGES.index(decision.stage) :]:
            share *= 1.0 if stage == decision.stage else _DEFAULT_PASS[stage]
            expected[stage] += share
    on_gpu = {"render"} if config.render.device == "gpu" else set()
    threads = dict.fromkeys(("measure", "render"), config.blender.threads)
    hours = {
        stage: expected[stage] * seconds[stage] * threads.get(stage, 1) / 3600 for stage in STAGES
    }
    return Estimate(
        core_hours=sum(value for stage, value in hours.items() if stage not in on_gpu),
        gpu_hours=sum(hours[stage] for stage in on_gpu),
        num_bytes=round(expected["render"] * sample_bytes),
    )
