"""How many workers a run starts with, and when it restarts with more.

Ray Train's own elasticity takes any number of workers; only those that divide the global batch give
the same steps. So each start is of a fixed size, and a run that may have another size ends itself
with a checkpoint when the cluster has grown.
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
"""Longest wait for slots for the least number of workers: nodes with many GPUs start slowly."""
_RELEASE_SECONDS = 5.0
"""Time in which Ray frees the resources of workers that ended."""
_GROWTH_POLL_SECONDS = 60.0
"""Between two looks at whether the cluster has slots for more workers."""


def is_elastic(config: TrainConfig) -> bool:
    """Return whether the run may have more than one number of workers."""
    return len(config.worker_counts) > 1


def wait_for_slots(config: TrainConfig, stop_file: StopFile) -> int:
    """Wait until the cluster has slots for the run; return the largest number of workers that fits.

    A run of one size does not wait: Ray itself does, and its autoscaler adds nodes. Raises
    WorkFailed if there are too few slots in time, and Stopped if the run is asked to end.
    """
    least, most = config.worker_counts[0], config.worker_counts[-1]
    if not is_elastic(config):
        return most
    began, requested = time.monotonic(), False
    try:
        while True:
            if stop_file.is_requested():
                raise Stopped("stopped while the run waited for its workers' places")
            worker = worker_bundle(config, on_gpu=workers_have_gpus(config))
            slots, waited = free_slots(worker), time.monotonic() - began
            fitting = [size for size in config.worker_counts if size <= slots]
            if fitting and (fitting[-1] == most or waited > _RELEASE_SECONDS):
                return fitting[-1]
            if not fitting and not requested:
                _log.warning("waiting for room for %d workers, each %s", least, worker)
                request_nodes(worker, least)
                requested = True
            if waited > _WAIT_SECONDS:
                raise WorkFailed(
                    f"the cluster has room for {slots} workers, --num-workers "
                    f"{config.num_workers} wants at least {least}, each with {worker}"
                )
            time.sleep(1.0)
    finally:
        if requested:
            request_nodes(worker, 0)


@contextlib.contextmanager
def restart_on_growth(config: TrainConfig, size: int, stop_file: StopFile) -> Iterator[None]:
    """While the block runs with `size` workers, request a restart once a larger number fits."""
    larger = [count for count in config.worker_counts if count > size]
    if not larger:
        yield
        return
    over = threading.Event()
    worker = worker_bundle(config, on_gpu=workers_have_gpus(config))

    def poll() -> None:
        while not over.wait(_GROWTH_POLL_SECONDS):
            if size + free_slots(worker) >= larger[0]:
                _log.warning("room for %d workers: saving, to go on with more", larger[0])
                stop_file.request_restart()
                return

    thread = threading.Thread(target=poll, name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
