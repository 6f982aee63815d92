"""The state of one object and what must happen to it next: one pure function decides it all.

The plan, the workers, `lrm status` and `lrm inspect` all ask `decide`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from dataset.catalog import Event
from dataset.config import digest
from dataset.objects import ObjectRecord
from filters.chain import judge
from filters.verdict import Facts, Verdict
from pipelines.settings import BuildConfig
from render.rigs import get_rig
from render.settings import RENDERER_VERSION

__all__ = ["STAGES", "TRANSIENT", "Decider", "Decision", "ObjectState", "State"]

STAGES = ("fetch", "inspect", "measure", "render", "pack")
"""In the order in which an object passes them; those below depend on the rig."""
RIG_STAGES = frozenset({"measure", "render", "pack"})
TRANSIENT = frozenset(
    {"download", "no_device", "no_start", "staging_lost", "storage", "worker_lost"}
)
"""Kinds of failure that are no fault of the object: the next build tries again by itself. All
others wait for a change."""
LIMITED = frozenset({"out_of_memory", "timeout", "too_large"})
"""Kinds of failure that other limits of the Blender child may mend."""
_FACT_STAGES = ("inspect", "measure", "render")
"""The stages whose measurements filters may read."""
INSPECT_VERSION = 1
"""Raise it when filters.inspect_glb reads something else from the same file."""
MEASURE_VERSION = 1
"""Raise it when the measure stage (silhouettes, filters.islands) measures something else."""

State = Literal["kept", "dropped", "failed", "pending"]


@dataclass(frozen=True, kw_only=True)
class ObjectState:
    """What the source and the catalog say of one object."""

    record: ObjectRecord
    version: str
    """The version of its file at the source."""
    results: Mapping[str, Event]
    """The last event of each stage (for this build's rig)."""

    def with_event(self, event: Event) -> "ObjectState":
        """The state after one more event."""
        return replace(self, results={**self.results, event.stage: event})


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Where an object stands, and the next stage it needs, if any."""

    state: State
    stage: str | None = None
    """The stage to do next. Set for pending objects, and for failures worth another try."""
    why: str = ""
    """Why that stage must be done: `new`, `bytes changed`, `configuration changed`, `retry`."""
    verdicts: tuple[Verdict, ...] = ()
    """Every verdict that can be given now; those that drop are all the known reasons."""
    failure: Event | None = None

    @property
    def dropped(self) -> Verdict | None:
        """The verdict under which a dropped object is counted: the first in the chain."""
        return next((verdict for verdict in self.verdicts if not verdict.keep), None)


class Decider:
    """Decides by one build configuration."""

    def __init__(self, config: BuildConfig) -> None:
        self._config = config

    @cached_property
    def _digests(self) -> dict[str, str]:
        """Per stage, the digest of what its result depends on beside the object's bytes."""
        rig = get_rig(self._config.rig)
        cameras = [rig.name, rig.version, rig.normalise]
        inspect = digest([INSPECT_VERSION, self._config.inspect.dump()])
        measure = digest([MEASURE_VERSION, RENDERER_VERSION, cameras])
        render = digest([RENDERER_VERSION, cameras, self._config.render.dump()])
        return {"inspect": inspect, "measure": measure, "render": render, "pack": render}

    def rig_of(self, stage: str) -> str:
        """The rig column of a stage's events."""
        return self._config.rig if stage in RIG_STAGES else ""

    def key(self, stage: str, state: ObjectState) -> str:
        """The identity of a stage's result: equal keys mean that nothing needs to be redone."""
        if stage == "fetch":
            return digest([state.record.path, state.version])
        if stage in RIG_STAGES:
            # The cameras follow from the asset id: equal files of two objects give other views.
            return digest([state.record.asset_id, _content(state), self._digests[stage]])
        return digest([_content(state), self._digests[stage]])

    def event(self, stage: str, state: ObjectState, **fields: Any) -> Event:
        """An event of this object and stage, under its current key."""
        data = dict(fields.pop("data", {}))
        if stage != "fetch":
            data.setdefault("sha256", _content(state))
        if stage in RIG_STAGES and fields.get("status") == "failed":
            data["limits"] = self._limits
        return Event(
            asset_id=state.record.asset_id,
            stage=stage,
            rig=self.rig_of(stage),
            key=self.key(stage, state),
            data=data,
            **fields,
        )

    def decide(self, state: ObjectState) -> Decision:
        """Walk the stages in order until one drops, fails or is still to be done."""
        facts = self._facts(state)
        verdicts = tuple(judge(facts, self._config.filters))
        passed = Facts(record=state.record, inspect=None, measure=None, render=None)
        for stage in STAGES:
            if any(not verdict.keep for verdict in judge(passed, self._config.filters)):
                return Decision(state="dropped", verdicts=verdicts)
            found = state.results.get(stage)
            if found is None or found.key != self.key(stage, state):
                why = _why(found, state)
                return Decision(state="pending", stage=stage, why=why, verdicts=verdicts)
            if found.status == "failed":
                why = self._why_again(found)
                again = {"stage": stage, "why": why} if why else {}
                return Decision(state="failed", verdicts=verdicts, failure=found, **again)
            if stage in _FACT_STAGES:
                measured: dict[str, Any] = {stage: found.data}
                passed = replace(passed, **measured)
        return Decision(state="kept", verdicts=verdicts)

    @cached_property
    def _limits(self) -> str:
        return digest(self._config.blender.dump())

    def _why_again(self, failure: Event) -> str:
        """Why a failure is worth another try; empty if it is not."""
        if failure.kind in TRANSIENT:
            return "retry"
        other_limits = failure.data.get("limits") != self._limits
        return "limits changed" if failure.kind in LIMITED and other_limits else ""

    def _facts(self, state: ObjectState) -> Facts:
        """All measurements that are still valid."""
        valid: dict[str, Any] = dict.fromkeys(_FACT_STAGES)
        fetched = state.results.get("fetch")
        if fetched is not None and fetched.key == self.key("fetch", state):
            for stage in valid:
                found = state.results.get(stage)
                usable = found is not None and found.status == "ok"
                if found is not None and usable and found.key == self.key(stage, state):
                    valid[stage] = found.data
        return Facts(record=state.record, **valid)


def _content(state: ObjectState) -> str:
    fetched = state.results.get("fetch")
    return str(fetched.data.get("sha256", "")) if fetched is not None else ""


def _why(found: Event | None, state: ObjectState) -> str:
    if found is None:
        return "new"
    if found.stage == "fetch":
        return "file changed"
    return (
        "configuration changed" if found.data.get("sha256") == _content(state) else "bytes changed"
    )
