"""Start the training loop (train.loop.engine) on workers that Ray Train places."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.errors import BadInput, FinalFailure, LrmError, Stopped, WorkFailed
from core.storage import Storage
from pipelines.launch.cluster_resources import (
    request_room,
    room_for_workers,
    worker_bundle,
    workers_have_gpus,
)
from pipelines.ray_session import ray_session
from train.checkpoints.checkpoint import names, step_of
from train.loop.engine import Recipe, train
from train.loop.preflight import preflight
from train.monitoring.metrics_log import read_metrics
from train.monitoring.progress_line import ProgressPrinter, progress_line
from train.recipes.registry import make_recipe
from train.resilience.stopping import STOP_FILE, hearing
from train.settings.train_config import TrainConfig

__all__ = ["launch", "train_alone"]

_log = logging.getLogger(__name__)

_ROOM_SECONDS = 1800.0
"""So long a run waits for its least number of workers: machines with many GPUs start slowly."""
_SETTLE_SECONDS = 5.0
"""So long workers that ended may hold their places."""
_GROW_SECONDS = 60.0
"""Between looks at whether the cluster has room for more workers."""
_UNPLACED = 3
"""Times a minute that Ray waits for places which a node that went has taken along."""


def launch(name: str, config: TrainConfig) -> dict[str, Any]:
    """Train to the configured step, going on from the last checkpoint; the run's summary.

    Raises BadInput before a worker starts, Stopped if it was asked to end, and WorkFailed if
    training fails for good.
    """
    # Absolute: workers stand in folders of their own.
    paths = {"root": Storage(config.root).uri, "out": str(Path(config.out).absolute())}
    if config.checkpoints is not None:
        paths["checkpoints"] = Storage(config.checkpoints).uri
    config = config.model_copy(update=paths)
    first = preflight(config).first_step
    if first < config.steps:
        stop = Path(config.out) / STOP_FILE
        stop.unlink(missing_ok=True)
        if config.address == "none":
            train_alone(make_recipe(name, config.dump()))
        else:
            try:
                _train_on_ray(name, config)
            finally:
                stop.unlink(missing_ok=True)
    rows = read_metrics(Path(config.out))
    return {
        "out": config.out,
        "first_step": first,
        "step": max(first, config.steps),
        "loss_first": rows[0]["loss"] if rows else None,
        "loss": rows[-1]["loss"] if rows else None,
    }


def train_alone(recipe: Recipe) -> None:
    """Train in this process, as a process group of one. Raises what `engine.train` raises."""
    import torch
    import torch.distributed as dist

    if recipe.config.num_workers != 1:
        raise BadInput("--address none trains in this process: it needs --num-workers 1")
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"
        os.environ.setdefault("LOCAL_RANK", "0")
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, init_method=store, rank=0, world_size=1)
        try:
            train(recipe, on_step=ProgressPrinter(recipe.config.steps))
        finally:
            dist.destroy_process_group()


def _train_on_ray(name: str, config: TrainConfig) -> None:
    """Start workers until the run is done, on as many as there is room for.

    Ray Train's own elasticity takes any number of workers; only those that divide the global batch
    give the same steps. So each start is of a fixed size, and a run that may have another size
    ends itself when the cluster has grown, with a checkpoint.
    """
    stop, asked = Path(config.out) / STOP_FILE, threading.Event()

    def ask() -> None:
        asked.set()
        stop.parent.mkdir(parents=True, exist_ok=True)
        stop.touch()

    failures, reached = 0, _newest_checkpoint(config)
    # Within the session: Ray sets a handler of its own when it starts.
    with (
        ray_session(config.address),
        hearing(ask),
        _MetricsTail(Path(config.out), config.steps),
    ):
        while True:
            size = _await_room(config, stop)
            grown = threading.Event()
            with _watch_growth(config, size, grown):
                fixed = config.model_copy(update={"num_workers": size})
                error = _start(name, fixed, elastic=_is_elastic(config))
            if error is None:
                return
            if grown.is_set() and not asked.is_set():
                stop.unlink(missing_ok=True)
                continue
            if isinstance(error, BadInput | FinalFailure) or stop.exists():
                raise error
            if _newest_checkpoint(config) > reached:
                failures, reached = 0, _newest_checkpoint(config)
            failures += 1
            if failures > config.max_failures:
                raise error
            _log.warning("workers ended (%s); they start again", error)


def _start(name: str, config: TrainConfig, *, elastic: bool) -> LrmError | None:
    """One start of the workers: why they ended, None if they reached the last step."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    on_gpu = workers_have_gpus(config)
    # Restarts are our own, but a run of one size waits for its places as long as it takes.
    retries: dict[str, Any] = {"max_failures": 0, "max_preemption_failures": 0}
    retries["controller_failure_limit"] = _UNPLACED if elastic else -1
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"name": name, "config": config.dump(), "on_gpu": on_gpu},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=600),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.world,
            use_gpu=on_gpu,
            resources_per_worker=worker_bundle(config, on_gpu=on_gpu),
        ),
        # Checkpoints are our own as well: Ray starts every time from a clean slate.
        run_config=ray.train.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(Path(config.out) / "ray"),
            failure_config=ray.train.FailureConfig(**retries),
        ),
    )
    try:
        # In a thread: in the main one, it would take Ctrl-C for itself and end without saving.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(trainer.fit).result()
    except ray.train.TrainingFailedError as error:
        return _cause(error)
    except ray.exceptions.RayError as error:
        return WorkFailed(f"training failed: {error}")
    return None


def _newest_checkpoint(config: TrainConfig) -> int:
    """The step of the newest one; 0 if there is none."""
    found = names(Storage(config.checkpoints or f"{config.out}/checkpoints"))
    return step_of(found[0]) if found else 0


def _await_room(config: TrainConfig, stop: Path) -> int:
    """The largest number of workers that the cluster has room for.

    Raises WorkFailed if there is none in time, and Stopped if the run is asked to end.
    """
    least, most = config.worker_counts[0], config.worker_counts[-1]
    # A run of one size lets Ray wait: its autoscaler adds nodes for what is asked.
    if not _is_elastic(config):
        return most
    began, wished = time.monotonic(), False
    try:
        while True:
            if stop.exists():
                raise Stopped("stopped while the run waited for its workers' places")
            worker = worker_bundle(config, on_gpu=workers_have_gpus(config))
            room, waited = room_for_workers(worker), time.monotonic() - began
            fitting = [size for size in config.worker_counts if size <= room]
            if fitting and (fitting[-1] == most or waited > _SETTLE_SECONDS):
                return fitting[-1]
            if not fitting and not wished:
                _log.warning("waiting for room for %d workers, each %s", least, worker)
                request_room(worker, least)
                wished = True
            if waited > _ROOM_SECONDS:
                raise WorkFailed(
                    f"the cluster has room for {room} workers, --num-workers "
                    f"{config.num_workers} wants at least {least}, each with {worker}"
                )
            time.sleep(1.0)
    finally:
        if wished:
            request_room(worker, 0)


def _is_elastic(config: TrainConfig) -> bool:
    return len(config.worker_counts) > 1


@contextlib.contextmanager
def _watch_growth(config: TrainConfig, size: int, grown: threading.Event) -> Iterator[None]:
    """Ask the workers to end once a larger number of them would fit."""
    larger = [count for count in config.worker_counts if count > size]
    if not larger:
        yield
        return
    over = threading.Event()
    worker = worker_bundle(config, on_gpu=workers_have_gpus(config))

    def look() -> None:
        while not over.wait(_GROW_SECONDS):
            if size + room_for_workers(worker) >= larger[0]:
                _log.warning("room for %d workers: saving, to go on with more", larger[0])
                grown.set()
                (Path(config.out) / STOP_FILE).touch()
                return

    thread = threading.Thread(target=look, name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _worker(task: dict[str, Any]) -> None:
    import torch
    import torch.distributed as dist

    if task["on_gpu"] and not torch.cuda.is_available():
        raise BadInput(
            f"{socket.gethostname()}: Ray lends this worker a GPU and PyTorch sees none: is it a "
            "build without CUDA, or is the driver missing?"
        )
    logging.basicConfig(level=logging.INFO)
    train(make_recipe(task["name"], task["config"]), _is_preempted)
    # Without it some ranks abort while others still talk to them.
    dist.barrier()


def _is_preempted() -> bool:
    """Whether the node of any worker is about to go; all ranks ask at the same steps."""
    import ray.train

    return ray.train.get_preemption_info() is not None


def _cause(error: BaseException) -> LrmError:
    """The workers' own error, if it is one of ours, else one that carries its last line."""
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
    """Prints where training stands, from the run's own metrics, once per interval."""

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
