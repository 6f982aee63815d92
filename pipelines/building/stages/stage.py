"""What a stage of a build is: one thing that is done to one object, and everything about it.

A new stage is a file in this folder that ends with a `Stage`, and one line in `stages.registry`.
Plan, status, inspect, cost, refresh, verify and compact follow from what it declares.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from core.config import Config
from core.storage import Storage
from dataset.catalog.event_columns import EventColumns
from dataset.catalog.event_log import Event
from dataset.columns import Column
from dataset.maintenance.shard_check import Report
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import Queue
from render.render_config import RENDERER_VERSION
from render.rigs import Rig

__all__ = ["FirstEstimate", "ResultFile", "RigScope", "Stage", "StoredBytes"]


class RigScope(Enum):
    """What of the rig a stage's result depends on."""

    NOTHING = "nothing"
    FRAME = "frame"
    """How the object is scaled and centred."""
    CAMERAS = "cameras"
    """Its cameras, which follow from the asset id as well."""


@dataclass(frozen=True, kw_only=True)
class FirstEstimate:
    """What a stage is expected to take for an object before the catalog has measured any."""

    seconds: float
    """Seconds of one worker."""
    num_bytes: float = 0.0
    """Bytes that it adds to the dataset."""
    share: float = 1.0
    """Share of the objects that passed the stage before and reach this one."""


@dataclass(frozen=True, kw_only=True)
class StoredBytes:
    """The bytes that a stage stores, as `lrm status` and the cost report count them."""

    column: Column[int]
    label: str
    """Its name in the JSON of `lrm status`."""
    is_output: bool = True
    """Whether they are part of the dataset: counted for kept objects only, and as its cost."""


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """The file below the dataset's root in which a stage's result lies."""

    place: tuple[Column[str], ...]
    """The column that names the file, then those that locate the result within the file."""
    folder: str
    """The first folder of its path: `lrm compact` deletes files there that nothing refers to."""
    required: bool = True
    """Whether the result is void without its file."""
    until: str = ""
    """The stage whose result makes the file superfluous: a build deletes it then. Empty if none
    does."""
    check: Callable[[Storage, str], Report] | None = None
    """Verifies a file of one object, for `lrm verify`; None if another stage's check covers it."""

    @property
    def path(self) -> Column[str]:
        """The column that names the file."""
        return self.place[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One stage of a build."""

    name: str
    """Stored with every event: never changes."""
    inputs: tuple[str, ...]
    """Stages whose results it reads; they come before it. They are no part of its identity: that
    is `made_from`."""
    made_from: Column[str]
    """The column that identifies what the result is made from, such as the file's sha256."""
    identity: Callable[[BuildConfig, Rig], Sequence[Any] | None] | None = None
    """Returns the versions and settings that the result depends on, as plain values: another value
    means that the stage has to be done again. None if it depends on nothing else. By default the
    version and those of the stage's own `settings` that differ from their defaults."""
    version: int = 1
    """For the default identity: raise it when the same settings give another result."""
    rig: RigScope = RigScope.NOTHING
    settings: type[Config] | None = None
    """Settings of a stage that has no section of its own in `BuildConfig`: see
    `BuildConfig.stages`."""
    option: str = "--stages"
    """The option that asks for the stage, for messages."""
    is_wanted: Callable[[BuildConfig], bool] | None = None
    """Whether a build passes its objects through the stage. By default, if `--stages` names it."""
    columns: tuple[Column[Any], ...] = ()
    """What later stages, plans and reports need of an event's data."""
    queue: Queue
    run: Callable[[ObjectState, Any], dict[str, Any]] | None = None
    """(object, WorkerContext) -> data of the event. Raises StageFailed."""
    run_group: Callable[[Sequence[ObjectState], Any], list[Event]] | None = None
    """Instead of `run`: does several objects as one task; returns their events."""
    uses_blender: bool = False
    """Its failures may depend on the limits of the Blender child."""
    uses_gpu: bool = False
    """Uses the GPU that its queue reserves, if it reserves one."""
    estimate: Callable[[BuildConfig], FirstEstimate] = lambda _: FirstEstimate(seconds=1.0)
    stores: StoredBytes | None = None
    file: ResultFile | None = None

    @cached_property
    def events(self) -> EventColumns:
        """The columns that every stage has."""
        return EventColumns(self.name)

    def wanted(self, config: BuildConfig) -> bool:
        """Return whether a build passes its objects through the stage."""
        if self.is_wanted is not None:
            return self.is_wanted(config)
        return self.name in config.stages

    def settings_of(self, config: BuildConfig) -> Config:
        """Return the stage's own settings. Raises BadInput for what it does not know."""
        kind = self.settings or Config
        return kind.load(config.stages.get(self.name, {}), where=f"--stages: {self.name}")

    def identity_of(self, config: BuildConfig, rig: Rig) -> Sequence[Any] | None:
        """Return what the result depends on beside the object's bytes."""
        if self.identity is not None:
            return self.identity(config, rig)
        own = self.settings_of(config).model_dump(mode="json", exclude_defaults=True)
        scope = {
            RigScope.NOTHING: [],
            RigScope.FRAME: [rig.normalise],
            RigScope.CAMERAS: [rig.name, rig.version, rig.normalise],
        }
        # The renderer's version says how a file becomes a scene.
        renderer = [RENDERER_VERSION] if self.uses_blender else []
        return [self.version, *renderer, scope[self.rig], own]

    def reserves(self, config: BuildConfig) -> dict[str, float]:
        """Return the cores or GPUs that a task holds while it runs, by the name of their hours.

        A stage on a GPU counts as GPU-hours alone: its cores come with the GPU.
        """
        resources = self.queue.resources(config)
        if self.uses_gpu and "GPU" in resources:
            return {"gpu_hours": resources["GPU"]}
        return {"core_hours": resources["CPU"]}
