"""Compare time and memory of a Pixel2Mesh training step with the PyTorch port's.

`python -m benchmarks pixel2mesh_step --port CHECKOUT` runs forward pass, losses and backward pass
of both with the same inputs and weights, checks that the losses are equal, and prints the medians,
the added memory and the ratios. CHECKOUT is a clone of github.com/noahcao/Pixel2Mesh, which runs
unchanged except for its CUDA extension: nearest neighbours are searched by torch.cdist, and
gradients go to the pairs, as in the extension. Ours is measured with its own search and with
torch.cdist. Without `--port`, only ours is measured. Each program has its own process, and their
steps alternate.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from benchmarks.pixel2mesh.compared_steps import Program, open_ours, open_port
from train.models.pixel2mesh.pixel2mesh import PRESETS

__all__ = ["main"]

_WARM_UP = 2
_PARTS = ("forward", "losses", "backward")
_PORT, _OWN, _CDIST = "port, torch.cdist", "ours, own search", "ours, torch.cdist"
_PORT_PRESET = "vgg"
"""The preset that has the sizes of the port's model here."""
_TOLERANCE = 1e-4
"""Largest relative difference of the losses with equal weights."""

Step = dict[str, float]
"""Seconds of each part, `cpu` seconds, `memory` in bytes and `loss` of a step."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all batch sizes, and print the medians."""
    options = _parser().parse_args(arguments)
    if options.port is not None:
        if options.preset != _PORT_PRESET:
            raise SystemExit(f"pixel2mesh_step: --port needs --preset {_PORT_PRESET}")
        if not (options.port / "models/p2m.py").is_file():
            raise SystemExit(
                f"pixel2mesh_step: {options.port}: not a checkout of Pixel2Mesh, it has no "
                "models/p2m.py; git clone https://github.com/noahcao/Pixel2Mesh"
            )
    figures: list[Figure] = []
    for batch in options.batch:
        try:
            steps = _measure(batch, options)
        except BrokenProcessPool:
            raise SystemExit(
                "pixel2mesh_step: a process failed, maybe for lack of memory"
            ) from None
        print(f"preset {options.preset}, batch {batch}")
        for name, step in steps.items():
            print(_line(name, step, None if name == _PORT else steps.get(_PORT)), flush=True)
            title = f"step of {options.preset}, batch {batch}: {name}"
            figures.append(Figure(title, _seconds(step), "s"))
            figures.append(Figure(f"{title}: memory", step["memory"] / 2**20, "MiB"))
    write_figures(options.figures, figures)


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--port", type=Path, metavar="CHECKOUT", help="clone of the PyTorch port")
    add("--preset", choices=list(PRESETS), default=_PORT_PRESET, help="model size")
    add("--batch", type=int, nargs="+", default=[1, 4], help="objects per step")
    add("--repeat", type=int, default=9, help=f"measured steps, after {_WARM_UP} unmeasured ones")
    add("--threads", type=int, help="CPU threads [default: one per core]")
    add_figures(parser)
    return parser


def _measure(batch: int, options: argparse.Namespace) -> dict[str, Step]:
    """Return the medians of each program. Raises SystemExit if their losses differ."""
    names = [_OWN, _CDIST] if options.port is None else [_PORT, _OWN, _CDIST]
    steps: dict[str, list[Step]] = {name: [] for name in names}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, context)) for name in names}
        for name, pool in pools.items():
            pool.submit(_open, name, batch, options, Path(folder, "weights.pt")).result()
        for number in range(_WARM_UP + options.repeat):
            for name, pool in pools.items():
                step = pool.submit(_run).result()
                if number >= _WARM_UP:
                    steps[name].append(step)
    medians = {name: _median(several) for name, several in steps.items()}
    losses = [step["loss"] for step in medians.values()]
    if max(losses) - min(losses) > _TOLERANCE * max(losses):
        shown = ", ".join(f"{name} {step['loss']:.6f}" for name, step in medians.items())
        raise SystemExit(f"pixel2mesh_step: the losses differ, so the steps do not match: {shown}")
    return medians


_opened: list[tuple[Program, int]] = []
"""In a process that runs steps: its program, and its resident memory before the first step."""


def _open(name: str, batch: int, options: argparse.Namespace, weights: Path) -> None:
    """Open a program in this process, with the port's weights if there is a port."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if name == _PORT:
        program = open_port(options.port.resolve(), batch)
        # Without its image decoder, whose loss has no weight, and its constant matrices.
        state = {
            key: value
            for key, value in program.model.state_dict().items()
            if not key.startswith("nn_decoder.") and not key.endswith(".adj_mat")
        }
        torch.save(state, weights)
    else:
        has_port = options.port is not None
        program = open_ours(options.preset, batch, published=has_port, own_search=name == _OWN)
        if has_port:
            program.model.load_state_dict(torch.load(weights))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    _opened.append((program, _memory("VmRSS")))


def _run() -> Step:
    """Run a step, and return its cost."""
    program, start = _opened[0]
    program.model.zero_grad(set_to_none=True)
    cpu, marks = time.process_time(), [time.perf_counter()]
    output = program.predict()
    marks.append(time.perf_counter())
    loss = program.loss(output)
    marks.append(time.perf_counter())
    loss.backward()
    marks.append(time.perf_counter())
    return {
        **{part: end - begin for part, (begin, end) in zip(_PARTS, pairwise(marks), strict=True)},
        "cpu": time.process_time() - cpu,
        "memory": _memory("VmHWM") - start,
        "loss": float(loss.detach()),
    }


def _memory(field: str) -> int:
    """Return the resident memory of this process in bytes (VmRSS), or its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) << 10


def _median(steps: Sequence[Step]) -> Step:
    """Return the medians over steps, of each part on its own, and the largest memory."""
    return {
        key: (max if key == "memory" else median)([step[key] for step in steps]) for key in steps[0]
    }


def _seconds(step: Mapping[str, float]) -> float:
    return sum(step[part] for part in _PARTS)


def _line(name: str, step: Step, port: Step | None) -> str:
    parts = ", ".join(f"{part} {1000 * step[part]:.0f}" for part in _PARTS)
    line = f"  {name:17} {1000 * _seconds(step):8.0f} ms ({parts}), {1000 * step['cpu']:.0f} CPU ms"
    line += f", {step['memory'] / 2**20:.0f} MiB, loss {step['loss']:.6f}"
    if port is not None:
        line += f"; of the port's time {_seconds(step) / _seconds(port):.2f}, "
        line += f"CPU time {step['cpu'] / port['cpu']:.2f}, "
        line += f"memory {step['memory'] / port['memory']:.2f}"
    return line
