"""The number of training workers of each start, and restarts with more workers.

Ray Train's own elasticity accepts any number of workers, but only numbers that divide the global
batch give the same steps. Therefore each start has a fixed number of workers. When an elastic run
could have more, it saves a checkpoint, ends, and is started again.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping

from core.errors import BadInput, Stopped
from pipelines.launch.cluster_resources import (
    count_slots,
    free_slots,
    has_gpus,
    machine_resources,
    request_nodes,
    worker_bundle,
    workers_have_gpus,
)
from train.resilience.stop_file import StopFile
from train.settings.train_config import TrainConfig

__all__ = ["check_machine", "restart_on_growth", "wait_for_slots"]

_log = logging.getLogger(__name__)

_LINE_SECONDS = 30.0
"""Interval of the lines that a waiting run prints."""
_RELEASE_SECONDS = 5.0
"""Time in which Ray frees the resources of workers that have ended."""
_GROWTH_POLL_SECONDS = 60.0
"""Interval at which a running, elastic run checks for free slots."""


def check_machine(config: TrainConfig) -> None:
    """Raise BadInput if this machine cannot hold the smallest allowed number of workers.

    For a Ray that the run starts on this machine: no node can join it later.
    """
    machine, smallest = machine_resources(), config.worker_counts[0]
    worker = worker_bundle(config, on_gpu=has_gpus([machine], config.worker_resources))
    slots = count_slots(worker, [machine])
    if slots >= smallest:
        return
    available = {kind: machine.get(kind, 0) for kind in worker}
    raise BadInput(
        f"--num-workers {config.num_workers}: too many for this machine: {smallest} needed, "
        f"{slots} fit; each needs {_text(worker)}, the machine has {_text(available)}; use fewer "
        "workers, smaller --worker-resources, or a cluster (--address auto)"
    )


def wait_for_slots(config: TrainConfig, stop_file: StopFile) -> int:
    """Wait for enough free slots; return the largest allowed number of workers that fits.

    A line reports the wait every 30 seconds. Meanwhile an autoscaler request is active, so that a
    cluster that can grow adds nodes; others may get nodes by hand, so there is no time limit.
    Raises Stopped if the stop file requests an end.
    """
    smallest, largest = config.worker_counts[0], config.worker_counts[-1]
    started, num_lines, requested = time.monotonic(), 0, False
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
                request_nodes(worker, smallest)
                requested = True
            if not fitting and waited >= num_lines * _LINE_SECONDS:
                num_lines += 1
                _log.warning(
                    "waiting for free slots: %d workers needed, %d fit; each needs %s",
                    *(smallest, slots, _text(worker)),
                )
            time.sleep(1.0)
    finally:
        # An autoscaler request stays active until it is replaced.
        if requested:
            request_nodes(worker, 0)


def _text(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {amount:g}" for kind, amount in resources.items())


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
