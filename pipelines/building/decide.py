"""The state of objects and the stage that each needs next: one pure function decides it all.

The plan, the workers, `lrm status` and `lrm inspect` all ask `Decider`: for a million objects at
once, or for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int8, Int16

from core.failures import FailureKind, Retry, kinds_retried
from dataset.catalog.event_columns import CLEARED, LIST, REMOVE
from dataset.columns import Columns, RowColumns
from filters.chain import CHAIN, judge
from filters.verdict import Filter, Judgement, Verdict
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.fetch import FETCH
from pipelines.building.stages.identities import Identities
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import ResultFile, Stage

__all__ = [
    "REASONS_TO_WORK",
    "STATES",
    "Decider",
    "Decision",
    "Decisions",
    "Failure",
    "State",
]

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
_REMOVED = (REMOVE.stage, "removed")
"""Filter and reason of an object under a tombstone."""
_RETRIED = kinds_retried(Retry.NEXT_BUILD, Retry.AT_ONCE)
_RETRIED_WITH_OTHER_LIMITS = kinds_retried(Retry.OTHER_LIMITS)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The failed stage at which an object has stopped."""

    stage: Stage
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The state of an object, and the next stage it needs, if any."""

    state: State
    stage: Stage | None = None
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
    stages: tuple[Stage, ...]
    """Those that an object of this build passes."""
    state: Int8[np.ndarray, "n"]
    """Place in STATES."""
    stage: Int8[np.ndarray, "n"]
    """The next stage's place in `stages`; -1 for none."""
    why: Int8[np.ndarray, "n"]
    """Place in REASONS_TO_WORK."""
    failed: Int8[np.ndarray, "n"]
    """The failed stage's place in `stages`; -1 for none."""
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
        """Return which objects are in a state."""
        return self.state == STATES.index(state)

    def at(self, row: int) -> Decision:
        """Return the decision on one of the objects, with all verdicts."""
        stage, failed = int(self.stage[row]), int(self.failed[row])
        return Decision(
            state=STATES[self.state[row]],
            stage=self.stages[stage] if stage >= 0 else None,
            why=REASONS_TO_WORK[self.why[row]],
            verdicts=tuple(self._verdicts(row)),
            failure=self._failure(self.stages[failed], row) if failed >= 0 else None,
        )

    def _verdicts(self, row: int) -> list[Verdict]:
        found = []
        if self.columns.value(REMOVE.status, row) == "ok":
            why = self.columns.value(REMOVE.message, row) or ""
            name, reason = _REMOVED
            found.append(Verdict(filter=name, keep=False, reason=reason, measured=why, limit=None))
        for link, judgement in self.judgements:
            if self.known[link.needs][row]:
                found.append(judgement.verdict(link.name, row))
        return found

    def _failure(self, stage: Stage, row: int) -> Failure:
        kind = self.columns.value(stage.events.kind, row) or ""
        message = self.columns.value(stage.events.message, row) or ""
        return Failure(stage=stage, kind=kind, message=message)


class Decider:
    """Decides by one build configuration.

    Raises BadInput for a configuration that names an unknown stage.
    """

    def __init__(self, config: BuildConfig, identities: Identities | None = None) -> None:
        """`identities` are those of the configuration, if they are known already."""
        self._config = config
        self.identities = identities or Identities(config)
        for link in CHAIN:
            if link.needs != LIST.stage and STAGES.find(link.needs) is None:
                raise ValueError(f"filter {link.name}: there is no stage {link.needs}")
        self.stages = STAGES.wanted(config)
        """Those that an object of this build passes."""

    @cached_property
    def places(self) -> dict[str, tuple[str, str]]:
        """Per stage (also `list` and `remove`), where the catalog has its events: (stage, rig)."""
        fixed = {columns.stage: (columns.stage, "") for columns in (LIST, REMOVE)}
        return fixed | {stage.name: (stage.name, self.identities.rig(stage)) for stage in STAGES}

    def valid(self, stage: Stage, columns: Columns) -> Bool[np.ndarray, "n"]:
        """Return where the last event of a stage, good or bad, says what a new one would."""
        same = columns.same(stage.events.content, stage.made_from)
        current = columns.one_of(stage.events.settings, {self.identities.settings(stage)})
        return columns.one_of(stage.events.status, {"ok", "failed"}) & same & current

    def good(self, stage: Stage, columns: Columns) -> Bool[np.ndarray, "n"]:
        """Return where a stage went well and its result still holds."""
        return self.valid(stage, columns) & columns.one_of(stage.events.status, {"ok"})

    def holds(self, stage: Stage, state: ObjectState) -> bool:
        """Return whether a stage of one object went well and its result still holds."""
        good = state.get(stage.events.status) == "ok"
        return good and bool(self.valid(stage, RowColumns(state.row))[0])

    def decide(self, state: ObjectState) -> Decision:
        """Return the decision on one object."""
        return self.decide_all(RowColumns(state.row)).at(0)

    def decide_all(self, columns: Columns) -> Decisions:
        """Follow every object through the stages until one drops, fails or is still to be done."""
        valid = {stage.name: self.valid(stage, columns) for stage in self.stages}
        good = {
            stage.name: valid[stage.name] & columns.one_of(stage.events.status, {"ok"})
            for stage in self.stages
        }
        known = {name: valid[FETCH.name] & where for name, where in good.items()}
        chain = _Chain(columns, self._config, known)
        removed = columns.one_of(REMOVE.status, {"ok"})
        walk = _Walk(len(columns))
        walk.stop(removed | chain.drops_after(LIST.stage), _DROPPED)
        for place, stage in enumerate(self.stages):
            pending = walk.stop(~valid[stage.name], _PENDING)
            if pending.any():
                walk.need(place, pending, self._why(stage, columns))
                for source, file in self._files_for(stage):
                    # Its measurements are there, but a compaction deleted the file.
                    gone = pending & ~columns.present(file.path)
                    walk.need(self.stages.index(source), gone, _COMPACTED)
            failed = walk.stop(~good[stage.name], _FAILED)
            if failed.any():
                walk.failed[failed] = place
                again = self._why_again(stage, columns)
                walk.need(place, failed & (again > 0), again)
            walk.stop(chain.drops_after(stage.name), _DROPPED)
        return Decisions(
            columns=columns,
            stages=self.stages,
            state=walk.state,
            stage=walk.stage,
            why=walk.why,
            failed=walk.failed,
            reason=chain.first_reasons(removed, walk.state == _DROPPED),
            reasons=[_REMOVED, *chain.reasons],
            judgements=chain.judgements,
            known=chain.known,
        )

    def _files_for(self, stage: Stage) -> list[tuple[Stage, ResultFile]]:
        """Return the stages whose files are kept until this one has used them."""
        files = [(found, found.file) for found in self.stages if found.file is not None]
        return [(found, file) for found, file in files if file.until == stage.name]

    def _why(self, stage: Stage, columns: Columns) -> Int8[np.ndarray, "n"]:
        """Return why a stage must be done whose last event does not hold."""
        if stage is FETCH:
            changed = np.full(len(columns), _FILE)
        else:
            same = columns.same(stage.events.content, stage.made_from)
            changed = np.where(same, _CONFIGURATION, _BYTES)
        cleared = columns.one_of(stage.events.status, {CLEARED})
        damaged = cleared & columns.one_of(stage.events.kind, {FailureKind.SAMPLE_DAMAGED})
        why = np.where(columns.present(stage.events.status), changed, _NEW)
        why[cleared], why[damaged] = _RETRY, _DAMAGED
        return why.astype(np.int8)

    def _why_again(self, stage: Stage, columns: Columns) -> Int8[np.ndarray, "n"]:
        """Return why a failure is worth another try; 0 if it is not."""
        why = np.zeros(len(columns), dtype=np.int8)
        if stage.uses_blender:
            limited = columns.one_of(stage.events.kind, _RETRIED_WITH_OTHER_LIMITS)
            other = ~columns.one_of(stage.events.limits, {self.identities.limits})
            why[limited & other] = _LIMITS
        why[columns.one_of(stage.events.kind, _RETRIED)] = _RETRY
        return why


class _Walk:
    """The way of n objects through the stages: where each stops, and what it needs there."""

    def __init__(self, num: int) -> None:
        self.state = np.full(num, _KEPT, dtype=np.int8)
        self.stage, self.failed = (np.full(num, -1, dtype=np.int8) for _ in range(2))
        self.why = np.zeros(num, dtype=np.int8)
        self._walking = np.ones(num, dtype=bool)

    def stop(self, where: Bool[np.ndarray, "n"], state: int) -> Bool[np.ndarray, "n"]:
        """End the way of those objects that are still on it; returns which ones these are."""
        stopped = self._walking & where
        self.state[stopped] = state
        self._walking = self._walking & ~where
        return stopped

    def need(
        self, place: int, where: Bool[np.ndarray, "n"], why: Int8[np.ndarray, "n"] | int
    ) -> None:
        """Note the stage that these objects need next, and why."""
        self.stage[where] = place
        self.why = np.where(where, why, self.why).astype(np.int8)


class _Chain:
    """What the filters say of n objects, as far as their measurements are known."""

    def __init__(
        self,
        columns: Columns,
        config: BuildConfig,
        known: Mapping[str, Bool[np.ndarray, "n"]],
    ) -> None:
        known = {LIST.stage: np.ones(len(columns), dtype=bool), **known}
        self._nowhere = np.zeros(len(columns), dtype=bool)
        self.judgements = judge(columns, config.filters)
        stages = dict.fromkeys(link.needs for link, _ in self.judgements)
        self.known = {stage: known.get(stage, self._nowhere) for stage in stages}
        self._drops = [
            (link, reason, where & self.known[link.needs])
            for link, judgement in self.judgements
            for reason, where in judgement.drops.items()
        ]
        self.reasons = [(link.name, reason) for link, reason, _ in self._drops]

    def drops_after(self, stage: str) -> Bool[np.ndarray, "n"]:
        """Return which objects the filters drop that read a stage's measurements."""
        dropped = self._nowhere
        for link, _, where in self._drops:
            if link.needs == stage:
                dropped = dropped | where
        return dropped

    def first_reasons(
        self, removed: Bool[np.ndarray, "n"], dropped: Bool[np.ndarray, "n"]
    ) -> Int16[np.ndarray, "n"]:
        """Return the place of the first reason of each dropped object; 0 if it was removed."""
        reason = np.full(len(removed), -1, dtype=np.int16)
        for number, (_, _, where) in reversed(list(enumerate(self._drops, start=1))):
            reason[where] = number
        reason[removed] = 0
        reason[~dropped] = -1
        return reason
