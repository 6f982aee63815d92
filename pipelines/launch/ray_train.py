"""The start of the training loop (train.loop.engine), in this process or on Ray Train's workers."""

import logging
import os
import socket
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.errors import BadInput, FinalFailure, LrmError, WorkFailed
from core.storage import Storage
from pipelines.launch.cluster_resources import worker_bundle, workers_have_gpus
from pipelines.launch.elasticity import is_elastic, restart_on_growth, wait_for_slots
from pipelines.ray_session import ray_session
from train.checkpoints.checkpoint import checkpoint_names, checkpoint_step
from train.checkpoints.checkpoint_paths import checkpoint_storage
from train.checkpoints.pinned_snapshot import pin_snapshot
from train.loop.engine import Recipe, train
from train.loop.preflight import preflight
from train.monitoring.metrics_log import read_metrics
from train.monitoring.progress_line import ProgressPrinter, progress_line
from train.recipes.registry import make_recipe
from train.resilience.stop_file import StopFile
from train.resilience.stopping import signal_handler
from train.settings.train_config import TrainConfig

__all__ = ["launch", "train_alone"]

_log = logging.getLogger(__name__)

_PLACEMENT_ATTEMPTS = 3
"""Attempts, of one minute each, of Ray to find slots after a node was lost."""


def launch(name: str, config: TrainConfig) -> dict[str, Any]:
    """Train from the last checkpoint to the configured step; return the run's summary.

    Raises BadInput before a worker starts, Stopped after a stop request, and WorkFailed if training
    fails and is not retried.
    """
    # Workers run in other working directories, so paths must be absolute.
    paths = {"root": Storage(config.root).uri, "out": str(Path(config.out).absolute())}
    if config.checkpoints is not None:
        paths["checkpoints"] = Storage(config.checkpoints).uri
    config = pin_snapshot(config.model_copy(update=paths))
    first = preflight(config).first_step
    if first < config.steps:
        stop_file = StopFile(Path(config.out))
        stop_file.remove()
        if config.address == "none":
            train_alone(make_recipe(name, config.dump()))
        else:
            try:
                _train_on_ray(name, config, stop_file)
            finally:
                stop_file.remove()
    rows = read_metrics(Path(config.out))
    return {
        "out": config.out,
        "first_step": first,
        "step": max(first, config.steps),
        "loss_first": rows[0]["loss"] if rows else None,
        "loss": rows[-1]["loss"] if rows else None,
    }


def train_alone(recipe: Recipe) -> None:
    """Train in this process, with a process group of one. Raises what `engine.train` raises."""
    import torch
    import torch.distributed as dist

    if recipe.config.num_workers != 1:
        raise BadInput("--address none trains in this process: use it with --num-workers 1")
    os.environ.setdefault("LOCAL_RANK", "0")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        train(recipe, on_step=ProgressPrinter(recipe.config.steps))
    finally:
        dist.destroy_process_group()


def _train_on_ray(name: str, config: TrainConfig, stop_file: StopFile) -> None:
    """Start training workers, again after failures, until the run reaches its last step.

    Each start has as many workers as fit into the cluster. Raises Stopped after a stop request, and
    the workers' error if it is final or after more than `max_failures` starts in a row without a
    new checkpoint.
    """
    failures, newest = 0, _newest_checkpoint(config)
    # The handler is set after Ray has started, because Ray sets one of its own.
    with (
        ray_session(config.address),
        signal_handler(stop_file.request_stop),
        _MetricsTail(Path(config.out), config.steps),
    ):
        while True:
            size = wait_for_slots(config, stop_file)
            with restart_on_growth(config, size, stop_file):
                fixed = config.model_copy(update={"num_workers": size})
                error = _start(name, fixed, elastic=is_elastic(config))
            if error is None:
                return
            if stop_file.is_for_restart():
                stop_file.remove()
                continue
            if isinstance(error, BadInput | FinalFailure) or stop_file.is_requested():
                raise error
            if _newest_checkpoint(config) > newest:
                failures, newest = 0, _newest_checkpoint(config)
            failures += 1
            if failures > config.max_failures:
                raise error
            _log.warning("training workers ended: %s; restarting them", error)


def _start(name: str, config: TrainConfig, *, elastic: bool) -> LrmError | None:
    """Start the workers once; return their error, or None if they reached the last step."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    on_gpu = workers_have_gpus(config)
    # This module restarts the workers, not Ray. If their number is fixed, Ray waits for free slots.
    retries: dict[str, Any] = {"max_failures": 0, "max_preemption_failures": 0}
    retries["controller_failure_limit"] = _PLACEMENT_ATTEMPTS if elastic else -1
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"name": name, "config": config.dump(), "on_gpu": on_gpu},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=600),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.world_size,
            use_gpu=on_gpu,
            resources_per_worker=worker_bundle(config, on_gpu=on_gpu),
        ),
        # Checkpoints are not Ray's either, so each start gets a new name and folder.
        run_config=ray.train.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(Path(config.out) / "ray"),
            failure_config=ray.train.FailureConfig(**retries),
        ),
    )
    try:
        # In the main thread, Ray would handle Ctrl-C itself and end the run without saving.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(trainer.fit).result()
    except ray.train.TrainingFailedError as error:
        return _cause(error)
    except ray.exceptions.RayError as error:
        return WorkFailed(f"training failed: {error}")
    return None


def _newest_checkpoint(config: TrainConfig) -> int:
    """Return the step of the newest checkpoint; 0 if there is none."""
    checkpoints = checkpoint_names(checkpoint_storage(config.out, config.checkpoints))
    return checkpoint_step(checkpoints[0]) if checkpoints else 0


def _worker(task: dict[str, Any]) -> None:
    import torch
    import torch.distributed as dist

    if task["on_gpu"] and not torch.cuda.is_available():
        raise BadInput(
            f"{socket.gethostname()}: Ray assigns a GPU to this worker, but PyTorch finds none: "
            "install a CUDA build of PyTorch, or the GPU's driver (lrm doctor --for train)"
        )
    logging.basicConfig(level=logging.INFO)
    train(make_recipe(task["name"], task["config"]), _is_preempted)
    # Without the barrier, some ranks abort while others still communicate with them.
    dist.barrier()


def _is_preempted() -> bool:
    """Return whether the node of any worker will be preempted; a collective call of all ranks."""
    import ray.train

    return ray.train.get_preemption_info() is not None


def _cause(error: BaseException) -> LrmError:
    """Return the first LrmError among the workers' errors, else WorkFailed with the last line."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        inner: BaseException | None = failure
        while inner is not None:
            if isinstance(inner, LrmError):
                return inner
            inner = getattr(inner, "cause", None) or inner.__cause__
    lines = str(error).strip().splitlines()
    return WorkFailed(f"training failed: {lines[-1] if lines else type(error).__name__}")


class _MetricsTail:
    """A thread that prints the progress of training from metrics.jsonl, once per interval."""

    def __init__(self, out: Path, steps: int, interval: float = 10.0) -> None:
        self._out, self._steps, self._interval = out, steps, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        shown = -1
        while True:
            last = self._stop.wait(self._interval)
            rows = read_metrics(self._out)
            if rows and rows[-1]["step"] != shown:
                shown = rows[-1]["step"]
                print(progress_line(rows[-1], self._steps), file=sys.stderr, flush=True)
            if last:
                return
