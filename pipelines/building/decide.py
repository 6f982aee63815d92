"""The state of objects and what must happen to them next: one pure function decides it all.

The plan, the workers, `lrm status` and `lrm inspect` all ask `Decider`: for a million objects at
once, or for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int8, Int16

from core.config import digest
from dataset.catalog.event_log import Event
from dataset.columns import Columns, RowColumns
from dataset.object_record import ObjectRecord
from dataset.views import SAMPLE_FORMAT
from filters.chain import judge
from filters.verdict import Filter, Judgement, Verdict
from pipelines.building.build_config import BuildConfig
from pipelines.building.event_columns import SAMPLE_PLACE, flatten
from pipelines.building.identity import (
    INSPECT_KEYS,
    LIMIT_KEYS,
    RENDER_KEYS,
    SURFACE_KEYS,
    identity_of,
)
from render.render_config import RENDERER_VERSION
from render.rigs import get_rig

__all__ = [
    "CLEARED",
    "DAMAGED",
    "REASONS_TO_WORK",
    "REMOVE",
    "STAGES",
    "STATES",
    "TRANSIENT",
    "Decider",
    "Decision",
    "Decisions",
    "Failure",
    "ObjectState",
    "State",
]

STAGES = ("fetch", "inspect", "measure", "render", "geometry", "pack")
"""In the order in which an object passes them. `geometry` is there if the build asks for it."""
RIG_STAGES = frozenset({"measure", "render", "pack"})
"""Those that depend on the rig's cameras."""
DAMAGED = "sample_damaged"
"""The kind of what `lrm verify` found: a rendered sample whose bytes in the shard are bad."""
TRANSIENT = frozenset(
    {
        "download",
        "killed",
        "no_device",
        "no_space",
        "no_start",
        DAMAGED,
        "staging_lost",
        "storage",
        "worker_lost",
    }
)
"""Kinds of failure that are no fault of the object: the next build tries again by itself. All
others wait for a change."""
REMOVE = "remove"
"""The stage of a takedown: `ok` = taken down, `cleared` = taken back."""
CLEARED = "cleared"
"""The status of an event that takes back the result of its stage: there is none now."""
LIMITED = frozenset({"out_of_memory", "timeout", "too_large"})
"""Kinds of failure that other limits of the Blender child may mend."""
_BLENDER_STAGES = frozenset({"measure", "render", "geometry"})
_FACT_STAGES = ("inspect", "measure", "render")
"""The stages whose measurements filters may read."""
INSPECT_VERSION = 2
"""Raise it when filters.inspect_glb reads something else from the same file."""
MEASURE_VERSION = 2
"""Raise it when the measure stage (silhouettes, filters.islands) measures something else."""
GEOMETRY_VERSION = 1
"""Raise it when the same scene gives other points or another mesh."""

State = Literal["kept", "dropped", "failed", "pending"]
STATES: tuple[State, ...] = get_args(State)
_KEPT, _DROPPED, _FAILED, _PENDING = range(4)
REASONS_TO_WORK = (
    "",
    "new",
    "file changed",
    "bytes changed",
    "configuration changed",
    "retry",
    "limits changed",
    "damaged",
    "compacted",
)
_NEW, _FILE, _BYTES, _CONFIGURATION, _RETRY, _LIMITS, _DAMAGED, _COMPACTED = range(1, 9)
_REMOVED = (REMOVE, "removed")
"""Filter and reason of an object under a tombstone."""


@dataclass(frozen=True, kw_only=True)
class ObjectState:
    """What the source and the catalog say of one object, as the row of a table.

    Names of columns begin with a stage: `list.caption`, `fetch.sha256`, `render.status`.
    """

    row: Mapping[str, Any]

    @property
    def asset_id(self) -> str:
        """`source:native_id`."""
        return str(self.row["asset_id"])

    @cached_property
    def record(self) -> ObjectRecord:
        """The object as its source lists it."""
        names = ObjectRecord.__dataclass_fields__
        values = {name: self.row.get(f"list.{name}") for name in names}
        lists = {name: list(values[name] or ()) for name in ("tags", "categories")}
        return ObjectRecord.from_dict(values | lists | {"asset_id": self.asset_id})

    def get(self, stage: str, name: str) -> Any:
        """A column of the last event of a stage; None if there is none."""
        return self.row.get(f"{stage}.{name}")

    def with_event(self, event: Event) -> "ObjectState":
        """The state after one more event."""
        prefix = f"{event.stage}."
        row = {name: value for name, value in self.row.items() if not name.startswith(prefix)}
        own = {name: getattr(event, name) for name in _EVENT_COLUMNS}
        own |= flatten(event.stage, event.status, event.data)
        row |= {prefix + name: value for name, value in own.items() if value is not None}
        return ObjectState(row=row)


_EVENT_COLUMNS = ("content", "settings", "status", "kind", "message", "seconds")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The failed stage on which an object stands."""

    stage: str
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Where an object stands, and the next stage it needs, if any."""

    state: State
    stage: str | None = None
    """The stage to do next. Set for pending objects, and for failures worth another try."""
    why: str = ""
    """Why that stage must be done: one of REASONS_TO_WORK."""
    verdicts: tuple[Verdict, ...] = ()
    """Every verdict that can be given now; those that drop are all the known reasons."""
    failure: Failure | None = None

    @property
    def dropped(self) -> Verdict | None:
        """The verdict under which a dropped object is counted: the first in the chain."""
        return next((verdict for verdict in self.verdicts if not verdict.keep), None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decisions:
    """The decisions on n objects."""

    columns: Columns
    state: Int8[np.ndarray, "n"]
    """Place in STATES."""
    stage: Int8[np.ndarray, "n"]
    """The next stage's place in STAGES; -1 for none."""
    why: Int8[np.ndarray, "n"]
    """Place in REASONS_TO_WORK."""
    failed: Int8[np.ndarray, "n"]
    """The failed stage's place in STAGES; -1 for none."""
    reason: Int16[np.ndarray, "n"]
    """Place in `reasons` of what a dropped object is counted under; -1 for none."""
    reasons: list[tuple[str, str]]
    """(filter, reason) of everything that can drop an object."""
    judgements: list[tuple[Filter, Judgement]] = field(repr=False)
    known: Mapping[str, Bool[np.ndarray, "n"]] = field(repr=False)
    """Per stage, where its measurements still hold."""

    def __len__(self) -> int:
        return len(self.state)

    def where(self, state: State) -> Bool[np.ndarray, "n"]:
        """The objects in a state."""
        return self.state == STATES.index(state)

    def at(self, row: int) -> Decision:
        """The decision on one of the objects, with all verdicts."""
        stage, failed = int(self.stage[row]), int(self.failed[row])
        return Decision(
            state=STATES[self.state[row]],
            stage=STAGES[stage] if stage >= 0 else None,
            why=REASONS_TO_WORK[self.why[row]],
            verdicts=tuple(self._verdicts(row)),
            failure=self._failure(STAGES[failed], row) if failed >= 0 else None,
        )

    def _verdicts(self, row: int) -> list[Verdict]:
        found = []
        if self.columns.value("remove.status", row) == "ok":
            why = self.columns.value("remove.message", row) or ""
            name, reason = _REMOVED
            found.append(Verdict(filter=name, keep=False, reason=reason, measured=why, limit=None))
        for link, judgement in self.judgements:
            if self.known[link.needs][row]:
                found.append(judgement.verdict(link.name, row))
        return found

    def _failure(self, stage: str, row: int) -> Failure:
        kind, message = (self.columns.value(f"{stage}.{name}", row) for name in ("kind", "message"))
        return Failure(stage=stage, kind=kind or "", message=message or "")


class Decider:
    """Decides by one build configuration."""

    def __init__(self, config: BuildConfig) -> None:
        self._config = config
        self.stages = tuple(name for name in STAGES if name != "geometry" or config.geometry)
        """Those that an object of this build passes."""

    @cached_property
    def settings(self) -> dict[str, str]:
        """Per stage, the digest of what its result depends on beside the object's bytes."""
        config = self._config
        rig = get_rig(config.rig)
        cameras = [rig.name, rig.version, rig.normalise]
        inspect = digest([INSPECT_VERSION, identity_of(config, INSPECT_KEYS)])
        measure = digest([MEASURE_VERSION, RENDERER_VERSION, cameras])
        pixels = identity_of(config, RENDER_KEYS)
        render = digest([RENDERER_VERSION, SAMPLE_FORMAT, cameras, pixels])
        # The renderer's version says how a file becomes a scene, too.
        points = identity_of(config, SURFACE_KEYS)
        surface = [GEOMETRY_VERSION, RENDERER_VERSION, rig.normalise, points]
        return {
            "fetch": "",
            "inspect": inspect,
            "measure": measure,
            "render": render,
            "geometry": digest(surface),
            "pack": render,
        }

    @cached_property
    def places(self) -> dict[str, tuple[str, str]]:
        """Per stage (also `list` and `remove`), where the catalog has its events: (stage, rig)."""
        return {stage: (stage, self.rig_of(stage)) for stage in ("list", "remove", *STAGES)}

    def rig_of(self, stage: str) -> str:
        """The rig column of a stage's events: what of the rig the stage depends on."""
        if stage in RIG_STAGES:
            return self._config.rig
        return get_rig(self._config.rig).normalise if stage == "geometry" else ""

    def key(self, stage: str, state: ObjectState) -> str:
        """The identity of a stage's result: equal keys mean the same bytes."""
        identity = [_content(stage, state), self.settings[stage]]
        # The cameras follow from the asset id: equal files of two objects give other views.
        return digest([state.asset_id, *identity] if stage in RIG_STAGES else identity)

    def event(self, stage: str, state: ObjectState, **fields: Any) -> Event:
        """An event of this object and stage, as things stand now."""
        data = dict(fields.pop("data", {}))
        if stage in _BLENDER_STAGES and fields.get("status") == "failed":
            data["limits"] = self._limits
        return Event(
            asset_id=state.asset_id,
            stage=stage,
            rig=self.rig_of(stage),
            content=_content(stage, state),
            settings=self.settings[stage],
            data=data,
            **fields,
        )

    def valid(self, stage: str, columns: Columns) -> Bool[np.ndarray, "n"]:
        """Where the last event of a stage still says what a new one would: well or badly."""
        status = f"{stage}.status"
        same = (
            columns.same("fetch.content", "list.version")
            if stage == "fetch"
            else columns.same(f"{stage}.content", "fetch.sha256")
        )
        current = columns.one_of(f"{stage}.settings", {self.settings[stage]})
        return columns.one_of(status, {"ok", "failed"}) & same & current

    def holds(self, stage: str, state: ObjectState) -> bool:
        """Whether the last event of a stage of one object went well and still holds."""
        good = state.get(stage, "status") == "ok"
        return good and bool(self.valid(stage, RowColumns(state.row))[0])

    def broken_shard(self, state: ObjectState) -> dict[str, str] | None:
        """Where the object's sample lay (SAMPLE_PLACE), if it is damaged."""
        broken = state.get("pack", "status") == CLEARED and state.get("pack", "kind") == DAMAGED
        same = state.get("pack", "content") == _content("pack", state)
        if not broken or not same or state.get("pack", "settings") != self.settings["pack"]:
            return None
        return {name: state.get("pack", name) for name in SAMPLE_PLACE}

    def decide(self, state: ObjectState) -> Decision:
        """The decision on one object."""
        return self.decide_all(RowColumns(state.row)).at(0)

    def decide_all(self, columns: Columns) -> Decisions:
        """Walk the stages in order until one drops, fails or is still to be done."""
        num = len(columns)
        valid = {stage: self.valid(stage, columns) for stage in self.stages}
        good = {s: valid[s] & columns.one_of(f"{s}.status", {"ok"}) for s in self.stages}
        known = {stage: valid["fetch"] & good[stage] for stage in _FACT_STAGES}
        known |= {"list": np.ones(num, dtype=bool)}
        judgements = judge(columns, self._config.filters)
        drops = [
            (link.needs, link.name, reason, where & known[link.needs])
            for link, judgement in judgements
            for reason, where in judgement.drops.items()
        ]
        state = np.full(num, _KEPT, dtype=np.int8)
        stage_to_do, failed = (np.full(num, -1, dtype=np.int8) for _ in range(2))
        why = np.zeros(num, dtype=np.int8)
        removed = columns.one_of("remove.status", {"ok"})
        state[removed] = _DROPPED
        walking = ~removed
        passed = {"list"}
        for place, stage in enumerate(STAGES):
            if stage not in self.stages:
                continue
            for needs, _, _, where in drops:
                if needs in passed:
                    state[walking & where] = _DROPPED
                    walking = walking & ~where
            pending = walking & ~valid[stage]
            if pending.any():
                state[pending], stage_to_do[pending] = _PENDING, place
                why = np.where(pending, self._why(stage, columns), why)
                if stage == "pack":
                    # The measurements are there, but a compaction deleted the sample.
                    gone = pending & ~columns.present("render.staging")
                    stage_to_do[gone], why[gone] = STAGES.index("render"), _COMPACTED
            broken = walking & valid[stage] & ~good[stage]
            if broken.any():
                state[broken], failed[broken] = _FAILED, place
                again = np.where(broken, self._why_again(stage, columns), 0)
                stage_to_do[again > 0] = place
                why = np.where(again > 0, again, why)
            walking = walking & good[stage]
            passed.add(stage)
        reason = np.full(num, -1, dtype=np.int16)
        for number, (_, _, _, where) in reversed(list(enumerate(drops, start=1))):
            reason[where] = number
        reason[removed] = 0
        reason[state != _DROPPED] = -1
        return Decisions(
            columns=columns,
            state=state,
            stage=stage_to_do,
            why=why.astype(np.int8),
            failed=failed,
            reason=reason,
            reasons=[_REMOVED, *((name, reason) for _, name, reason, _ in drops)],
            judgements=judgements,
            known=known,
        )

    @cached_property
    def _limits(self) -> str:
        return digest(identity_of(self._config, LIMIT_KEYS))

    def _why(self, stage: str, columns: Columns) -> Int8[np.ndarray, "n"]:
        """Why a stage must be done whose last event does not hold."""
        same = columns.same(f"{stage}.content", "fetch.sha256")
        changed = np.where(same, _CONFIGURATION, _BYTES)
        if stage == "fetch":
            changed[:] = _FILE
        cleared = columns.one_of(f"{stage}.status", {CLEARED})
        damaged = cleared & columns.one_of(f"{stage}.kind", {DAMAGED})
        found = columns.present(f"{stage}.status")
        why = np.where(found, changed, _NEW)
        why[cleared], why[damaged] = _RETRY, _DAMAGED
        return why.astype(np.int8)

    def _why_again(self, stage: str, columns: Columns) -> Int8[np.ndarray, "n"]:
        """Why a failure is worth another try; 0 if it is not."""
        transient = columns.one_of(f"{stage}.kind", TRANSIENT)
        limited = columns.one_of(f"{stage}.kind", LIMITED)
        other = ~columns.one_of(f"{stage}.limits", {self._limits})
        why = np.where(limited & other, _LIMITS, 0)
        why[transient] = _RETRY
        return why.astype(np.int8)


def _content(stage: str, state: ObjectState) -> str:
    """What of the object a stage's result is made from."""
    if stage == "fetch":
        return str(state.get("list", "version"))
    return str(state.get("fetch", "sha256") or "")
