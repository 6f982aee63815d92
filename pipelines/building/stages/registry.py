"""The registry of stages, in the order in which an object passes them.

A new stage is a file in this folder and one line here. Code outside the project registers its own
stages with `STAGES.add`.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from core.choices import choose
from core.errors import BadInput
from dataset.catalog.event_columns import LIST, REMOVE
from dataset.root import DATASET_FOLDERS
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.fetch import FETCH
from pipelines.building.stages.geometry import GEOMETRY
from pipelines.building.stages.inspect import INSPECT
from pipelines.building.stages.measure import MEASURE
from pipelines.building.stages.pack import PACK
from pipelines.building.stages.queues import Queue
from pipelines.building.stages.render import RENDER
from pipelines.building.stages.stage import Stage

__all__ = ["STAGES", "StageRegistry"]

_VERIFY_KEYS = frozenset({"bytes", "damaged", "findings", "samples", "shards"})
"""Keys in the JSON of `lrm verify`, which also has the name of each stage with companion files."""


class StageRegistry:
    """An ordered collection of stages with unique names."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._stages: list[Stage] = []
        self._added: list[Stage] = []
        for stage in stages:
            self._insert(len(self._stages), stage)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages)

    def __getitem__(self, name: str) -> Stage:
        """Return the stage with this name. Raises KeyError if there is none."""
        stage = self.find(name)
        if stage is None:
            raise KeyError(name)
        return stage

    def find(self, name: str) -> Stage | None:
        """Return the stage with this name; None if there is none."""
        return next((stage for stage in self._stages if stage.name == name), None)

    def add(self, stage: Stage) -> None:
        """Register a stage, which objects pass before they are packed.

        Raises ValueError if its declaration is invalid or conflicts with that of another stage.
        """
        if stage.run_group is not None:
            raise ValueError(f"stage {stage.name}: run_group is reserved for the project's stages")
        if stage.file is not None and stage.file.until and self.find(stage.file.until) is None:
            raise ValueError(f"stage {stage.name}: there is no stage {stage.file.until}")
        groups = [index for index, other in enumerate(self._stages) if other.run_group]
        self._insert(min(groups, default=len(self._stages)), stage)
        self._added.append(stage)

    def remove(self, stage: Stage) -> None:
        """Remove an added stage from the registry."""
        self._added.remove(stage)
        self._stages.remove(stage)

    @property
    def added(self) -> tuple[Stage, ...]:
        """The stages that were added to those of the project."""
        return tuple(self._added)

    def match(self, added: Iterable[Stage]) -> None:
        """Replace the added stages by these: a worker registers those of its driver."""
        added = tuple(added)
        # Every task carries copies; a worker keeps the first ones and the values cached for them.
        if [stage.name for stage in added] == [stage.name for stage in self._added]:
            return
        for stage in self.added:
            self.remove(stage)
        for stage in added:
            self.add(stage)

    def enabled(self, config: BuildConfig) -> tuple[Stage, ...]:
        """Return the stages of one build, in their order.

        Raises BadInput if `--stages` names an unknown stage, or if a stage needs another one that
        the build does not include.
        """
        added = {stage.name: stage for stage in self._added}
        for name in config.stages:
            if not added:
                raise BadInput(
                    f"--stages: {name}: this stage is not registered: run a script that calls "
                    "STAGES.add"
                )
            choose("--stages: stage", name, added)
            added[name].settings_of(config)
        enabled = tuple(stage for stage in self._stages if stage.is_enabled(config))
        names = {LIST.stage, *(stage.name for stage in enabled)}
        for stage in enabled:
            for missing in set(stage.inputs) - names:
                option = self[missing].option
                raise BadInput(f"stage {stage.name} needs the stage {missing}: add {option}")
        return enabled

    def queues(self, config: BuildConfig) -> Sequence[Queue]:
        """Return the queues of a build, highest priority first."""
        queues = dict.fromkeys(stage.queue for stage in self.enabled(config))
        return sorted(queues, key=lambda queue: -queue.priority)

    def _insert(self, index: int, stage: Stage) -> None:
        before = {LIST.stage, *(other.name for other in self._stages[:index])}
        problem = (
            _problem_of_declaration(stage, before)
            or _problem_of_queue(stage, self._stages)
            or _problem_of_files(stage, self._stages)
        )
        if problem:
            raise ValueError(f"stage {stage.name}: {problem}")
        self._stages.insert(index, stage)


def _problem_of_declaration(stage: Stage, before: Collection[str]) -> str:
    """Return the problem of a stage's declaration; empty if there is none.

    `before` are the names of the earlier stages.
    """
    reserved = {column.name for column in (*stage.events.of_event, *stage.events.of_data)}
    for name in stage.inputs:
        if name not in before:
            return f"its input {name} is not an earlier stage"
    if (stage.run is None) == (stage.run_group is None):
        return "needs either run or run_group"
    for column in stage.columns:
        if column.stage != stage.name:
            return f"the column {column.key} belongs to another stage"
        if column.name in {"seq", "asset_id", *reserved}:
            return f"the column name of {column.key} is reserved: every stage has such a column"
    stored = () if stage.stores is None else (stage.stores.column,)
    for column in (*stored, *(stage.file.location if stage.file else ())):
        if column not in stage.columns:
            return f"the column {column.key} is missing in its `columns`"
    return ""


def _problem_of_queue(stage: Stage, others: Iterable[Stage]) -> str:
    """Return the conflict of a stage's queue with those of others; empty if there is none."""
    for other in others:
        if other.queue.name == stage.queue.name:
            if other.queue != stage.queue:
                return f"its queue {stage.queue.name} differs from that of the stage {other.name}"
            if other.run_group is not None or stage.run_group is not None:
                return f"its queue {stage.queue.name} is for groups of objects"
    return ""


def _problem_of_files(stage: Stage, others: Sequence[Stage]) -> str:
    """Return the conflict of a stage's names or files with others; empty if there is none."""
    if stage.name in {LIST.stage, REMOVE.stage, *(other.name for other in others)}:
        return "the name is taken"
    if stage.name in _VERIFY_KEYS:
        return "the name is reserved: it is a key in the JSON of `lrm verify`"
    labels = {other.stores.label for other in others if other.stores is not None}
    if stage.stores is not None and stage.stores.label in labels:
        return f"its label {stage.stores.label} is taken"
    if stage.file is not None:
        folder = stage.file.folder
        taken = {other.file.folder for other in others if other.file is not None}
        # `lrm compact` deletes what nothing refers to in these folders.
        if not re.fullmatch(r"[a-z][a-z0-9_]*", folder) or folder in {*DATASET_FOLDERS, *taken}:
            return f"its folder {folder!r} is taken, or is not a name of a-z, 0-9 and _"
    return ""


STAGES = StageRegistry((FETCH, INSPECT, MEASURE, RENDER, GEOMETRY, PACK))
