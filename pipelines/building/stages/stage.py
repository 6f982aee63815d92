"""The declaration of a stage: one step of a build on one object, and all that others need of it.

A new stage is a file in this folder that ends with a `Stage`, and one line in `stages.registry`.
Plan, status, inspect, cost, refresh, verify and compact use only what it declares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from core.config import Config
from core.failures import FailureKind, Retry, kinds_with_retry
from core.storage import Storage
from dataset.catalog.event_columns import EventColumns
from dataset.catalog.event_log import Event
from dataset.columns import Column
from dataset.maintenance.shard_check import CheckReport
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.identity_keys import IdentityKey
from pipelines.building.stages.max_seconds import default_seconds
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import Queue
from render.render_config import RENDERER_VERSION
from render.rigs import Rig

__all__ = ["FirstEstimate", "ResultFile", "RigScope", "Stage", "StoredBytes"]


class RigScope(Enum):
    """The part of the rig that a stage's result depends on."""

    NOTHING = "nothing"
    FRAME = "frame"
    """The frame: how the object is scaled and centred."""
    CAMERAS = "cameras"
    """The frame and the cameras, which also depend on the asset id."""


@dataclass(frozen=True, kw_only=True)
class FirstEstimate:
    """The expected cost of a stage per object under some settings.

    It is used until the catalog has measurements. Measurements under other settings are scaled by
    the ratio of the estimates under both, part by part.
    """

    seconds: float
    """Time of one worker for all parts, in seconds."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the timed parts that depend on the settings. The names are those of the `timings`
    in the stage's events; parts that run at the same time must not both be listed."""
    num_bytes: float = 0.0
    """Bytes that the stage adds to the dataset."""
    share: float = 1.0
    """The share of the objects that passed the previous stage and reach this one."""


@dataclass(frozen=True, kw_only=True)
class StoredBytes:
    """The bytes that a stage stores, as counted by `lrm status` and the cost report."""

    column: Column[int]
    label: str
    """The name of the sum in the JSON of `lrm status`."""
    is_output: bool = True
    """Whether the bytes are part of the dataset: counted for kept objects only, and as a cost."""


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """The file below the dataset's root that holds a stage's result."""

    location: tuple[Column[str], ...]
    """The column with the file's path, then those that locate the result within the file."""
    folder: str
    """The first folder of the path. `lrm compact` deletes files there that nothing refers to."""
    required: bool = True
    """Whether the result is invalid without its file."""
    until: str = ""
    """The stage after which the file is no longer needed: a build deletes it then. Empty if the
    file is kept."""
    check: Callable[[Storage, str], CheckReport] | None = None
    """Verifies one object's file, for `lrm verify`; None if another stage's check covers it."""

    @property
    def path(self) -> Column[str]:
        """The column with the file's path."""
        return self.location[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One stage of a build."""

    name: str
    """The name stored with every event. Must never change."""
    inputs: tuple[str, ...]
    """Names of the earlier stages whose results it reads. They are not part of its identity, which
    comes from `input_version`."""
    input_version: Column[str]
    """The column whose value identifies the input of the stage, such as the file's sha256."""
    identity: Callable[[BuildConfig, Rig], Sequence[Any] | None] | None = None
    """Returns the versions and settings that the result depends on, as plain values. If they
    change, the stage must be done again. Returns None if the result depends on the input alone. The
    default is `version`, the rig's part in `rig`, and the stage's `settings` that differ from their
    defaults."""
    version: int = 1
    """Part of the identity: increment when the same settings give another result."""
    rig: RigScope = RigScope.NOTHING
    settings: type[Config] | None = None
    """The settings of a stage without a section in `BuildConfig`; see `BuildConfig.stages`."""
    option: str = "--stages"
    """The option that enables the stage, for error messages."""
    enabled_by: Callable[[BuildConfig], bool] | None = None
    """Returns whether a build includes the stage. By default, if `--stages` names it."""
    columns: tuple[Column[Any], ...] = ()
    """The columns that later stages, plans and reports need of an event's data."""
    queue: Queue
    run: Callable[[ObjectState, Any], dict[str, Any]] | None = None
    """(object, WorkerContext) -> data of the event. Raises StageFailed."""
    run_group: Callable[[Sequence[ObjectState], Any], list[Event]] | None = None
    """Used instead of `run` by a stage that processes several objects as one task. Returns their
    events."""
    max_seconds: Callable[[BuildConfig], float] = default_seconds
    """Returns the seconds that one attempt at an object may take, or at a group of them. A task
    that takes longer hangs: it is ended, and the object fails with `timeout_kind`."""
    timeout_kind: FailureKind = FailureKind.TIMEOUT
    uses_blender: bool = False
    """Whether the stage uses the Blender child, whose limits may then be the cause of a failure."""
    limit_keys: tuple[IdentityKey, ...] = ()
    """The limits of a stage without Blender that may be the cause of a failure; with other values
    of them, the next build tries again."""
    limited_kinds: frozenset[FailureKind] = kinds_with_retry(Retry.OTHER_LIMITS)
    """The failure kinds that limits may cause in this stage."""
    uses_gpu: bool = False
    """Whether the stage uses the GPU that its queue reserves, if it reserves one."""
    estimate: Callable[[BuildConfig], FirstEstimate] = lambda _: FirstEstimate(seconds=1.0)
    stores: StoredBytes | None = None
    file: ResultFile | None = None

    @cached_property
    def events(self) -> EventColumns:
        """The columns that the events of every stage have."""
        return EventColumns(self.name)

    def is_enabled(self, config: BuildConfig) -> bool:
        """Return whether a build includes the stage."""
        if self.enabled_by is not None:
            return self.enabled_by(config)
        return self.name in config.stages

    def settings_of(self, config: BuildConfig) -> Config:
        """Return the settings that `--stages` gives for the stage. Raises BadInput."""
        kind = self.settings or Config
        return kind.load(config.stages.get(self.name, {}), where=f"--stages: {self.name}")

    def identity_of(self, config: BuildConfig, rig: Rig) -> Sequence[Any] | None:
        """Return the versions and settings that the result depends on; None if on none."""
        if self.identity is not None:
            return self.identity(config, rig)
        own = self.settings_of(config).model_dump(mode="json", exclude_defaults=True)
        scope = {
            RigScope.NOTHING: [],
            RigScope.FRAME: [rig.normalise],
            RigScope.CAMERAS: [rig.name, rig.version, rig.normalise],
        }
        # The way in which a file becomes a scene depends on the renderer's version.
        renderer = [RENDERER_VERSION] if self.uses_blender else []
        return [self.version, *renderer, scope[self.rig], own]

    def reserves(self, config: BuildConfig) -> dict[str, float]:
        """Return the number of cores or GPUs that a task reserves, by the name of their hours.

        For a stage that uses a GPU only GPU-hours count: the cores come with the GPU.
        """
        resources = self.queue.resources(config)
        if self.uses_gpu and "GPU" in resources:
            return {"gpu_hours": resources["GPU"]}
        return {"core_hours": resources["CPU"]}
