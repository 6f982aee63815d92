"""The one training loop: every recipe, every number of workers, with DeepSpeed.

A step is a function of (configuration, step number, weights, the losses before) alone, so a run
that goes on from a checkpoint repeats what it would have done.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from core.config import digest
from core.errors import Stopped
from core.retrying_storage import PatientStorage
from core.storage import Storage
from dataset.object_record import sample_key
from dataset.snapshots.snapshot import Sample
from train.checkpoints.resuming import needs_conversion, resume
from train.checkpoints.saving import CheckpointSaver
from train.data.loader import PositionDataset, make_loader
from train.data.order import sample_at
from train.data.patches import batches, global_batch
from train.loop.deepspeed_engine import wrap
from train.loop.preflight import Preflight, check_ranks, preflight
from train.loop.schedule import learning_rate
from train.loop.validation import Batch, Judge, Validation, looking
from train.monitoring.clock import Goodput, StepClock, find_slow_ranks
from train.monitoring.metrics_log import read_metrics
from train.monitoring.run_log import RunLog
from train.monitoring.utilisation import Utilisation
from train.resilience.damaged_samples import (
    FaultCounter,
    Replacement,
    gather_replacements,
)
from train.resilience.ownership import Ownership
from train.resilience.step_guard import StepGuard
from train.resilience.stopping import StopRequest, stop_request
from train.resilience.watchdog import Watchdog
from train.settings.train_config import TrainConfig

__all__ = ["Recipe", "train"]

_log = logging.getLogger(__name__)

_ASK_EVERY = 10
"""Steps between questions to `should_stop`."""


class Recipe(Judge, Protocol):
    """What is trained: a recipe builds a module whose forward pass gives the loss terms."""

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run; `num_workers` is the size of the process group."""

    def build(self, *, fresh: bool = True) -> nn.Module:
        """A module: batch -> {"loss": scalar, further terms: scalars}.

        `fresh` if it holds what the run starts from; else a checkpoint will be loaded over it, and
        what the run once started from may be gone.
        """

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> PositionDataset:
        """Return what a step trains on, by position in the order."""

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> Dataset[Batch]:
        """Return what a preview shows of the same samples, by position in the order."""

    def preview(self, module: nn.Module, batch: Batch) -> Image.Image:
        """Draw inputs, targets and predictions of an item of the preview dataset."""


def train(
    recipe: Recipe,
    should_stop: Callable[[], bool] | None = None,
    on_step: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Train to the configured step; every rank calls it, in an initialised process group.

    Goes on from the newest whole checkpoint. SIGTERM, SIGINT, a file `stop` in the run's folder or
    `should_stop` (all ranks ask it at the same steps) end it after the step, with a checkpoint:
    then raises Stopped. Raises BadInput as `preflight` does, and FinalFailure if too many steps in
    a row were skipped or too many checkpoints could not be written. `on_step` gets every line of
    the metrics, on rank 0.
    """
    config = recipe.config
    start = preflight(config)
    if start.first_step >= config.steps:
        return
    rank = dist.get_rank()
    with ExitStack() as stack:
        request = stack.enter_context(stop_request(Path(config.out)))
        watchdog = Watchdog(config.watchdog_seconds, Path(config.out) / "hangs", rank)
        stack.enter_context(watchdog)
        hosts = check_ranks(recipe)
        run = _Run(recipe, start, hosts, stack, watchdog, on_step)
        run.go(request, should_stop)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """The result of one step, the same on all ranks."""

    terms: Mapping[str, float]
    """Means over the global batch."""
    problem: str
    """Why it changed no weight; empty if it did."""
    stop: bool
    """Whether any rank was asked to end."""
    replaced: Sequence[Replacement]
    """Replacements of the damaged samples of the global batch."""


class _Run:
    """One start of a run, on one rank."""

    def __init__(
        self,
        recipe: Recipe,
        start: Preflight,
        hosts: Sequence[str],
        stack: ExitStack,
        watchdog: Watchdog,
        on_step: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        config = recipe.config
        self._recipe, self._config, self._start = recipe, config, start
        self._hosts, self._watchdog, self._on_step = hosts, watchdog, on_step
        torch.manual_seed(config.seed)
        found = start.checkpoint
        universal = found is not None and needs_conversion(found)
        module = recipe.build(fresh=found is None)
        self._engine, self._optimizer, self._scheduled = wrap(module, config, universal=universal)
        if found is not None:
            resume(self._engine, found, config)
        self._checkpoints = CheckpointSaver(config, found)
        self._ownership = Ownership(Path(config.out))
        extra = found.manifest.extra if found is not None else {}
        self._guard = StepGuard(config.guard, extra.get("guard"))
        self._faults = FaultCounter(config.data_faults, config.batch_size, extra.get("faults"))
        root = PatientStorage(config.root, config.reading)
        dataset = recipe.dataset(root, start.samples)
        self._previewed = recipe.preview_dataset(root, start.samples)
        reading = (config.loader_workers, config.loader_prefetch)
        self._micro_batches = make_loader(dataset, self._positions(), *reading)
        stack.callback(self._micro_batches.close)
        self._validation = self._find_validation(root)
        self._log: RunLog | None = None
        if dist.get_rank() == 0:
            opened = RunLog(Path(config.out), start.first_step, tensorboard=config.tensorboard)
            self._log = stack.enter_context(opened)
            self._log.started(config.dump(), start.first_step, hosts)
            self._goodput = Goodput(read_metrics(Path(config.out)))
            self._utilisation = Utilisation(recipe)

    def go(self, request: StopRequest, should_stop: Callable[[], bool] | None) -> None:
        """Do the steps that are left. Raises as `train` does."""
        config = self._config
        saved = self._start.first_step
        for step in range(self._start.first_step, config.steps):
            done = step + 1
            clock = StepClock()
            rate = learning_rate(config.optimizer, step, config.steps)
            for group in self._scheduled.param_groups:
                group["lr"] = rate
            self._watchdog.hear(f"in step {done}")
            # At the same steps on every rank: the answer may need a collective.
            stop_asked = should_stop is not None and step % _ASK_EVERY == 0 and should_stop()
            result = self._step(clock, stop_asked or bool(request))
            self._guard.settle(result.terms["loss"], result.problem)
            self._faults.settle(len(result.replaced))
            self._report(step, result, rate, clock)
            self._faults.check(done, result.replaced)
            self._guard.check(done, result.problem)
            if _is_due(done, config.preview_every, config.steps):
                self._watchdog.hear(f"making the preview of step {done}")
                self._preview(done)
            if self._validation and _is_due(done, config.validate_every, config.steps):
                self._watchdog.hear(f"validating after step {done}")
                metrics = self._validation.run(self._engine.module)
                if self._log is not None:
                    self._log.validation(done, metrics)
            if result.stop or _is_due(done, config.checkpoint_every, config.steps):
                self._watchdog.hear(f"saving the checkpoint of step {done}")
                self._ownership.check()
                state = {"guard": self._guard.dump(), "faults": self._faults.dump()}
                extra = {**state, "position": done * config.batch_size}
                saved = self._checkpoints.save(self._engine, done, extra)
            if result.stop and done < config.steps:
                self._checkpoints.close()
                raise Stopped(f"stopped at step {done} with the checkpoint of step {saved}")
        self._watchdog.hear("waiting for the last checkpoint")
        self._checkpoints.close()

    def _step(self, clock: StepClock, stop: bool) -> _Step:
        """One optimizer step over all micro-batches."""
        engine = self._engine
        accumulation = self._config.share // self._config.micro
        sums: dict[str, Tensor] = {}
        replaced: list[Replacement] = []
        for turn in range(accumulation):
            with clock.part("data"):
                tensors, replacements = next(self._micro_batches)
                replaced += replacements
                batch = {k: v.to(engine.device, non_blocking=True) for k, v in tensors.items()}
            with clock.part("forward", on_device=True):
                terms = engine(batch)
            with clock.part("backward", on_device=True):
                engine.backward(terms["loss"])
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach().float() / accumulation
            if turn < accumulation - 1:
                engine.step()
        with clock.part("agree"):
            means, stop, num_replaced = _agree(sums, stop, len(replaced))
            if num_replaced:
                replaced = gather_replacements(replaced)
        problem = self._guard.judge(means["loss"])
        self._optimizer.veto = bool(problem)
        with clock.part("step"):
            engine.step()
        if not problem and not (engine.was_step_applied() and self._optimizer.applied):
            problem = "a gradient is not finite"
        return _Step(terms=means, problem=problem, stop=stop, replaced=replaced)

    def _report(self, step: int, result: _Step, rate: float, clock: StepClock) -> None:
        """One line of the metrics; a skipped step is also written down with its samples."""
        config, done, now = self._config, step + 1, time.time()
        seconds = clock.read()
        slow = self._slow_ranks(done, seconds)
        if self._log is None:
            return
        keys = _batch_keys(self._start.samples, config, step, result.replaced)
        row: dict[str, Any] = {"samples": done * config.batch_size, **result.terms, "lr": rate}
        row |= {"batch": digest(keys), **seconds, "time": round(now, 3)}
        row["samples_per_second"] = round(config.batch_size / max(seconds["seconds"], 1e-9), 3)
        row["goodput"] = round(self._goodput.add(seconds["seconds"], now), 4)
        norm = self._engine.get_global_grad_norm()
        if norm is not None:
            row["gradient_norm"] = float(norm)
        row |= self._utilisation.metrics(seconds["seconds"])
        if slow:
            row["slow_ranks"] = slow
        if result.problem:
            row |= {"skipped": result.problem, "skipped_so_far": self._guard.skipped}
            _log.warning("step %d changes no weight: %s", done, result.problem)
            self._log.skipped(done, result.problem, keys)
        if result.replaced:
            row |= {"replaced": len(result.replaced), "replaced_so_far": self._faults.replaced}
        for one in result.replaced:
            _log.warning("step %d: %s; %s stands in", done, one.faults[0], one.replaced_by)
            self._log.replaced(done, one)
        self._log.step(done, row)
        if self._on_step is not None:
            self._on_step({"step": done, **row})

    def _slow_ranks(self, done: int, seconds: Mapping[str, float]) -> dict[str, float]:
        """Ranks that make the others wait, with how many times the median they take."""
        every = self._config.slow_ranks_every
        if dist.get_world_size() == 1 or not _is_due(done, every, last=-1):
            return {}
        # What comes before the first collective: behind it, all take the time of the slowest.
        own = seconds["seconds_data"] + seconds["seconds_forward"]
        found = find_slow_ranks(own)
        for rank, times in found.items():
            host = self._hosts[rank]
            if self._log is not None:
                _log.warning("rank %d on %s takes %.1f times the median", rank, host, times)
        return {str(rank): round(times, 2) for rank, times in found.items()}

    def _preview(self, done: int) -> None:
        """Rank 0 draws the first sample of the last step; the others wait."""
        if self._log is not None:
            item = self._previewed[global_batch(done - 1, self._config.batch_size)[0]]
            module = self._engine.module
            device = next(module.parameters()).device
            batch = {name: value[None].to(device) for name, value in item.items()}
            with looking(module):
                self._log.preview(done, self._recipe.preview(module, batch))
        dist.barrier()

    def _find_validation(self, root: Storage) -> Validation | None:
        """What judges the model, if the snapshot has objects for it."""
        if self._start.validation:
            return Validation(self._recipe, root, self._start.validation)
        if self._config.validate_every and dist.get_rank() == 0:
            name = self._config.snapshot
            _log.warning("snapshot %s has no validation split: no validation", name)
        return None

    def _positions(self) -> Iterator[list[int]]:
        """The positions of all micro-batches that this rank still has to do."""
        config = self._config
        steps = (self._start.first_step, config.steps)
        share = (dist.get_rank(), dist.get_world_size())
        return batches(*steps, config.batch_size, config.micro, *share)


def _agree(
    sums: Mapping[str, Tensor], stop: bool, replaced: int
) -> tuple[dict[str, float], bool, int]:
    """The terms' means over all ranks, whether any wants to end, their replaced samples: one
    message."""
    names = sorted(sums)
    counts = [torch.full_like(sums[names[0]], count) for count in (float(stop), float(replaced))]
    message = torch.stack([*(sums[name] for name in names), *counts])
    dist.all_reduce(message)
    *totals, stops, replacements = message.tolist()
    world = dist.get_world_size()
    means = {name: total / world for name, total in zip(names, totals, strict=True)}
    return means, stops > 0, int(replacements)


def _is_due(done: int, every: int, last: int) -> bool:
    return bool(every) and (done % every == 0 or done == last)


def _batch_keys(
    samples: Sequence[Sample], config: TrainConfig, step: int, replaced: Sequence[Replacement]
) -> list[str]:
    """The keys of the samples that the step saw, in the order of their positions."""
    instead = {one.faults[0].position: sample_key(one.replaced_by) for one in replaced}
    return [
        instead.get(position) or samples[sample_at(position, len(samples), config.seed)].entry.key
        for position in global_batch(step, config.batch_size)
    ]
