"""The stages of a build, in the order in which an object passes them.

A new stage is a file in this folder and one line here. Code outside the project adds its own with
`STAGES.add`.
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

_COUNTED = frozenset({"bytes", "damaged", "findings", "samples", "shards"})


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
        """Return the stage of that name. Raises KeyError if there is none."""
        stage = self.find(name)
        if stage is None:
            raise KeyError(name)
        return stage

    def find(self, name: str) -> Stage | None:
        """Return the stage of that name; None if there is none."""
        return next((stage for stage in self._stages if stage.name == name), None)

    def add(self, stage: Stage) -> None:
        """Register a stage: objects pass it before they are packed.

        Raises ValueError if its declaration is wrong or does not fit to the other stages'.
        """
        if stage.run_group is not None:
            raise ValueError(f"stage {stage.name}: only the project's own stages take groups")
        if stage.file is not None and stage.file.until and self.find(stage.file.until) is None:
            raise ValueError(f"stage {stage.name}: there is no stage {stage.file.until}")
        groups = [place for place, found in enumerate(self._stages) if found.run_group]
        self._insert(min(groups, default=len(self._stages)), stage)
        self._added.append(stage)

    def remove(self, stage: Stage) -> None:
        """Take an added stage out of the registry again."""
        self._added.remove(stage)
        self._stages.remove(stage)

    @property
    def added(self) -> tuple[Stage, ...]:
        """The stages that were added to those of the project."""
        return tuple(self._added)

    def match(self, added: Iterable[Stage]) -> None:
        """Register these stages beside those of the project: in a worker, those of its driver."""
        added = tuple(added)
        # Every task brings copies; a worker keeps the first ones and what it computed for them.
        if [stage.name for stage in added] == [stage.name for stage in self._added]:
            return
        for stage in self.added:
            self.remove(stage)
        for stage in added:
            self.add(stage)

    def wanted(self, config: BuildConfig) -> tuple[Stage, ...]:
        """Return the stages of one build, in their order.

        Raises BadInput if `--stages` names an unknown one, or if an input of one is not wanted.
        """
        own = {stage.name: stage for stage in self._added}
        for name in config.stages:
            if not own:
                raise BadInput(f"--stages: {name}: no package has added a stage")
            choose("--stages: stage", name, own)
            own[name].settings_of(config)
        wanted = tuple(stage for stage in self._stages if stage.wanted(config))
        names = {LIST.stage, *(stage.name for stage in wanted)}
        for stage in wanted:
            for missing in set(stage.inputs) - names:
                option = self[missing].option
                raise BadInput(f"stage {stage.name} needs the stage {missing}: add {option}")
        return wanted

    def queues(self, config: BuildConfig) -> Sequence[Queue]:
        """Return the queues of a build, the one that is served first in front."""
        found = dict.fromkeys(stage.queue for stage in self.wanted(config))
        return sorted(found, key=lambda queue: -queue.priority)

    def _insert(self, place: int, stage: Stage) -> None:
        before = {LIST.stage, *(found.name for found in self._stages[:place])}
        problem = (
            _problem_alone(stage, before)
            or _problem_of_queue(stage, self._stages)
            or _problem_of_files(stage, self._stages)
        )
        if problem:
            raise ValueError(f"stage {stage.name}: {problem}")
        self._stages.insert(place, stage)


def _problem_alone(stage: Stage, before: Collection[str]) -> str:
    """Return what is wrong with a stage by itself; empty if nothing is."""
    reserved = {column.name for column in (*stage.events.of_event, *stage.events.of_data)}
    for name in stage.inputs:
        if name not in before:
            return f"its input {name} does not come before it"
    if (stage.run is None) == (stage.run_group is None):
        return "needs either run or run_group"
    for column in stage.columns:
        if column.stage != stage.name:
            return f"the column {column.key} is of another stage"
        if column.name in {"seq", "asset_id", *reserved}:
            return f"the column {column.key} is one that every stage has"
    stored = () if stage.stores is None else (stage.stores.column,)
    for column in (*stored, *(stage.file.place if stage.file else ())):
        if column not in stage.columns:
            return f"the column {column.key} is not among its columns"
    return ""


def _problem_of_queue(stage: Stage, others: Iterable[Stage]) -> str:
    """Return what is wrong with the queue of a stage beside those of others."""
    for other in others:
        if other.queue.name == stage.queue.name:
            if other.queue != stage.queue:
                return f"its queue {stage.queue.name} is another one than that of {other.name}"
            if other.run_group is not None or stage.run_group is not None:
                return f"the tasks of its queue {stage.queue.name} are groups of objects"
    return ""


def _problem_of_files(stage: Stage, others: Sequence[Stage]) -> str:
    """Return what is wrong with the names of a stage and its files beside those of others."""
    if stage.name in {LIST.stage, REMOVE.stage, *(other.name for other in others)}:
        return "the name is taken"
    if stage.name in _COUNTED:
        return "the name is that of a number in the JSON of `lrm verify`"
    labels = {other.stores.label for other in others if other.stores is not None}
    if stage.stores is not None and stage.stores.label in labels:
        return f"its label {stage.stores.label} is taken"
    if stage.file is not None:
        folder = stage.file.folder
        taken = {other.file.folder for other in others if other.file is not None}
        # `lrm compact` deletes what nothing refers to in these folders.
        if not re.fullmatch(r"[a-z][a-z0-9_]*", folder) or folder in {*DATASET_FOLDERS, *taken}:
            return f"its folder {folder!r} is taken, or no plain name"
    return ""


STAGES = StageRegistry((FETCH, INSPECT, MEASURE, RENDER, GEOMETRY, PACK))
