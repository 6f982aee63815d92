"""Run all benchmarks that take minutes, and write their figures to one page.

`make nightly` runs `python -m benchmarks nightly --page docs/notes/benchmarks.md`. Each benchmark
runs in its own process with a time limit in seconds. If one fails, the page says why, the others
still run, and the exit code is 1.
"""

import importlib.metadata
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import Figure, read_figures
from benchmarks.help_text import benchmark_parser
from pipelines.demo.demo_mirror import write_demo_source

__all__ = ["JOBS", "Job", "Outcome", "main", "page", "run"]

_PACKAGES = ("torch", "bpy", "ray", "deepspeed")


@dataclass(frozen=True)
class Job:
    """A benchmark and its options, in which `{source}` and `{work}` are replaced by folders."""

    name: str
    words: str
    seconds: float = 180.0
    """Time limit; a benchmark that exceeds it is killed and counts as failed."""


JOBS = (
    Job("captions", "--rows 1000000"),
    Job("order", ""),
    Job("commits", "--objects 100000"),
    Job("catalog", "--objects 50000 --folder {work}/catalog"),
    Job("executor", "--objects 20000"),
    Job("executor", "--objects 20000 --without-ray"),
    Job(
        "render",
        "--source {source} --objects 2 --views 8 --baseline-views 1 --reference-views 0",
        300,
    ),
    Job("encoding", "--source {source} --objects 2 --views 4"),
    Job("loader", "--work {work}/loader --size 128 --samples 4 --rounds 2", 300),
    Job("surfaces", "--fields 100"),
    Job("rasterize", ""),
    Job("mesh_memory", ""),
    Job("pixel2mesh_step", "--preset tiny --batch 1 --repeat 3 --threads 1"),
    Job(
        "train_step",
        "--stage nerf mesh --preset tiny --precision fp32 --no-lpips --repeat 1 "
        "--inputs 4 --views 4 --size 96",
        300,
    ),
)


@dataclass(frozen=True)
class Outcome:
    """The result of one benchmark."""

    job: Job
    seconds: float
    figures: Sequence[Figure] = ()
    problem: str = ""
    """Why it failed; empty for success."""


def run(job: Job, source: Path, work: Path) -> Outcome:
    """Run one benchmark; its output goes to standard error."""
    figures = work / "figures.json"
    figures.unlink(missing_ok=True)
    words = job.words.format(source=source, work=work).split()
    command = [sys.executable, "-m", "benchmarks", job.name, *words, "--figures", str(figures)]
    print(f"$ {' '.join(command[1:])}", file=sys.stderr, flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    problem = ""
    try:
        code = process.wait(job.seconds)
        if code:
            problem = f"exit code {code}"
        elif not figures.exists():
            problem = "no figures"
    except subprocess.TimeoutExpired:
        problem = f"not done after {job.seconds:g} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - started
    if problem:
        print(f"{job.name}: {problem}", file=sys.stderr, flush=True)
        return Outcome(job, seconds, problem=problem)
    return Outcome(job, seconds, read_figures(figures))


def page(outcomes: Sequence[Outcome], machine: str, versions: str) -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines(outcomes, machine, versions)) + "\n"


def _lines(outcomes: Sequence[Outcome], machine: str, versions: str) -> Iterator[str]:
    failed = [outcome for outcome in outcomes if outcome.problem]
    yield "# Benchmarks"
    yield ""
    yield "For people who change the code. `make nightly` writes this page, with small settings, to"
    yield "show whether a change made something slower. Compare its figures only with those of the"
    yield "same machine. The other notes have the figures to plan with."
    yield ""
    yield f"- {datetime.now(UTC):%Y-%m-%d}"
    yield f"- {machine}"
    yield f"- {versions}"
    yield f"- {len(outcomes)} benchmarks, {len(failed)} failed"
    yield ""
    yield "| benchmark | settings | duration | figure | value | unit |"
    yield "|---|---|---|---|---|---|"
    for outcome in outcomes:
        options = f"`{outcome.job.words}`" if outcome.job.words else ""
        start = f"| `{outcome.job.name}` | {options} | {outcome.seconds:.0f} s "
        if outcome.problem:
            yield f"{start}| **failed**: {outcome.problem} | | |"
        for figure in outcome.figures:
            yield f"{start}| {figure.name} | {_value(figure.value)} | {figure.unit} |"
            start = "| | | "


def _value(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> str:
    """Describe this machine: processor, cores, memory, GPU and load."""
    text = Path("/proc/cpuinfo").read_text()
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{names[0] if names else platform.machine()}, {cores} cores, {memory:.0f} GiB of memory, "
        f"{_gpu()}; load {load:.1f} at the start"
    )


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def versions() -> str:
    """Return the versions of Python and of the packages that affect the figures most."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *packages])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all benchmarks; return 1 if one failed."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--page", type=Path, required=True, help="Markdown file to write")
    parser.add_argument(
        "--source",
        type=Path,
        help="folder of models in Objaverse's layout to render [default: the demo's objects]",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="run these benchmarks only [default: all]"
    )
    args = parser.parse_args(arguments)
    # Exit by an exception, so that the benchmark that is running is killed as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    jobs = [job for job in JOBS if not args.only or job.name in args.only]
    with tempfile.TemporaryDirectory() as folder:
        work, description = Path(folder), machine()
        if args.source is None:
            write_demo_source(work / "source")
        outcomes = []
        for job in jobs:
            outcomes.append(run(job, args.source or work / "source", work))
            args.page.write_text(page(outcomes, description, versions()))
    return int(any(outcome.problem for outcome in outcomes))
