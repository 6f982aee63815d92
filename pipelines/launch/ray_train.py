"""The start of the training loop (train.loop.engine), in this process or on Ray Train's workers."""

import itertools
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from core.errors import BadInput, FinalFailure, LrmError, WorkFailed
from core.monitoring.endpoint import Metric, serve_metrics
from core.storage import Storage
from pipelines.launch.cluster_resources import worker_bundle, workers_have_gpus
from pipelines.launch.elasticity import check_machine, restart_on_growth, wait_for_slots
from pipelines.launch.progress_tail import ProgressTail
from pipelines.ray_session import ray_session
from train.checkpoints.checkpoint import checkpoint_names, checkpoint_step
from train.checkpoints.checkpoint_paths import checkpoint_storage
from train.checkpoints.pinned_snapshot import pin_snapshot
from train.loop.engine import Recipe, train
from train.loop.preflight import preflight
from train.loop.run_folder import check_run_folder
from train.monitoring.metrics_log import read_metrics
from train.monitoring.progress_line import ProgressPrinter
from train.monitoring.run_metrics import collect_run_metrics
from train.monitoring.run_state import RunState, StartProgress
from train.recipes.registry import make_recipe, recipe_of
from train.resilience.signals import signal_handler
from train.resilience.stop_file import StopFile
from train.settings.train_config import TrainConfig

__all__ = ["launch", "train_alone"]

_log = logging.getLogger(__name__)


def launch(name: str, config: TrainConfig, metrics_port: int | None = None) -> dict[str, Any]:
    """Train from the last checkpoint to the configured step; return the run's summary.

    The port serves the run's metrics. Raises BadInput before a worker starts, Stopped after a stop
    request, and WorkFailed if training fails and is not retried.
    """
    # Workers run in other working directories, so paths must be absolute.
    paths = {"root": Storage(config.root).uri, "out": str(Path(config.out).absolute())}
    if config.checkpoints is not None:
        paths["checkpoints"] = Storage(config.checkpoints).uri
    config = config.model_copy(update=paths)
    out = Path(config.out)
    config.check()
    if config.address == "none" and config.num_workers != 1:
        raise BadInput("--address none trains in this process: use it with --num-workers 1")
    if config.address == "local":
        check_machine(config)
    check_run_folder(config, recipe_of)
    config = pin_snapshot(config)
    first = preflight(config).first_step
    if first < config.steps:
        progress = StartProgress(out)

        def collect() -> Iterator[Metric]:
            return collect_run_metrics(out, config.steps, restarts=progress.num_restarts)

        with serve_metrics(metrics_port, collect):
            if config.address == "none":
                with RunState(out, progress), StopFile(out).removed():
                    train_alone(make_recipe(name, config.dump()))
            else:
                _train_on_ray(name, config, progress)
    rows = read_metrics(out)
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

    os.environ.setdefault("LOCAL_RANK", "0")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        train(recipe, on_step=ProgressPrinter(recipe.config.steps))
    finally:
        dist.destroy_process_group()


def _train_on_ray(name: str, config: TrainConfig, progress: StartProgress) -> None:
    """Start training workers, again after failures, until the run reaches its last step.

    Each start has as many workers as fit into the cluster. Raises Stopped after a stop request, and
    the workers' error if it is final or after more than `max_failures` starts in a row without a
    new checkpoint.
    """
    out, stop_file = Path(config.out), StopFile(Path(config.out))
    failures, newest = 0, _newest_checkpoint(config)
    with (
        signal_handler(stop_file.request_stop, progress.has_steps),
        ray_session(config.address),
        RunState(out, progress),
        stop_file.removed(),
        ProgressTail(out, config.steps),
    ):
        for start in itertools.count():
            if start:
                progress.restart()
            size = wait_for_slots(config, stop_file)
            with restart_on_growth(config, size, stop_file):
                error = _start(name, config.model_copy(update={"num_workers": size}))
            if error is None:
                return
            if stop_file.is_for_restart():
                stop_file.remove()
                continue
            if isinstance(error, BadInput | FinalFailure) or stop_file.is_requested():
                raise error
            if isinstance(error, _SlotsTaken):
                _log.warning("%s; waiting again", error)
                continue
            if _newest_checkpoint(config) > newest:
                failures, newest = 0, _newest_checkpoint(config)
            failures += 1
            if failures > config.max_failures:
                raise error
            _log.warning("training workers ended: %s; restarting them", error)


class _SlotsTaken(WorkFailed):
    """Ray found no slots for the workers, although there were enough before."""


def _start(name: str, config: TrainConfig) -> LrmError | None:
    """Start the workers once; return their error, or None if they reached the last step."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    on_gpu = workers_have_gpus(config)
    # This module restarts the workers, not Ray.
    no_retries: dict[str, Any] = {"max_failures": 0, "max_preemption_failures": 0}
    no_retries["controller_failure_limit"] = 0
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
            failure_config=ray.train.FailureConfig(**no_retries),
        ),
    )
    try:
        _in_thread(trainer.fit)
    except ray.train.TrainingFailedError as error:
        return _cause(error)
    except ray.exceptions.RayError as error:
        return WorkFailed(f"training failed: {error}")
    return None


def _in_thread(work: Callable[[], object]) -> None:
    """Call `work` in a thread and raise its error here.

    In the main thread, Ray would handle Ctrl-C itself and end the run without saving. The thread is
    a daemon: if a signal ends the wait, Ray's shutdown ends its work.
    """
    result: Future[object] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is read
            result.set_exception(error)

    threading.Thread(target=run, name="training", daemon=True).start()
    result.result()


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
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
        return _SlotsTaken("other jobs have taken the free slots of the workers")
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        inner: BaseException | None = failure
        while inner is not None:
            if isinstance(inner, LrmError):
                return inner
            inner = getattr(inner, "cause", None) or inner.__cause__
    lines = str(error).strip().splitlines()
    return WorkFailed(f"training failed: {lines[-1] if lines else type(error).__name__}")
