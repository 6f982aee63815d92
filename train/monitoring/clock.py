"""Timing of a step's parts, goodput of a run, and detection of slow ranks."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["Goodput", "StepClock", "find_slow_ranks"]


class StepClock:
    """Seconds of the parts of one step, added up over its micro batches.

    On CUDA, parts that only enqueue work are measured between events of the device. The events are
    read at the end of the step, which has waited for the device already.
    """

    def __init__(self) -> None:
        self._on_gpu = torch.cuda.is_available()
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, Any, Any]] = []

    @contextmanager
    def part(self, name: str, *, on_device: bool = False) -> Iterator[None]:
        """Add the time of the block to the part of that name."""
        if on_device and self._on_gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._events.append((name, start, end))
            return
        before = time.monotonic()
        yield
        self._add(name, time.monotonic() - before)

    def read(self) -> dict[str, float]:
        """Return the seconds per part as `seconds_NAME`, and of the step so far as `seconds`."""
        for name, start, end in self._events:
            self._add(name, start.elapsed_time(end) / 1000)
        self._events = []
        parts = {f"seconds_{name}": round(seconds, 4) for name, seconds in self._seconds.items()}
        return {"seconds": round(time.monotonic() - self._started, 4), **parts}

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


class Goodput:
    """Share of the time since the first start of a run that was spent in steps that still count.

    The rest is spent in steps that a killed run has to repeat, starts, checkpoints and validations.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Start from the `rows` of the metrics before the first step of this start."""
        self._start_time = rows[0]["time"] - rows[0]["seconds"] if rows else time.time()
        self._useful = sum(row["seconds"] for row in rows)

    def add(self, seconds: float, now: float) -> float:
        """Add a step that ended at `now` (seconds since the epoch); return the goodput, 0 to 1."""
        self._useful += seconds
        return min(1.0, self._useful / max(now - self._start_time, 1e-9))


def find_slow_ranks(seconds: float, factor: float = 1.5) -> dict[int, float]:
    """Return the ranks whose seconds exceed `factor` times the median of all ranks.

    The values are multiples of the median. Every rank calls it with its own seconds.
    """
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    own = torch.tensor([seconds], dtype=torch.float64, device=device)
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    values = torch.cat(gathered).cpu()
    median = float(values.median())
    if not median:
        return {}
    ranks = enumerate(values.tolist())
    return {rank: value / median for rank, value in ranks if value > factor * median}
