"""The one training loop: every recipe, every number of workers, with DeepSpeed.

A step is a function of (configuration, step number, weights) alone, so a run that goes on from a
checkpoint repeats what it would have done.
"""

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from dataset.config import digest, merge
from dataset.errors import BadInput, WorkFailed
from dataset.patient import PatientStorage
from dataset.snapshot import Sample, open_snapshot
from dataset.storage import Storage
from train.checkpoint import Checkpoint, Checkpoints
from train.config import OptimizerConfig, TrainConfig
from train.data import batches, global_batch
from train.loader import make_loader
from train.order import sample_at
from train.run_log import RunLog, check_tensorboard
from train.validation import Judge, Validation, looking

__all__ = ["Preflight", "Recipe", "learning_rate", "preflight", "train"]

_log = logging.getLogger(__name__)

Batch = dict[str, Tensor]


class Recipe(Judge, Protocol):
    """What is trained: a recipe builds a module whose forward pass gives the loss terms."""

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run."""

    def build(self) -> nn.Module:
        """A module with fresh weights: batch -> {"loss": scalar, further terms: scalars}."""

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> Dataset[Batch]:
        """The samples by position in the order."""

    def preview(self, module: nn.Module, batch: Batch) -> Image.Image:
        """A picture of inputs, targets and predictions."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What a run starts from."""

    samples: Sequence[Sample]
    validation: Sequence[Sample]
    """The objects that the model is judged by; none if it is not."""
    checkpoint: Checkpoint | None

    @property
    def first_step(self) -> int:
        """Steps that are done already."""
        return self.checkpoint.step if self.checkpoint is not None else 0


def preflight(config: TrainConfig) -> Preflight:
    """Check everything that can be checked before a worker starts. Raises BadInput."""
    config.check()
    if config.tensorboard:
        check_tensorboard()
    snapshot = open_snapshot(_root(config), config.snapshot)
    samples = snapshot.of_split("train")
    if not samples:
        raise BadInput(f"snapshot {config.snapshot} has no sample in its training split")
    found = _checkpoints(config).check(config.dump(), config.num_workers)
    judged = snapshot.of_split("validation")[: config.validation_samples]
    validation = judged if config.validate_every else ()
    return Preflight(samples=samples, validation=validation, checkpoint=found)


def train(recipe: Recipe) -> None:
    """Train to the configured step; every rank calls it, in an initialised process group.

    Goes on from the newest whole checkpoint in the output folder. Raises BadInput as `preflight`
    does, and WorkFailed naming the step if the loss is not finite.
    """
    config = recipe.config
    start = preflight(config)
    if start.first_step >= config.steps:
        return
    torch.manual_seed(config.seed)
    engine, optimizer = _initialise(recipe.build(), config)
    checkpoints = _checkpoints(config)
    if start.checkpoint is not None:
        checkpoints.load(engine, start.checkpoint)
    dataset = recipe.dataset(_root(config), start.samples)
    reading = (config.loader_workers, config.loader_prefetch)
    micro_batches = make_loader(dataset, _positions(config, start), *reading)
    validation = _validation(recipe, start)
    with ExitStack() as stack:
        stack.callback(micro_batches.close)
        log = None
        if dist.get_rank() == 0:
            opened = RunLog(Path(config.out), start.first_step, tensorboard=config.tensorboard)
            log = stack.enter_context(opened)
        for step in range(start.first_step, config.steps):
            started = time.monotonic()
            rate = learning_rate(config.optimizer, step, config.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            terms = _step(engine, micro_batches, config, step)
            done = step + 1
            if log is not None:
                seconds = {"seconds": round(time.monotonic() - started, 4)}
                keys = {"batch": digest(_batch_keys(start.samples, config, step))}
                samples = {"samples": done * config.batch_size}
                log.step(done, samples | terms | {"lr": rate} | keys | seconds)
            if _is_due(done, config.preview_every, config.steps):
                _preview(recipe, engine.module, dataset, log, done)
            if validation is not None and _is_due(done, config.validate_every, config.steps):
                metrics = validation.run(engine.module)
                if log is not None:
                    log.validation(done, metrics)
            if _is_due(done, config.checkpoint_every, config.steps):
                checkpoints.save(engine, done, config.dump())


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of a step (counted from 0): linear warm-up, then half a cosine to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    length = max(1, (config.schedule_steps or steps) - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / length)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress))


def _step(engine: Any, micro_batches: Any, config: TrainConfig, step: int) -> dict[str, float]:
    """One optimizer step over all micro-batches; the terms' means over the global batch."""
    accumulation = config.share // config.micro
    sums: dict[str, Tensor] = {}
    for _ in range(accumulation):
        found = next(micro_batches).items()
        batch = {name: value.to(engine.device, non_blocking=True) for name, value in found}
        terms = engine(batch)
        _require_finite(terms["loss"], step)
        engine.backward(terms["loss"])
        engine.step()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach().float() / accumulation
    names = sorted(sums)
    means = torch.stack([sums[name] for name in names])
    dist.all_reduce(means)
    values = (means / dist.get_world_size()).tolist()
    return dict(zip(names, values, strict=True))


def _require_finite(loss: Tensor, step: int) -> None:
    """All ranks stop together if any of them has a loss that is not finite."""
    bad = (~torch.isfinite(loss.detach())).float().reshape(1)
    dist.all_reduce(bad)
    if bad.item():
        raise WorkFailed(
            f"step {step + 1}: the loss is not finite on {int(bad.item())} worker(s); a lower "
            "--optimizer.learning-rate or a look at the step's samples may help"
        )


def _initialise(module: nn.Module, config: TrainConfig) -> tuple[Any, Any]:
    """DeepSpeed's engine around the module, and the optimizer whose rate the loop sets."""
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    if not on_gpu:
        # Its shared-memory operator would be compiled for a minute at the first start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    optimizer = torch.optim.AdamW(
        _parameter_groups(module, config.optimizer),
        lr=config.optimizer.learning_rate,
        betas=(config.optimizer.beta1, config.optimizer.beta2),
    )
    settings = {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.micro,
        "zero_optimization": {"stage": config.zero_stage, "overlap_comm": on_gpu},
        "gradient_clipping": config.optimizer.gradient_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bf16"},
        "steps_per_print": 2**31,
    }
    engine, wrapped, _, _ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=merge(settings, config.deepspeed)
    )
    return engine, wrapped


def _parameter_groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _validation(recipe: Recipe, start: Preflight) -> Validation | None:
    """What judges the model, if the snapshot has objects for it."""
    config = recipe.config
    if start.validation:
        return Validation(recipe, _root(config), start.validation)
    if config.validate_every and dist.get_rank() == 0:
        _log.warning("snapshot %s has no validation split: no validation", config.snapshot)
    return None


def _preview(
    recipe: Recipe, module: nn.Module, dataset: Dataset[Batch], log: RunLog | None, done: int
) -> None:
    """Rank 0 draws the first sample of the last step; the others wait."""
    if log is not None:
        item = dataset[global_batch(done - 1, recipe.config.batch_size)[0]]
        device = next(module.parameters()).device
        batch = {name: value[None].to(device) for name, value in item.items()}
        with looking(module):
            log.preview(done, recipe.preview(module, batch))
    dist.barrier()


def _positions(config: TrainConfig, start: Preflight) -> Iterator[list[int]]:
    """The positions of all micro-batches that this rank still has to do."""
    steps = (start.first_step, config.steps)
    share = (dist.get_rank(), dist.get_world_size())
    return batches(*steps, config.batch_size, config.micro, *share)


def _is_due(done: int, every: int, last: int) -> bool:
    return bool(every) and (done % every == 0 or done == last)


def _batch_keys(samples: Sequence[Sample], config: TrainConfig, step: int) -> list[str]:
    return [
        samples[sample_at(position, len(samples), config.seed)].entry.key
        for position in global_batch(step, config.batch_size)
    ]


def _checkpoints(config: TrainConfig) -> Checkpoints:
    return Checkpoints(Path(config.out), config.keep_checkpoints)


def _root(config: TrainConfig) -> Storage:
    return PatientStorage(config.root, config.reading)
