"""The queues of tasks: which resources a task reserves, and which queue is served first."""

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
    """Tasks that reserve the same resources; a task does all stages of its queue for an object."""

    name: str
    priority: int
    """Queues with a higher number are served first: what frees space before what fills it."""
    resources: Callable[[BuildConfig], dict[str, float]]
    """What a task reserves, under Ray's names; `CPU` is always among them."""
    max_tasks: Callable[[BuildConfig], int | None] = _unlimited
    """Most tasks in flight, whatever the cluster has capacity for; None for no limit."""


def _fetch_resources(config: BuildConfig) -> dict[str, float]:
    return {"CPU": config.execution.fetch_cpus, **config.execution.fetch_resources}


def _fetch_tasks(config: BuildConfig) -> int | None:
    # A hub allows a number of requests and no more: further downloads would only wait, until they
    # time out.
    return config.fetch.in_flight(os.cpu_count() or 1) if is_hub(config.source) else None


def _render_resources(config: BuildConfig) -> dict[str, float]:
    execution = config.execution
    found = {"CPU": float(config.blender.threads), **execution.render_resources}
    if config.render.device == "gpu":
        found["GPU"] = execution.render_gpus
    if execution.render_memory:
        found["memory"] = execution.render_memory
    return found


def _pack_resources(config: BuildConfig) -> dict[str, float]:
    return {"CPU": 1.0, **config.execution.pack_resources}


FETCH_QUEUE = Queue(name="fetch", priority=0, resources=_fetch_resources, max_tasks=_fetch_tasks)
RENDER_QUEUE = Queue(name="render", priority=1, resources=_render_resources)
"""Stages that use the Blender child: they share its open scene."""
PACK_QUEUE = Queue(name="pack", priority=2, resources=_pack_resources)
