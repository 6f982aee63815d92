"""Where the time of a step goes, and what share of a run's time led anywhere."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["Goodput", "StepClock", "find_slow_ranks"]


class StepClock:
    """Seconds of the parts of one step, added up over its micro-batches.

    On CUDA, parts that only queue work are measured between events of the device; they are read
    after the step has waited for the device anyway.
    """

    def __init__(self) -> None:
        self._on_gpu = torch.cuda.is_available()
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, Any, Any]] = []

    @contextmanager
    def part(self, name: str, *, on_device: bool = False) -> Iterator[None]:
        """Count the block's time under a name."""
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
        """Seconds per part as `seconds_NAME`, and `seconds` of the whole step so far."""
        for name, start, end in self._events:
            self._add(name, start.elapsed_time(end) / 1000)
        self._events = []
        parts = {f"seconds_{name}": round(spent, 4) for name, spent in self._seconds.items()}
        return {"seconds": round(time.monotonic() - self._started, 4), **parts}

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


class Goodput:
    """The share of the time since a run first started that went into steps which still count.

    Steps that a killed run has to do again, starts, checkpoints and validations are the rest.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """`rows` are those of the metrics that the run goes on from."""
        timed = [row for row in rows if "time" in row]
        self._began = timed[0]["time"] - timed[0]["seconds"] if timed else time.time()
        self._useful = sum(row["seconds"] for row in timed)

    def add(self, seconds: float, now: float) -> float:
        """Count one step that ended now; the share, from 0 to 1."""
        self._useful += seconds
        return min(1.0, self._useful / max(now - self._began, 1e-9))


def find_slow_ranks(seconds: float, factor: float = 1.5) -> dict[int, float]:
    """Ranks whose own seconds are above `factor` times the median of all; every rank calls it."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    own = torch.tensor([seconds], dtype=torch.float64, device=device)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    values = torch.cat(every).cpu()
    usual = float(values.median())
    found = enumerate(values.tolist())
    return {rank: spent / usual for rank, spent in found if usual and spent > factor * usual}
