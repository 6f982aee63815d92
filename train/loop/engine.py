"""The training loop of all recipes, for any number of workers, with DeepSpeed.

The result of a step depends only on (configuration, step number, weights, previous losses), so a
resumed run is bit-identical to one that was not interrupted.
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
from core.retrying_storage import RetryingStorage
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
from train.loop.validation import Batch, Validatable, Validation, eval_mode
from train.monitoring.clock import Goodput, StepClock, find_slow_ranks
from train.monitoring.loggers.registry import open_loggers
from train.monitoring.metrics_log import read_metrics
from train.monitoring.run_file import write_run
from train.monitoring.run_log import RunLog
from train.monitoring.utilisation import Utilisation
from train.resilience.collectives import on_rank_0
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

_STOP_POLL_STEPS = 10
"""Steps between two calls of `should_stop`."""


class Recipe(Validatable, Protocol):
    """A model and its objective: a module whose forward pass returns the loss terms, and its data.

    It also validates the model and draws its previews.
    """

    def build(self, *, fresh: bool = True) -> nn.Module:
        """Return the module: batch -> {"loss": scalar, further terms: scalars}.

        `fresh`: with the initial weights of the run. Otherwise a checkpoint will be loaded into the
        module, and the source of the initial weights may no longer exist.
        """

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> PositionDataset:
        """Return the training items, by position in the order."""

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> Dataset[Batch]:
        """Return the items for previews of the same samples, by position in the order."""

    def preview(self, module: nn.Module, batch: Batch) -> Image.Image:
        """Draw inputs, targets and predictions of an item of the preview dataset."""


def train(
    recipe: Recipe,
    should_stop: Callable[[], bool] | None = None,
    on_step: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Train to the configured step; every rank calls it, in an initialised process group.

    Resumes from the newest intact checkpoint. SIGTERM, SIGINT, the stop file in the run's folder or
    `should_stop` (all ranks call it at the same steps) end the run after the current step with a
    checkpoint; then Stopped is raised. Raises BadInput as `preflight` does, and FinalFailure if too
    many steps in a row were skipped or too many checkpoints could not be written. `on_step`
    receives every line of the metrics, on rank 0.
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
        run.train(request, should_stop)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """The result of one step, the same on all ranks."""

    terms: Mapping[str, float]
    """Means of the loss terms over the global batch."""
    problem: str
    """Why the step was skipped, without an update; empty if it was not."""
    stop: bool
    """Whether any rank has a stop request."""
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
        checkpoint = start.checkpoint
        universal = checkpoint is not None and needs_conversion(checkpoint)
        module = recipe.build(fresh=checkpoint is None)
        wrapped = wrap(module, config, universal=universal)
        self._engine, self._optimizer, self._outer_optimizer = wrapped
        if checkpoint is not None:
            resume(self._engine, checkpoint, config)
        self._checkpoints = CheckpointSaver(config, checkpoint)
        self._ownership = Ownership(Path(config.out))
        extra = checkpoint.manifest.extra if checkpoint is not None else {}
        self._guard = StepGuard(config.guard, extra.get("guard"))
        self._faults = FaultCounter(config.data_faults, config.batch_size, extra.get("faults"))
        root = RetryingStorage(config.root, config.reading)
        dataset = recipe.dataset(root, start.samples)
        self._preview_items = recipe.preview_dataset(root, start.samples)
        loading = (config.loader_workers, config.loader_prefetch)
        self._micro_batches = make_loader(dataset, self._positions(), *loading)
        stack.callback(self._micro_batches.close)
        self._validation = Validation(recipe, root, start.validation) if start.validation else None
        self._log: RunLog | None = None
        on_rank_0(lambda: self._open_log(stack))

    def _open_log(self, stack: ExitStack) -> None:
        """Open the logs of this start, and record it."""
        config, first_step = self._config, self._start.first_step
        for warning in self._start.warnings:
            _log.warning("%s", warning)
        out = Path(config.out)
        log = RunLog(out, first_step, open_loggers(config, first_step))
        self._log = stack.enter_context(log)
        write_run(out, config, first_step, self._hosts)
        self._goodput = Goodput(read_metrics(out))
        self._utilisation = Utilisation(self._recipe)

    def train(self, request: StopRequest, should_stop: Callable[[], bool] | None) -> None:
        """Run the remaining steps. Raises as the function `train` does."""
        config = self._config
        saved = self._start.first_step
        for step in range(self._start.first_step, config.steps):
            done = step + 1
            clock = StepClock()
            rate = learning_rate(config.optimizer, step, config.steps)
            for group in self._outer_optimizer.param_groups:
                group["lr"] = rate
            self._watchdog.heartbeat(f"in step {done}")
            # At the same steps on every rank, because `should_stop` may be a collective call.
            must_stop = should_stop is not None and step % _STOP_POLL_STEPS == 0 and should_stop()
            result = self._step(clock, request, must_stop=must_stop)
            request.has_progress = True
            self._guard.record(result.terms["loss"], result.problem)
            self._faults.record(len(result.replaced))
            self._report(step, result, rate, clock)
            self._faults.check(done, result.replaced)
            self._guard.check(done, result.problem)
            if _is_due(done, config.preview_every, config.steps):
                self._watchdog.heartbeat(f"drawing the preview of step {done}")
                self._preview(done)
            if self._validation and _is_due(done, config.validate_every, config.steps):
                self._watchdog.heartbeat(f"validating after step {done}")
                metrics = self._validation.run(self._engine.module)
                if self._log is not None:
                    self._log.validation(done, metrics)
                self._warn(done, metrics)
            if result.stop or _is_due(done, config.checkpoint_every, config.steps):
                self._watchdog.heartbeat(f"saving the checkpoint of step {done}")
                self._ownership.check()
                self._warn(done, result.terms)
                state = {"guard": self._guard.dump(), "faults": self._faults.dump()}
                extra = {**state, "position": done * config.batch_size}
                saved = self._checkpoints.save(self._engine, done, extra)
            if result.stop and done < config.steps:
                self._checkpoints.close()
                raise Stopped(
                    f"stopped at step {done} with the checkpoint of step {saved}; the same command "
                    "continues"
                )
        self._watchdog.heartbeat("waiting for the last checkpoint")
        self._checkpoints.close()

    def _step(self, clock: StepClock, request: StopRequest, *, must_stop: bool) -> _Step:
        """Run one optimizer step over all micro batches; the ranks exchange stop requests in it."""
        engine = self._engine
        accumulation = self._config.per_rank_batch // self._config.micro_batch_size
        sums: dict[str, Tensor] = {}
        replaced: list[Replacement] = []
        for micro_step in range(accumulation):
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
            if micro_step < accumulation - 1:
                engine.step()
        with clock.part("agree"):
            stop = must_stop or bool(request)
            means, stop, num_replaced = _reduce_over_ranks(sums, stop, len(replaced))
            if num_replaced:
                replaced = gather_replacements(replaced)
        problem = self._guard.find_problem(means["loss"])
        self._optimizer.skip_update = bool(problem)
        with clock.part("step"):
            engine.step()
        if not problem and not (engine.was_step_applied() and self._optimizer.was_applied):
            problem = "a gradient is not finite"
        return _Step(terms=means, problem=problem, stop=stop, replaced=replaced)

    def _report(self, step: int, result: _Step, rate: float, clock: StepClock) -> None:
        """Write the metrics of a step; log a skipped step and replacements with their samples."""
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
            _log.warning("step %d is skipped, no weight is changed: %s", done, result.problem)
            self._log.skipped(done, result.problem, keys)
        if result.replaced:
            row |= {"replaced": len(result.replaced), "replaced_so_far": self._faults.replaced}
        for one in result.replaced:
            _log.warning(
                "step %d: damaged sample %s; replaced by %s", done, one.faults[0], one.replaced_by
            )
            self._log.replaced(done, one)
        self._log.step(done, row)
        if self._on_step is not None:
            self._on_step({"step": done, **row})

    def _warn(self, done: int, metrics: Mapping[str, float]) -> None:
        """Log what the recipe finds wrong with a model that is saved or validated."""
        find = getattr(self._recipe, "find_problem", None)
        if self._log is not None and find is not None and (problem := find(done, metrics)):
            _log.warning("step %d: %s", done, problem)

    def _slow_ranks(self, done: int, seconds: Mapping[str, float]) -> dict[str, float]:
        """Return the slow ranks, with their time as a multiple of the median rank's."""
        every = self._config.slow_ranks_every
        if dist.get_world_size() == 1 or not _is_due(done, every, last=-1):
            return {}
        # Only the time before the first collective: after it, every rank has waited for the
        # slowest one.
        own = seconds["seconds_data"] + seconds["seconds_forward"]
        slow = find_slow_ranks(own)
        for rank, factor in slow.items():
            host = self._hosts[rank]
            if self._log is not None:
                _log.warning(
                    "step %d: rank %d on %s takes %.1f times the median time for data and forward",
                    *(done, rank, host, factor),
                )
        return {str(rank): round(factor, 2) for rank, factor in slow.items()}

    def _preview(self, done: int) -> None:
        """Draw the first sample of the last step on rank 0, while the other ranks wait.

        With ZeRO 3 all ranks draw it, because each forward pass gathers weights from all of them.
        """
        if self._log is not None or self._config.zero_stage == 3:
            item = self._preview_items[global_batch(done - 1, self._config.batch_size)[0]]
            module = self._engine.module
            device = next(module.parameters()).device
            batch = {name: value[None].to(device) for name, value in item.items()}
            with eval_mode(module):
                picture = self._recipe.preview(module, batch)
            if self._log is not None:
                self._log.preview(done, picture)
        dist.barrier()

    def _positions(self) -> Iterator[list[int]]:
        """Yield the positions of this rank's remaining micro batches."""
        config = self._config
        steps = (self._start.first_step, config.steps)
        process = (dist.get_rank(), dist.get_world_size())
        return batches(*steps, config.batch_size, config.micro_batch_size, *process)


def _reduce_over_ranks(
    sums: Mapping[str, Tensor], stop: bool, replaced: int
) -> tuple[dict[str, float], bool, int]:
    """Reduce three results over all ranks in one collective call.

    Returns the means of the loss terms, whether any rank has a stop request, and the total number
    of replaced samples.
    """
    names = sorted(sums)
    counts = [torch.full_like(sums[names[0]], count) for count in (float(stop), float(replaced))]
    message = torch.stack([*(sums[name] for name in names), *counts])
    dist.all_reduce(message)
    *totals, stops, replacements = message.tolist()
    world_size = dist.get_world_size()
    means = {name: total / world_size for name, total in zip(names, totals, strict=True)}
    return means, stops > 0, int(replacements)


def _is_due(done: int, every: int, last: int) -> bool:
    return bool(every) and (done % every == 0 or done == last)


def _batch_keys(
    samples: Sequence[Sample], config: TrainConfig, step: int, replaced: Sequence[Replacement]
) -> list[str]:
    """Return the keys of the samples of a step, in the order of their positions."""
    replacements = {one.faults[0].position: sample_key(one.replaced_by) for one in replaced}
    return [
        replacements.get(position)
        or samples[sample_at(position, len(samples), config.seed)].entry.key
        for position in global_batch(step, config.batch_size)
    ]
