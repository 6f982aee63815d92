"""Runs the benchmarks that end in minutes, and writes their figures into one page.

`make nightly`, or `python -m benchmarks nightly --page docs/notes/benchmarks.md`: each benchmark
runs in a process of its own with a time limit; one that fails is named and the others go on.
Without `--source` (a folder of models in Objaverse's layout) the project's own demo objects are
rendered.
"""

import argparse
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
from pipelines.demo.demo_mirror import write_demo_source

__all__ = ["JOBS", "Job", "Outcome", "main", "page", "run"]

_PACKAGES = ("torch", "bpy", "ray", "deepspeed")


@dataclass(frozen=True)
class Job:
    """A benchmark with its settings; `{source}` and `{work}` stand for folders."""

    name: str
    words: str
    seconds: float = 180.0
    """After which it is ended, and has failed."""


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
    Job(
        "train_step",
        "--stage nerf mesh --preset tiny --precision fp32 --no-lpips --repeat 1 "
        "--inputs 4 --views 4 --size 96",
        300,
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a benchmark."""

    job: Job
    seconds: float
    figures: Sequence[Figure] = ()
    problem: str = ""
    """Empty if it ended well."""


def run(job: Job, source: Path, work: Path) -> Outcome:
    """Run one benchmark; all it printed goes to standard error."""
    found = work / "figures.json"
    found.unlink(missing_ok=True)
    words = job.words.format(source=source, work=work).split()
    command = [sys.executable, "-m", "benchmarks", job.name, *words, "--figures", str(found)]
    print(f"$ {' '.join(command[1:])}", file=sys.stderr, flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    problem = ""
    try:
        code = process.wait(job.seconds)
        if code:
            problem = f"exit code {code}"
        elif not found.exists():
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
    return Outcome(job, seconds, read_figures(found))


def page(outcomes: Sequence[Outcome], machine: str, versions: str) -> str:
    """The page, as Markdown."""
    return "\n".join(_lines(outcomes, machine, versions)) + "\n"


def _lines(outcomes: Sequence[Outcome], machine: str, versions: str) -> Iterator[str]:
    failed = [one for one in outcomes if one.problem]
    yield "# Benchmarks"
    yield ""
    yield "For people who change the code: `make nightly` writes this page, with settings that take"
    yield "minutes, to show whether a change made something slower. Compare its figures only with"
    yield "those of the same machine. The other notes have the figures to plan with."
    yield ""
    yield f"- {datetime.now(UTC):%Y-%m-%d}"
    yield f"- {machine}"
    yield f"- {versions}"
    yield f"- {len(outcomes)} benchmarks, {len(failed)} failed"
    yield ""
    yield "| benchmark | settings | duration | figure | value | unit |"
    yield "|---|---|---|---|---|---|"
    for one in outcomes:
        words = f"`{one.job.words}`" if one.job.words else ""
        start = f"| `{one.job.name}` | {words} | {one.seconds:.0f} s "
        if one.problem:
            yield f"{start}| **failed**: {one.problem} | | |"
        for figure in one.figures:
            yield f"{start}| {figure.name} | {_value(figure.value)} | {figure.unit} |"
            start = "| | | "


def _value(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> str:
    """Processor, cores, memory, GPU."""
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
    """Of Python and of what the figures depend on most."""
    found = [f"Python {platform.python_version()}"]
    return ", ".join(found + [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them all; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--page", type=Path, required=True, help="the page to write")
    parser.add_argument("--source", type=Path, help="models; by default the demo's")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the benchmarks [all]")
    args = parser.parse_args(arguments)
    # So that what runs is ended as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    jobs = [job for job in JOBS if not args.only or job.name in args.only]
    with tempfile.TemporaryDirectory() as folder:
        work, here = Path(folder), machine()
        if args.source is None:
            write_demo_source(work / "source")
        outcomes = []
        for job in jobs:
            outcomes.append(run(job, args.source or work / "source", work))
            args.page.write_text(page(outcomes, here, versions()))
    return int(any(one.problem for one in outcomes))
