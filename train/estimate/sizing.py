"""How big a run is before it runs: parameters, memory, operations, speed, checkpoints."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from core.errors import BadInput
from train.estimate.outline import Sizable, StepCost, count_step, parts_of
from train.settings.deepspeed_settings import deepspeed_settings
from train.settings.train_config import TrainConfig

__all__ = ["DEVICES", "Device", "RunSize", "find_device", "size_run"]

_ADAM_BYTES = 8
"""Both moments of a parameter, in float32."""
_MASTER_BYTES = 4
"""DeepSpeed keeps a float32 copy of each parameter that the optimizer changes."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a worker computes on."""

    name: str
    peak: Mapping[str, float]
    """Dense floating-point operations per second, by precision."""
    memory_bytes: float | None = None


DEVICES: Mapping[str, Device] = {
    # Data sheets of the SXM boards; fp32 without TensorFloat-32, which PyTorch leaves off.
    "h100": Device(name="h100", peak={"bf16": 989e12, "fp32": 67e12}, memory_bytes=80e9),
    "a100": Device(name="a100", peak={"bf16": 312e12, "fp32": 19.5e12}, memory_bytes=80e9),
}


def find_device(name: str) -> Device:
    """h100, a100, cpu (measured here, now) or a peak in TFLOP/s. Raises BadInput."""
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
        raise BadInput(f"--device {name}: give {known}, or a peak in TFLOP/s such as 120")
    return Device(name=f"{name} TFLOP/s", peak={"bf16": rate, "fp32": rate})


def _measure_cpu(side: int = 1024, runs: int = 5) -> float:
    """Operations per second of this machine's fastest float32 matrix product."""
    a = torch.ones(side, side)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """The numbers; bytes and operations are estimates, parameters are exact."""

    parameters: Mapping[str, int]
    """Trained, by part."""
    frozen: Mapping[str, int]
    """Not trained, by part."""
    memory: Mapping[str, float]
    """Bytes of a worker, by what they hold."""
    forward: Mapping[str, float]
    """Operations of a step over all workers, by part."""
    backward: float
    checkpoint_bytes: float
    assumed: list[str]

    @property
    def operations(self) -> float:
        """Of a whole step over all workers."""
        return sum(self.forward.values()) + self.backward

    def seconds_per_step(self, config: TrainConfig, device: Device, utilisation: float) -> float:
        """What computing takes, without reading and communication."""
        rate = device.peak[config.precision] * utilisation
        return self.operations / config.world / rate

    def dump(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def size_run(recipe: Sizable, *, on_gpu: bool = True) -> RunSize:
    """Size the recipe's model and step; nothing is allocated or read."""
    config = recipe.config
    outline = recipe.outline()
    trained = {name: _count(part, True) for name, part in parts_of(outline.module).items()}
    frozen = {name: _count(part, False) for name, part in parts_of(outline.module).items()}
    frozen |= {name: _count(part, False) for name, part in outline.frozen.items()}
    if config.precision == "bf16":
        outline.module.to(torch.bfloat16)
    cost = count_step(outline, config.micro)
    held = sum(p.numel() * p.element_size() for p in outline.module.parameters())
    kept = sum(
        p.numel() * p.element_size() for m in outline.frozen.values() for p in m.parameters()
    )
    numbers = sum(trained.values())
    micro_batches = config.batch_size / config.micro
    return RunSize(
        parameters=trained,
        frozen={name: count for name, count in frozen.items() if count},
        memory=_memory(config, numbers, held, kept, cost, on_gpu),
        forward={name: ops * micro_batches for name, ops in cost.forward.items()},
        backward=cost.backward * micro_batches,
        checkpoint_bytes=held + numbers * _optimizer_bytes(config),
        assumed=[*_ASSUMED, *outline.assumed],
    )


_ASSUMED = (
    "operations: matrix products, convolutions and attention, counted on the model's own step",
    "activations: counted for one and two objects and continued in a straight line",
    "memory: without the CUDA context, fragmentation and the libraries' workspaces",
    "speed: every operation at the precision's peak, also those that stay in float32 (LPIPS, the "
    "mesh's fields); without what is no operation, reading and communication",
)


def _count(part: nn.Module, trained: bool) -> int:
    return sum(p.numel() for p in part.parameters() if p.requires_grad == trained)


def _memory(
    config: TrainConfig, numbers: int, held: float, frozen: float, cost: StepCost, on_gpu: bool
) -> dict[str, float]:
    """Bytes of a worker, as DeepSpeed 0.19 lays them out."""
    width = 2 if config.precision == "bf16" else 4
    shared = config.world if config.zero_stage else 1
    settings = deepspeed_settings(config, num_parameters=numbers, on_gpu=on_gpu)
    zero = settings["zero_optimization"]
    # A buffer is made of that size, however small the model is.
    bucket_bytes = width * zero["reduce_bucket_size"] * (2 if zero["overlap_comm"] else 1)
    return {
        "weights": held / (shared if config.zero_stage == 3 else 1),
        "gradients": width * numbers / (shared if config.zero_stage >= 2 else 1),
        "optimizer": 0 if config.offload_optimizer else numbers * _optimizer_bytes(config) / shared,
        "communication": bucket_bytes if config.zero_stage else 0,
        "frozen": frozen,
        "activations": cost.activation_bytes,
    }


def _optimizer_bytes(config: TrainConfig) -> int:
    """Of a parameter, over all workers: only plain float32 training changes it in place."""
    in_place = config.zero_stage == 0 and config.precision == "fp32"
    return _ADAM_BYTES + (0 if in_place else _MASTER_BYTES)
