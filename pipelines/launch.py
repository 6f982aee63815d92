"""Starts the training loop on its workers: Ray Train places them, train.engine does the rest."""

import logging
import os
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.errors import BadInput, LrmError, WorkFailed
from dataset.storage import Storage
from pipelines.ray_session import ray_session
from train.config import TrainConfig
from train.engine import Recipe, preflight, train
from train.metrics_log import read_metrics
from train.recipes.mesh import MeshRecipe, MeshTrainConfig
from train.recipes.nerf import NerfRecipe, NerfTrainConfig

__all__ = ["RECIPES", "RecipeKind", "launch"]


@dataclass(frozen=True, kw_only=True)
class RecipeKind:
    """A recipe by name: its configuration, and how to make it from one."""

    purpose: str
    config: type[TrainConfig]
    make: Any


RECIPES: Mapping[str, RecipeKind] = {
    "nerf": RecipeKind(
        purpose="LRM stage 1: triplane NeRF", config=NerfTrainConfig, make=NerfRecipe
    ),
    "mesh": RecipeKind(
        purpose="LRM stage 2: mesh (FlexiCubes)", config=MeshTrainConfig, make=MeshRecipe
    ),
}


def launch(name: str, config: TrainConfig) -> dict[str, Any]:
    """Train to the configured step, going on from the last checkpoint; the run's summary.

    Raises BadInput before a worker starts, and WorkFailed if training fails for good.
    """
    # Absolute: workers stand in folders of their own.
    paths = {"root": Storage(config.root).uri, "out": str(Path(config.out).absolute())}
    config = config.model_copy(update=paths)
    start = preflight(config)
    first = start.first_step
    if first < config.steps:
        if config.address == "none":
            _train_here(name, config)
        else:
            _train_on_ray(name, config)
    rows = read_metrics(Path(config.out))
    return {
        "out": config.out,
        "first_step": first,
        "step": max(first, config.steps),
        "loss_first": rows[0]["loss"] if rows else None,
        "loss": rows[-1]["loss"] if rows else None,
    }


def _recipe(name: str, values: Mapping[str, Any]) -> Recipe:
    kind = RECIPES[name]
    return kind.make(kind.config.load(values))


def _train_here(name: str, config: TrainConfig) -> None:
    """Train in this process, as a process group of one."""
    import torch.distributed as dist

    if config.num_workers != 1:
        raise BadInput("--address none trains in this process: it needs --num-workers 1")
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"
        os.environ.setdefault("LOCAL_RANK", "0")
        dist.init_process_group(_backend(), init_method=store, rank=0, world_size=1)
        try:
            train(_recipe(name, config.dump()))
        finally:
            dist.destroy_process_group()


def _train_on_ray(name: str, config: TrainConfig) -> None:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    on_gpu = _backend() == "nccl"
    with ray_session(config.address), _MetricsTail(Path(config.out), config.steps):
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"name": name, "config": config.dump()},
            torch_config=TorchConfig(backend=_backend(), timeout_s=600),
            scaling_config=ray.train.ScalingConfig(num_workers=config.num_workers, use_gpu=on_gpu),
            # Checkpoints are the engine's own: Ray starts every attempt from a clean slate.
            run_config=ray.train.RunConfig(
                name=uuid.uuid4().hex,
                storage_path=str(Path(config.out) / "ray"),
                failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            ),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _cause(error) from error


def _worker(task: dict[str, Any]) -> None:
    import torch.distributed as dist

    logging.basicConfig(level=logging.INFO)
    train(_recipe(task["name"], task["config"]))
    # Without it some ranks abort while others still talk to them.
    dist.barrier()


def _backend() -> str:
    import torch

    return "nccl" if torch.cuda.is_available() else "gloo"


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
                loss, seconds = rows[-1]["loss"], rows[-1]["seconds"]
                line = f"step {shown}/{self._steps}  loss {loss:.4f}  {seconds:.2f} s/step"
                print(line, file=sys.stderr, flush=True)
            if last:
                return
