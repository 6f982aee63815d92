"""The state of objects and the stage that each needs next, decided by one pure function.

The plan, the workers, `lrm status` and `lrm inspect` all use `Decider`, which handles a million
objects at once, or one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int8, Int16

from core.failures import FailureKind, Retry, kinds_with_retry
from dataset.catalog.event_columns import CLEARED, LIST, REMOVE, EventColumns
from dataset.columns import Columns, RowColumns
from filters.chain import CHAIN, run_filters
from filters.verdict import Filter, FilterResult, Verdict
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
"""The (filter, reason) of an object that a tombstone removes."""
_RETRIED = kinds_with_retry(Retry.NEXT_BUILD, Retry.AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The failed stage at which an object stopped."""

    stage: str
    """Name of the stage; `list` if the object's annotation cannot be used."""
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The state of an object and the next stage that it needs, if any."""

    state: State
    stage: Stage | None = None
    """The stage to do next: set for pending objects and for failures that are retried."""
    why: str = ""
    """Why that stage must be done: one of REASONS_TO_WORK."""
    verdicts: tuple[Verdict, ...] = ()
    """The verdicts of all filters whose measurements are known."""
    failure: Failure | None = None

    @property
    def dropped(self) -> Verdict | None:
        """The verdict that a dropped object counts under: the first one that drops it."""
        return next((verdict for verdict in self.verdicts if not verdict.keep), None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decisions:
    """The decisions on n objects."""

    columns: Columns
    stages: tuple[Stage, ...]
    """The stages that an object of this build passes, in order."""
    state: Int8[np.ndarray, "n"]
    """Index into STATES."""
    stage: Int8[np.ndarray, "n"]
    """Index of the next stage in `stages`; -1 if there is none."""
    why: Int8[np.ndarray, "n"]
    """Index into REASONS_TO_WORK."""
    failed: Int8[np.ndarray, "n"]
    """Index of the failed stage in `outcomes`; -1 if no stage failed."""
    reason: Int16[np.ndarray, "n"]
    """Index into `reasons` of the reason that a dropped object counts under; -1 for others."""
    reasons: list[tuple[str, str]]
    """Every (filter, reason) that can drop an object."""
    filter_results: list[tuple[Filter, FilterResult]] = field(repr=False)
    known: Mapping[str, Bool[np.ndarray, "n"]] = field(repr=False)
    """Per stage, the objects whose measurements are valid."""
    valid: Mapping[str, Bool[np.ndarray, "n"]] = field(repr=False)
    """Per stage, the objects whose last event, ok or failed, is valid."""

    def __len__(self) -> int:
        return len(self.state)

    @property
    def outcomes(self) -> tuple[EventColumns, ...]:
        """The columns of the outcomes of the listing and of each stage in `stages`."""
        return (LIST, *(stage.events for stage in self.stages))

    def where(self, state: State) -> Bool[np.ndarray, "n"]:
        """Return a mask of the objects in a state."""
        return self.state == STATES.index(state)

    def at(self, row: int) -> Decision:
        """Return the decision on one object, with all its verdicts."""
        stage, failed = int(self.stage[row]), int(self.failed[row])
        return Decision(
            state=STATES[self.state[row]],
            stage=self.stages[stage] if stage >= 0 else None,
            why=REASONS_TO_WORK[self.why[row]],
            verdicts=tuple(self._verdicts(row)),
            failure=self._failure(self.outcomes[failed], row) if failed >= 0 else None,
        )

    def _verdicts(self, row: int) -> list[Verdict]:
        verdicts = []
        if self.columns.value(REMOVE.status, row) == "ok":
            message = self.columns.value(REMOVE.message, row) or ""
            name, reason = _REMOVED
            verdicts.append(
                Verdict(filter=name, keep=False, reason=reason, measured=message, limit=None)
            )
        for filter_, filter_result in self.filter_results:
            if self.known[filter_.needs][row]:
                verdicts.append(filter_result.verdict(filter_.name, row))
        return verdicts

    def _failure(self, outcome: EventColumns, row: int) -> Failure:
        kind = self.columns.value(outcome.kind, row) or ""
        message = self.columns.value(outcome.message, row) or ""
        return Failure(stage=outcome.stage, kind=kind, message=message)


class Decider:
    """Decides on objects under one build configuration.

    Raises BadInput if the configuration names an unknown stage.
    """

    def __init__(self, config: BuildConfig, identities: Identities | None = None) -> None:
        """`identities` belong to `config`; by default they are computed."""
        self._config = config
        self.identities = identities or Identities(config)
        for filter_ in CHAIN:
            if filter_.needs != LIST.stage and STAGES.find(filter_.needs) is None:
                raise ValueError(f"filter {filter_.name}: there is no stage {filter_.needs}")
        self.stages = STAGES.enabled(config)
        """The stages that an object of this build passes, in order."""

    @cached_property
    def stage_rigs(self) -> dict[str, tuple[str, str]]:
        """The (stage, rig) under which the catalog stores a stage's events.

        The keys are the names of all stages, `list` and `remove` included.
        """
        fixed = {columns.stage: (columns.stage, "") for columns in (LIST, REMOVE)}
        return fixed | {stage.name: (stage.name, self.identities.rig(stage)) for stage in STAGES}

    def valid(self, stage: Stage, columns: Columns) -> Bool[np.ndarray, "n"]:
        """Return where a stage's last event, ok or failed, was made from the present input.

        The input is the object's file together with the stage's settings.
        """
        same = columns.same(stage.events.content, stage.input_version)
        current = columns.one_of(stage.events.settings, {self.identities.settings(stage)})
        return columns.one_of(stage.events.status, {"ok", "failed"}) & same & current

    def good(self, stage: Stage, columns: Columns) -> Bool[np.ndarray, "n"]:
        """Return where a stage succeeded and its result is valid."""
        return self.valid(stage, columns) & columns.one_of(stage.events.status, {"ok"})

    def holds(self, stage: Stage, state: ObjectState) -> bool:
        """Return whether a stage succeeded for one object and its result is valid."""
        good = state.get(stage.events.status) == "ok"
        return good and bool(self.valid(stage, RowColumns(state.row))[0])

    def decide(self, state: ObjectState) -> Decision:
        """Return the decision on one object."""
        return self.decide_all(RowColumns(state.row)).at(0)

    def decide_all(self, columns: Columns) -> Decisions:
        """Return the decisions on all objects.

        Follows every object through the stages until a filter drops it, a stage failed, or a stage
        is still to be done. An object that passes all stages is kept.
        """
        valid = {stage.name: self.valid(stage, columns) for stage in self.stages}
        good = {
            stage.name: valid[stage.name] & columns.one_of(stage.events.status, {"ok"})
            for stage in self.stages
        }
        known = {name: valid[FETCH.name] & where for name, where in good.items()}
        not_described = columns.one_of(LIST.status, {"failed"})
        known[LIST.stage] = ~not_described
        filters = _FilterResults(columns, self._config, known)
        removed = columns.one_of(REMOVE.status, {"ok"})
        traversal = _StageTraversal(len(columns))
        traversal.stop(removed, _DROPPED)
        traversal.failed[traversal.stop(not_described, _FAILED)] = 0
        traversal.stop(filters.drops_after(LIST.stage), _DROPPED)
        for index, stage in enumerate(self.stages):
            pending = traversal.stop(~valid[stage.name], _PENDING)
            if pending.any():
                traversal.require(index, pending, self._why(stage, columns))
                for source, file in self._files_for(stage):
                    # The measurements are stored, but a compaction deleted the file.
                    deleted = pending & ~columns.present(file.path)
                    traversal.require(self.stages.index(source), deleted, _COMPACTED)
            failed = traversal.stop(~good[stage.name], _FAILED)
            if failed.any():
                traversal.failed[failed] = index + 1
                retry = self._why_retry(stage, columns)
                traversal.require(index, failed & (retry > 0), retry)
            traversal.stop(filters.drops_after(stage.name), _DROPPED)
        return Decisions(
            columns=columns,
            stages=self.stages,
            state=traversal.state,
            stage=traversal.stage,
            why=traversal.why,
            failed=traversal.failed,
            reason=filters.first_reasons(removed, traversal.state == _DROPPED),
            reasons=[_REMOVED, *filters.reasons],
            filter_results=filters.filter_results,
            known=filters.known,
            valid=valid,
        )

    def _files_for(self, stage: Stage) -> list[tuple[Stage, ResultFile]]:
        """Return the stages whose files are kept until this stage has used them."""
        files = [(source, source.file) for source in self.stages if source.file is not None]
        return [(source, file) for source, file in files if file.until == stage.name]

    def _why(self, stage: Stage, columns: Columns) -> Int8[np.ndarray, "n"]:
        """Return, per object, why a stage must be done whose last event is not valid."""
        if stage is FETCH:
            changed = np.full(len(columns), _FILE)
        else:
            same = columns.same(stage.events.content, stage.input_version)
            changed = np.where(same, _CONFIGURATION, _BYTES)
        cleared = columns.one_of(stage.events.status, {CLEARED})
        damaged = cleared & columns.one_of(stage.events.kind, {FailureKind.SAMPLE_DAMAGED})
        why = np.where(columns.present(stage.events.status), changed, _NEW)
        why[cleared], why[damaged] = _RETRY, _DAMAGED
        return why.astype(np.int8)

    def _why_retry(self, stage: Stage, columns: Columns) -> Int8[np.ndarray, "n"]:
        """Return, per object, why a failed stage is retried; 0 if it is not."""
        why = np.zeros(len(columns), dtype=np.int8)
        limits = self.identities.limits_of(stage)
        if limits:
            limited = columns.one_of(stage.events.kind, stage.limited_kinds)
            other = ~columns.one_of(stage.events.limits, {limits})
            why[limited & other] = _LIMITS
        why[columns.one_of(stage.events.kind, _RETRIED)] = _RETRY
        return why


class _StageTraversal:
    """The traversal of the stages by n objects: where each stops, and which stage it needs."""

    def __init__(self, num: int) -> None:
        self.state = np.full(num, _KEPT, dtype=np.int8)
        self.stage, self.failed = (np.full(num, -1, dtype=np.int8) for _ in range(2))
        self.why = np.zeros(num, dtype=np.int8)
        self._active = np.ones(num, dtype=bool)

    def stop(self, where: Bool[np.ndarray, "n"], state: int) -> Bool[np.ndarray, "n"]:
        """Set the state of the active objects in `where` and end their traversal.

        Returns a mask of these objects.
        """
        stopped = self._active & where
        self.state[stopped] = state
        self._active = self._active & ~where
        return stopped

    def require(
        self, index: int, where: Bool[np.ndarray, "n"], why: Int8[np.ndarray, "n"] | int
    ) -> None:
        """Record the next stage of these objects, and why it must be done."""
        self.stage[where] = index
        self.why = np.where(where, why, self.why).astype(np.int8)


class _FilterResults:
    """The results of all filters on n objects, as far as their measurements are known."""

    def __init__(
        self,
        columns: Columns,
        config: BuildConfig,
        known: Mapping[str, Bool[np.ndarray, "n"]],
    ) -> None:
        self._none = np.zeros(len(columns), dtype=bool)
        self.filter_results = run_filters(columns, config.filters)
        stages = dict.fromkeys(filter_.needs for filter_, _ in self.filter_results)
        self.known = {stage: known.get(stage, self._none) for stage in stages}
        self._drops = [
            (filter_, reason, where & self.known[filter_.needs])
            for filter_, filter_result in self.filter_results
            for reason, where in filter_result.drops.items()
        ]
        self.reasons = [(filter_.name, reason) for filter_, reason, _ in self._drops]

    def drops_after(self, stage: str) -> Bool[np.ndarray, "n"]:
        """Return a mask of the objects that the filters on a stage's measurements drop."""
        dropped = self._none
        for filter_, _, where in self._drops:
            if filter_.needs == stage:
                dropped = dropped | where
        return dropped

    def first_reasons(
        self, removed: Bool[np.ndarray, "n"], dropped: Bool[np.ndarray, "n"]
    ) -> Int16[np.ndarray, "n"]:
        """Return the index of each dropped object's first reason; 0 if it was removed, else -1."""
        reason = np.full(len(removed), -1, dtype=np.int16)
        for index, (_, _, where) in reversed(list(enumerate(self._drops, start=1))):
            reason[where] = index
        reason[removed] = 0
        reason[~dropped] = -1
        return reason
