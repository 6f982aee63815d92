"""The queues of tasks: the resources that a task reserves, and the priority of its queue."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.building.build_config import BuildConfig
from pipelines.sources import is_hub

__all__ = ["FETCH_QUEUE", "PACK_QUEUE", "RENDER_QUEUE", "Queue"]


def _unlimited(config: BuildConfig) -> int | None:  # noqa: ARG001 - one signature
    return None


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue of tasks that reserve the same resources.

    A task runs all stages of its queue for one object.
    """

    name: str
    priority: int
    """Queues with a higher priority are served first: work that frees disk space comes first."""
    resources: Callable[[BuildConfig], dict[str, float]]
    """Returns the resources that a task reserves, by Ray's names; always includes `CPU`."""
    max_tasks: Callable[[BuildConfig], int | None] = _unlimited
    """Returns the maximum number of tasks in flight on any cluster; None for no limit."""


def _fetch_resources(config: BuildConfig) -> dict[str, float]:
    return {"CPU": config.execution.fetch_cpus, **config.execution.fetch_resources}


def _fetch_tasks(config: BuildConfig) -> int | None:
    # The hub limits the rate of requests: further downloads would wait until they time out.
    return config.fetch.in_flight(os.cpu_count() or 1) if is_hub(config.source) else None


def _render_resources(config: BuildConfig) -> dict[str, float]:
    execution = config.execution
    resources = {"CPU": float(config.blender.threads), **execution.render_resources}
    if config.render.device == "gpu":
        resources["GPU"] = execution.render_gpus
    if execution.render_memory:
        resources["memory"] = execution.render_memory
    return resources


def _pack_resources(config: BuildConfig) -> dict[str, float]:
    return {"CPU": 1.0, **config.execution.pack_resources}


FETCH_QUEUE = Queue(name="fetch", priority=0, resources=_fetch_resources, max_tasks=_fetch_tasks)
RENDER_QUEUE = Queue(name="render", priority=1, resources=_render_resources)
"""The queue of the stages that use the Blender child: they share its open scene."""
PACK_QUEUE = Queue(name="pack", priority=2, resources=_pack_resources)
