"""The stopwatch, the peak FLOPs and the optimizer of `benchmarks.speed.train_step`."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MasterAdamW", "Stopwatch", "peak_flops"]

_DENSE_BF16 = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
_DENSE_FP32 = {"H100 PCIe": 51e12, "H100": 67e12, "H200": 67e12, "A100": 19.5e12}
"""Peak FLOPs per second of NVIDIA's data sheets, without sparsity; fp32 without TF32. The first
name that matches is used."""
_CLIP = 1.0


class Stopwatch:
    """A stopwatch for the parts of a step, in milliseconds; on CUDA it uses events."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._steps = 0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of a step. The part `optimizer` is the last of a step."""
        start = self._now()
        yield
        self._spans[name].append((start, self._now()))
        self._steps += name == "optimizer"

    def clear(self) -> None:
        """Delete all measurements."""
        self._spans.clear()
        self._steps = 0

    def medians(self) -> dict[str, float]:
        """Return the medians over the steps; times of a repeated part of a step are added."""
        if self._cuda:
            torch.cuda.synchronize()
        medians = {}
        for name, spans in self._spans.items():
            times = [self._between(*span) for span in spans]
            per_step = len(times) // self._steps
            medians[name] = median(
                sum(times[i : i + per_step]) for i in range(0, len(times), per_step)
            )
        return medians

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) if self._cuda else 1000 * (end - start)


class MasterAdamW:
    """AdamW on float32 copies of the parameters, as DeepSpeed uses for bf16."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._is_copied = any(p.dtype != torch.float32 for p in self._parameters)
        self._masters = [
            p.detach().float().clone().requires_grad_() if self._is_copied else p
            for p in self._parameters
        ]
        fused = self._parameters[0].device.type == "cuda"
        self._adam = torch.optim.AdamW(self._masters, lr=1e-6, betas=(0.9, 0.95), fused=fused)

    def step(self) -> None:
        """Clip the gradients, update and copy the parameters, and delete the gradients."""
        if self._is_copied:
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                master.grad = None if parameter.grad is None else parameter.grad.float()
        nn.utils.clip_grad_norm_(self._masters, _CLIP)
        self._adam.step()
        if self._is_copied:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, self._masters)
        for tensor in (*self._parameters, *self._masters):
            tensor.grad = None


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the peak FLOPs per second: of a GPU from its data sheet, of a CPU as measured.

    None means that the GPU is unknown.
    """
    if device.type == "cuda":
        peaks = _DENSE_BF16 if dtype == torch.bfloat16 else _DENSE_FP32
        name = torch.cuda.get_device_name(device)
        # "NVIDIA H100 80GB HBM3" is the SXM module; the name of the PCIe card contains "PCIe".
        matches = [peak for key, peak in peaks.items() if all(word in name for word in key.split())]
        return matches[0] if matches else None
    side, best = 1024, 0.0
    # A CPU without bfloat16 instructions is faster in float32, which parts of a step use.
    for kind in {dtype, torch.float32}:
        a, b = torch.rand(2, side, side, dtype=kind)
        for _ in range(5):
            started = time.perf_counter()
            a @ b
            best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best
