"""The number of training workers of each start, and restarts with more workers.

Ray Train's own elasticity accepts any number of workers, but only numbers that divide the global
batch give the same steps. Therefore each start has a fixed number of workers. When an elastic run
could have more, it saves a checkpoint, ends, and is started again.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from core.errors import Stopped, WorkFailed
from pipelines.launch.cluster_resources import (
    free_slots,
    request_nodes,
    worker_bundle,
    workers_have_gpus,
)
from train.resilience.stop_file import StopFile
from train.settings.train_config import TrainConfig

__all__ = ["is_elastic", "restart_on_growth", "wait_for_slots"]

_log = logging.getLogger(__name__)

_WAIT_SECONDS = 1800.0
"""Maximum wait for the smallest number of workers to fit: nodes with many GPUs start slowly."""
_RELEASE_SECONDS = 5.0
"""Time in which Ray frees the resources of workers that have ended."""
_GROWTH_POLL_SECONDS = 60.0
"""Interval at which a running, elastic run checks for free slots."""


def is_elastic(config: TrainConfig) -> bool:
    """Return whether the configuration allows more than one number of workers."""
    return len(config.worker_counts) > 1


def wait_for_slots(config: TrainConfig, stop_file: StopFile) -> int:
    """Wait for enough free slots; return the largest allowed number of workers that fits.

    A run with a fixed number of workers returns at once: Ray itself waits, and its autoscaler adds
    nodes. Raises WorkFailed if there are too few slots after 30 minutes, and Stopped if the stop
    file requests an end.
    """
    smallest, largest = config.worker_counts[0], config.worker_counts[-1]
    if not is_elastic(config):
        return largest
    started, requested = time.monotonic(), False
    try:
        while True:
            if stop_file.is_requested():
                raise Stopped("stopped while the run waited for free slots for its workers")
            worker = worker_bundle(config, on_gpu=workers_have_gpus(config))
            slots, waited = free_slots(worker), time.monotonic() - started
            fitting = [size for size in config.worker_counts if size <= slots]
            # Resources of workers that have just ended may not be free yet.
            if fitting and (fitting[-1] == largest or waited > _RELEASE_SECONDS):
                return fitting[-1]
            if not fitting and not requested:
                _log.warning("waiting for free slots: %d needed, each with %s", smallest, worker)
                request_nodes(worker, smallest)
                requested = True
            if waited > _WAIT_SECONDS:
                raise WorkFailed(
                    f"too few free slots in the cluster: {slots}, but --num-workers "
                    f"{config.num_workers} needs at least {smallest}, each with {worker}: add "
                    "nodes, or allow fewer workers"
                )
            time.sleep(1.0)
    finally:
        # An autoscaler request stays active until it is replaced.
        if requested:
            request_nodes(worker, 0)


@contextlib.contextmanager
def restart_on_growth(config: TrainConfig, size: int, stop_file: StopFile) -> Iterator[None]:
    """Request a restart as soon as more than `size` workers fit, while the block runs."""
    larger = [count for count in config.worker_counts if count > size]
    if not larger:
        yield
        return
    ended = threading.Event()
    worker = worker_bundle(config, on_gpu=workers_have_gpus(config))

    def poll() -> None:
        while not ended.wait(_GROWTH_POLL_SECONDS):
            if size + free_slots(worker) >= larger[0]:
                _log.warning(
                    "free slots for %d workers: saving a checkpoint to restart with them", larger[0]
                )
                stop_file.request_restart()
                return

    thread = threading.Thread(target=poll, name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
