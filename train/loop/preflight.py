"""Checks before the first step: the settings, then all ranks against each other."""

import os
import shlex
import shutil
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from core.errors import BadInput, cannot_write
from core.paths.leftovers import remove_leftovers
from core.quantities import counted
from core.retrying_storage import RetryingStorage
from dataset.snapshots.snapshot import Sample, Samples, Snapshot, open_snapshot
from train.checkpoints.checkpoint import Checkpoint
from train.checkpoints.resuming import find_resumable
from train.estimate.sizing import size_run
from train.monitoring.loggers.registry import check_loggers
from train.resilience.collectives import gather, on_rank_0
from train.settings.deepspeed_settings import check_deepspeed
from train.settings.train_config import TrainConfig
from train.settings.versions import PACKAGES, installed_versions

__all__ = ["Preflight", "check_ranks", "preflight", "training_samples"]

_MIN_FREE_BYTES = 100_000_000
"""Free bytes that the run's disk must have at the start."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The samples and the checkpoint that a run starts with."""

    samples: Sequence[Sample]
    validation: Sequence[Sample]
    """The samples for validation; empty if the run does not validate."""
    checkpoint: Checkpoint | None
    warnings: Sequence[str] = ()
    """Lines to log at the start."""

    @property
    def first_step(self) -> int:
        """Number of steps that are already done."""
        return self.checkpoint.step if self.checkpoint is not None else 0


def preflight(config: TrainConfig) -> Preflight:
    """Check all that can be checked before a worker starts. Raises BadInput.

    In a process group, rank 0 finds the checkpoint (or checks the initial weights if there is none)
    and sends the result to the others.
    """
    config.check()
    check_deepspeed(config.deepspeed)
    check_loggers(config.loggers)
    snapshot = open_snapshot(RetryingStorage(config.root, config.reading), config.snapshot)
    samples = training_samples(config, snapshot)
    checkpoint = on_rank_0(lambda: _find_checkpoint(config))
    num_left_out = len(snapshot.samples.of_split("train")) - len(samples)
    validation: Sequence[Sample] = ()
    warnings = []
    if config.validate_every:
        split = snapshot.samples.of_split("validation")
        usable = _usable(config, split)
        validation = usable[: config.validation_samples]
        num_left_out += len(split) - len(usable)
        if not split:
            warnings.append(
                f"snapshot {config.snapshot} has no validation split: this run does not validate; "
                "create a snapshot that has one with `lrm snapshot --validation-share SHARE`"
            )
        elif not usable:
            warnings.append(
                f"snapshot {config.snapshot}: no sample of its validation split has companion "
                "geometry: this run does not validate"
            )
    if num_left_out:
        warnings.append(_left_out(config, num_left_out))
    return Preflight(
        samples=samples, validation=validation, checkpoint=checkpoint, warnings=warnings
    )


def training_samples(config: TrainConfig, snapshot: Snapshot) -> Samples:
    """Return the samples of the training split that the recipe can use.

    Raises BadInput if there are none.
    """
    split = snapshot.samples.of_split("train")
    samples = _usable(config, split)
    if samples:
        return samples
    if split:
        raise BadInput(
            f"snapshot {config.snapshot} has no companion geometry, which the recipe "
            f"{config.recipe} trains on: {_add_geometry(config)}"
        )
    raise BadInput(
        f"snapshot {config.snapshot} has no sample in its training split; create one with "
        "`lrm snapshot`"
    )


def _usable(config: TrainConfig, samples: Samples) -> Samples:
    return samples.with_geometry() if config.needs_geometry else samples


def _left_out(config: TrainConfig, number: int) -> str:
    return (
        f"snapshot {config.snapshot}: {counted(number, 'sample')} without companion geometry "
        f"{'is' if number == 1 else 'are'} left out of training and validation; to add it, "
        f"{_add_geometry(config)}"
    )


def _add_geometry(config: TrainConfig) -> str:
    root = shlex.quote(config.root)
    return f"run `lrm build --root {root} --geometry`, then `lrm snapshot --root {root}`"


def _find_checkpoint(config: TrainConfig) -> Checkpoint | None:
    checkpoint = find_resumable(config)
    if checkpoint is None:
        config.check_start()
    return checkpoint


def check_ranks(recipe: Any) -> list[str]:
    """Compare all ranks and return their hosts; every rank calls it.

    Versions and devices must be equal, all ranks must share the output folder, and by estimate a
    step must fit into the memory of each device. Raises BadInput naming the host that differs, or
    the parts of the memory estimate.
    """
    config = recipe.config
    token = on_rank_0(lambda: _write_token(Path(config.out)))
    reports = gather(_report(Path(config.out), token))
    if dist.get_rank() == 0:
        (Path(config.out) / token).unlink(missing_ok=True)
    _compare(reports, config)
    hosts = [report["host"] for report in reports]
    if config.check_memory and hasattr(recipe, "meta_step"):
        memory = min(report["memory"] / _num_sharing(report, hosts) for report in reports)
        on_rank_0(lambda: _check_memory(recipe, memory))
    return hosts


def _report(out: Path, token: str) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    return {
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "memory": torch.cuda.mem_get_info()[1] if on_gpu else _machine_memory(),
        "sees_out": (out / token).exists(),
        **installed_versions(),
    }


def _write_token(out: Path) -> str:
    # The name of a temporary file, which is removed later if this process is killed.
    name = f".preflight.tmp-{uuid.uuid4().hex[:8]}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        (out / name).write_bytes(b"")
    except OSError as error:
        raise cannot_write(f"--out {out}: cannot write here", error) from None
    return name


def _compare(reports: Sequence[Mapping[str, Any]], config: TrainConfig) -> None:
    first = reports[0]
    for rank, report in enumerate(reports):
        where = f"rank {rank} on {report['host']}"
        for name in ("python", *PACKAGES, "device"):
            if report[name] != first[name]:
                raise BadInput(
                    f"{where} has {name} {report[name]}, but rank 0 on {first['host']} has "
                    f"{first[name]}: all workers must have the same versions and devices"
                )
        if not report["sees_out"]:
            raise BadInput(
                f"{where} cannot see a file that rank 0 wrote to {config.out}: --out must be a "
                "folder that all workers and the driver share"
            )
    _check_space(Path(config.out))


def _machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _num_sharing(report: Mapping[str, Any], hosts: Sequence[str]) -> int:
    """Return the number of ranks that share a memory: one per GPU, all of a machine on CPUs."""
    return hosts.count(report["host"]) if report["device"] == "cpu" else 1


def _check_memory(recipe: Any, available: float) -> None:
    """Raise BadInput if the estimate for one worker exceeds the available bytes."""
    estimate = size_run(recipe, on_gpu=torch.cuda.is_available()).memory
    if sum(estimate.values()) <= available:
        return
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in estimate.items() if size > 5e7)
    raise BadInput(
        f"a worker needs about {sum(estimate.values()) / 1e9:.1f} GB ({parts}) and has "
        f"{available / 1e9:.1f} GB: a smaller --micro-batch, --activation-checkpointing, a higher "
        "--zero-stage or --offload-optimizer need less; --check-memory false starts anyway"
    )


def _check_space(out: Path) -> None:
    """Raise BadInput if the disk is nearly full: otherwise the first checkpoint would fail."""
    if shutil.disk_usage(out).free < _MIN_FREE_BYTES:
        raise BadInput(
            f"--out {out}: less than {_MIN_FREE_BYTES // 10**6} MB are free; free disk space or "
            "give another folder"
        )
