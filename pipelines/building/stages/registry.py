"""The stages of a build, in the order in which an object passes them.

A new stage is a file in this folder and one line here. Code outside the project adds its own with
`STAGES.add`.
"""

from collections.abc import Iterable, Iterator, Sequence

from core.choices import choose
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


class StageRegistry:
    """An ordered collection of stages with unique names."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._stages: list[Stage] = []
        self._added: list[Stage] = []
        for stage in stages:
            self._insert(len(self._stages), stage)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    def find(self, name: str) -> Stage | None:
        """Return the stage of that name; None if there is none."""
        return next((stage for stage in self._stages if stage.name == name), None)

    def add(self, stage: Stage) -> None:
        """Register a stage: objects pass it before they are packed.

        Raises ValueError if its name is taken, or one of its inputs does not come before it.
        """
        last = len(self._stages)
        groups = [place for place, found in enumerate(self._stages) if found.run_group]
        self._insert(min(groups, default=last), stage)
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
        """Have these stages beside those of the project: in a worker, those of its driver."""
        for stage in self.added:
            self.remove(stage)
        for stage in added:
            self.add(stage)

    def wanted(self, config: BuildConfig) -> tuple[Stage, ...]:
        """Return the stages of one build. Raises BadInput if `--stages` names an unknown one."""
        own = {stage.name: stage for stage in self._stages if stage.is_wanted is None}
        for name in config.stages:
            choose("--stages: stage", name, own)
            own[name].settings_of(config)
        return tuple(stage for stage in self._stages if stage.wanted(config))

    def queues(self) -> Sequence[Queue]:
        """Return the queues of the stages, the one that is served first in front."""
        found = dict.fromkeys(stage.queue for stage in self._stages)
        return sorted(found, key=lambda queue: -queue.priority)

    def _insert(self, place: int, stage: Stage) -> None:
        before = {"list", *(found.name for found in self._stages[:place])}
        if stage.name in before or self.find(stage.name) is not None:
            raise ValueError(f"stage {stage.name}: the name is taken")
        missing = [name for name in stage.inputs if name not in before]
        if missing:
            raise ValueError(f"stage {stage.name}: its input {missing[0]} does not come before it")
        if (stage.run is None) == (stage.run_group is None):
            raise ValueError(f"stage {stage.name}: needs either run or run_group")
        wrong = [column.key for column in stage.columns if column.stage != stage.name]
        if wrong:
            raise ValueError(f"stage {stage.name}: the column {wrong[0]} is of another stage")
        self._stages.insert(place, stage)


STAGES = StageRegistry((FETCH, INSPECT, MEASURE, RENDER, GEOMETRY, PACK))
