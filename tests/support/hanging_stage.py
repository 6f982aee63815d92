"""A stage that never ends for some objects: in Python, in a library, or in a stopped process."""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from core.config import Config
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.queues import Queue
from pipelines.building.stages.stage import Stage
from pipelines.building.stages.worker_context import WorkerContext


class HangingConfig(Config):
    """The objects that the stage never ends for."""

    sleeps: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    """Objects that wait in a library, which keeps Python's interpreter lock."""
    stops: tuple[str, ...] = ()
    """Objects that stop their process."""
    folder: str = ""
    """A file there gets the id of every process that stops."""


def lock_forever() -> None:
    """Wait in C for a lock that is never free, with the interpreter lock held."""
    library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


def _hang(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    settings = HANGING.settings_of(context.config)
    assert isinstance(settings, HangingConfig)
    if state.asset_id in settings.sleeps:
        time.sleep(10**6)
    if state.asset_id in settings.locks:
        lock_forever()
    if state.asset_id in settings.stops:
        (Path(settings.folder) / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return {}


HANGING = Stage(
    name="hanging",
    inputs=("fetch",),
    input_version=SHA256,
    settings=HangingConfig,
    queue=Queue(name="hanging", priority=1, resources=lambda _: {"CPU": 0.25}),
    run=_hang,
    max_seconds=lambda _: 1.0,
)
