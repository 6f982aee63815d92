"""Estimate of a run before it starts: parameters, memory, FLOPs, step time, checkpoint size."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from core.errors import BadInput
from train.estimate.step_cost import StepCost, SupportsMetaStep, count_step, parts_of
from train.settings.deepspeed_settings import deepspeed_settings
from train.settings.train_config import TrainConfig

__all__ = ["DEVICES", "Device", "RunSize", "find_device", "size_run"]

_ADAM_BYTES = 8
"""Bytes per parameter: Adam's two moments in float32."""
_MASTER_BYTES = 4
"""Bytes per parameter: DeepSpeed's float32 master copy."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device of a rank."""

    name: str
    peak: Mapping[str, float]
    """Dense FLOP/s, by precision."""
    memory_bytes: float | None = None


DEVICES: Mapping[str, Device] = {
    # NVIDIA's data sheets of the SXM boards; fp32 without TensorFloat-32, PyTorch's default.
    "h100": Device(name="h100", peak={"bf16": 989e12, "fp32": 67e12}, memory_bytes=80e9),
    "a100": Device(name="a100", peak={"bf16": 312e12, "fp32": 19.5e12}, memory_bytes=80e9),
}


def find_device(name: str) -> Device:
    """Return the device named h100, a100 or cpu, or one with a peak given in TFLOP/s.

    The peak of `cpu` is measured on this machine. Raises BadInput for any other name.
    """
    if name in DEVICES:
        return DEVICES[name]
    if name == "cpu":
        rate = _measure_cpu()
        return Device(name="cpu", peak={"bf16": rate, "fp32": rate})
    try:
        rate = float(name) * 1e12
    except ValueError:
        rate = 0
    if not 0 < rate < float("inf"):
        known = ", ".join([*DEVICES, "cpu"])
        raise BadInput(f"--device {name}: unknown; give {known}, or a peak in TFLOP/s such as 120")
    return Device(name=f"{name} TFLOP/s", peak={"bf16": rate, "fp32": rate})


def _measure_cpu(side: int = 1024, runs: int = 5) -> float:
    """Return the FLOP/s of the fastest of `runs` float32 matrix products on this machine."""
    a = torch.ones(side, side)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """Size of a run: parameter counts are exact, bytes and FLOPs are estimates."""

    parameters: Mapping[str, int]
    """Number of trained parameters, by part of the model."""
    frozen: Mapping[str, int]
    """Number of parameters that are not trained, by part."""
    memory: Mapping[str, float]
    """Bytes on one rank, by purpose."""
    forward: Mapping[str, float]
    """FLOPs of a step's forward pass over all ranks, by part."""
    backward: float
    """FLOPs of a step's backward pass over all ranks."""
    checkpoint_bytes: float
    assumed: list[str]
    """Assumptions behind the estimates, one line each."""

    @property
    def operations(self) -> float:
        """FLOPs of a whole step over all ranks."""
        return sum(self.forward.values()) + self.backward

    def seconds_per_step(self, config: TrainConfig, device: Device, utilisation: float) -> float:
        """Return the time that computing takes, without data loading and communication."""
        rate = device.peak[config.precision] * utilisation
        return self.operations / config.world_size / rate

    def dump(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


def size_run(recipe: SupportsMetaStep, *, on_gpu: bool = True) -> RunSize:
    """Estimate the size of a recipe's model and step, without allocating or reading anything."""
    config = recipe.config
    meta_step = recipe.meta_step()
    trained = {name: _count(part, True) for name, part in parts_of(meta_step.module).items()}
    frozen = {name: _count(part, False) for name, part in parts_of(meta_step.module).items()}
    frozen |= {name: _count(part, False) for name, part in meta_step.frozen.items()}
    if config.precision == "bf16":
        meta_step.module.to(torch.bfloat16)
    cost = count_step(meta_step, config.micro_batch_size)
    weight_bytes = sum(p.numel() * p.element_size() for p in meta_step.module.parameters())
    frozen_bytes = sum(
        p.numel() * p.element_size() for m in meta_step.frozen.values() for p in m.parameters()
    )
    num_trained = sum(trained.values())
    micro_batches = config.batch_size / config.micro_batch_size
    return RunSize(
        parameters=trained,
        frozen={name: count for name, count in frozen.items() if count},
        memory=_memory(config, num_trained, weight_bytes, frozen_bytes, cost, on_gpu),
        forward={name: ops * micro_batches for name, ops in cost.forward.items()},
        backward=cost.backward * micro_batches,
        checkpoint_bytes=weight_bytes + num_trained * _optimizer_bytes(config),
        assumed=[*_ASSUMED, *meta_step.assumed],
    )


_ASSUMED = (
    "operations: matrix products, convolutions and attention, counted on the model's own step",
    "activations: counted for one and two objects and extrapolated linearly",
    "memory: without the CUDA context, fragmentation and the libraries' workspaces",
    "speed: every operation at the precision's peak, also those that stay in float32 (LPIPS, the "
    "mesh's fields); the time of everything else, such as reading and communication, is left out",
)


def _count(part: nn.Module, trained: bool) -> int:
    return sum(p.numel() for p in part.parameters() if p.requires_grad == trained)


def _memory(
    config: TrainConfig,
    num_trained: int,
    weight_bytes: float,
    frozen_bytes: float,
    cost: StepCost,
    on_gpu: bool,
) -> dict[str, float]:
    """Return the bytes on one rank by purpose, as DeepSpeed 0.19 partitions them."""
    width = 2 if config.precision == "bf16" else 4
    partitions = config.world_size if config.zero_stage else 1
    settings = deepspeed_settings(config, num_parameters=num_trained, on_gpu=on_gpu)
    zero = settings["zero_optimization"]
    optimizer_bytes = num_trained * _optimizer_bytes(config) / partitions
    # DeepSpeed allocates a whole bucket however small the model is.
    bucket_bytes = width * zero["reduce_bucket_size"] * (2 if zero["overlap_comm"] else 1)
    return {
        "weights": weight_bytes / (partitions if config.zero_stage == 3 else 1),
        "gradients": width * num_trained / (partitions if config.zero_stage >= 2 else 1),
        "optimizer": 0 if config.offload_optimizer else optimizer_bytes,
        "communication": bucket_bytes if config.zero_stage else 0,
        "frozen": frozen_bytes,
        "activations": cost.activation_bytes,
    }


def _optimizer_bytes(config: TrainConfig) -> int:
    """Return the optimizer's bytes per parameter, summed over all ranks.

    Only float32 training without ZeRO updates parameters in place, without a master copy.
    """
    in_place = config.zero_stage == 0 and config.precision == "fp32"
    return _ADAM_BYTES + (0 if in_place else _MASTER_BYTES)
