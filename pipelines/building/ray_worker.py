"""The part of a build that runs in a worker process of Ray."""

from collections.abc import Callable

from dataset.catalog.event_log import Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import Stage
from pipelines.building.stages.worker_context import WorkerContext
from pipelines.building.tasks import Task
from pipelines.sources import Source

__all__ = ["Work", "run_on_worker"]

Work = Callable[[Task, WorkerContext], list[Event]]
"""Does a task on a worker and returns its events."""


class _Contexts:
    """The worker context of a Ray worker process: one per build, kept between tasks."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._context: WorkerContext | None = None

    def get(self, config: BuildConfig, source: Source) -> WorkerContext:
        """Return the context of this build. The context of another build is closed first."""
        key = config.digest()
        if self._context is None or self._key != key:
            if self._context is not None:
                self._context.close()
            self._context, self._key = WorkerContext(config, source), key
        return self._context


_CONTEXTS = _Contexts()


def run_on_worker(
    setup: tuple[BuildConfig, Source, Work, tuple[Stage, ...]], task: Task
) -> list[Event]:
    """Run a task of a build, whose settings and added stages are `setup`."""
    config, source, work, stages = setup
    STAGES.match(stages)
    return work(task, _CONTEXTS.get(config, source))
