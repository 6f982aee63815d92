"""Compare cost and quality of rendering with those of a typical render script.

`python -m benchmarks render --source DIR` renders all views with all passes as `lrm build` does,
then the same models with benchmarks/speed/baseline_render.py, and compares colours with a reference
of 1,024 samples per pixel. It prints seconds and CPU seconds per object, MB per object, peak memory
and PSNR in dB. docs/notes/rendering.md shows the figures of a run.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from benchmarks.real_models import choose_models
from dataset.cameras import Camera
from dataset.views import ViewSet, depth_scale_for, encode_view
from render.check import check_render
from render.process import BlenderProcess
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig

_CORES = len(os.sched_getaffinity(0))
_REFERENCE = RenderConfig(samples=1024, denoise=False)
_ENDLESS = BlenderLimits(threads=_CORES, render_seconds=1e6, memory_bytes=1 << 37)


@dataclass(frozen=True)
class Ours:
    """The measurements of one object rendered as `lrm build` does."""

    views: ViewSet
    samples: int
    seconds: float
    cpu_seconds: float
    """CPU time of the worker thread and its Blender child."""
    timings: dict[str, float]
    num_bytes: int
    memory: int


@dataclass(frozen=True)
class Baseline:
    """The measurements of one object rendered by the baseline script."""

    seconds: float
    cpu_seconds: float
    num_bytes: int
    memory: int


def main() -> None:
    """Render the models with both programs, and print the measurements."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of models in Objaverse's layout")
    add("--objects", type=int, default=8, help="number of models")
    add(
        "--classes",
        default="textured,animated",
        help="classes of labels.json, separated by commas",
    )
    add("--views", type=int, default=32, help="number of views of each model, from rig lrm32")
    add(
        "--baseline-views",
        type=int,
        default=None,
        help="number of views that the baseline renders; the cost of the others is extrapolated "
        "[default: all]",
    )
    add(
        "--reference-views",
        type=int,
        default=2,
        help="number of views of each model that are compared with the reference; 0 for none",
    )
    config = RenderConfig()
    add("--samples", type=int, default=config.samples, help="maximum samples per pixel")
    add("--min-samples", type=int, default=config.min_samples, help="minimum samples per pixel")
    add("--quality", type=float, default=config.quality, help="quality of adaptive sampling in dB")
    add_figures(parser)
    args = parser.parse_args()
    models = choose_models(args.source, args.classes.split(","), args.objects)
    config = RenderConfig(samples=args.samples, min_samples=args.min_samples, quality=args.quality)
    cameras = {path: get_rig("lrm32").cameras(f"objaverse:{path.stem}") for path in models}
    cameras = {path: of_rig[: args.views] for path, of_rig in cameras.items()}

    started = time.monotonic()
    with ThreadPoolExecutor(_CORES) as pool:
        # The largest first, so that few cores are idle at the end, as in a build of thousands.
        queue = sorted(models, key=lambda path: -path.stat().st_size)
        futures = {path: pool.submit(render_object, path, cameras[path], config) for path in queue}
        ours = {path: futures[path].result() for path in queue}
    wall = time.monotonic() - started
    print(f"{len(models)} models, {args.views} views at {config.resolution} pixels, {_CORES} cores")
    print(f"this project: {wall / len(models):.1f} s per object on all cores", flush=True)
    for path, item in ours.items():
        print(f"{path.stem[:8]}: {item.samples} samples, {item.cpu_seconds:.1f} CPU s", flush=True)
    count = args.baseline_views or args.views
    baselines, quality = {}, {}
    for path in models:
        baselines[path] = run_baseline(path, cameras[path], count)
        print(f"{path.stem[:8]}: baseline {baselines[path].cpu_seconds:.1f} CPU s", flush=True)
        if args.reference_views:
            quality[path] = measure_quality(path, ours[path], args.reference_views)
            print(f"{path.stem[:8]}: {quality[path][0]:.1f} dB", flush=True)
    print()
    _report(ours, baselines, quality, wall)
    cpu = statistics.mean(item.cpu_seconds for item in ours.values())
    baseline_cpu = statistics.mean(item.cpu_seconds for item in baselines.values())
    subject = f"{args.views} views of an object"
    size = statistics.mean(item.num_bytes for item in ours.values()) / 1e6
    figures = [
        Figure(f"{subject}, CPU time", cpu, "s"),
        Figure("CPU time of the baseline relative to this project", baseline_cpu / cpu, "times"),
        Figure(f"bytes of {subject}", size, "MB"),
    ]
    if quality:
        median = statistics.median(filled for filled, _, _ in quality.values())
        figures.append(Figure("PSNR over filled pixels, median", median, "dB"))
    write_figures(args.figures, figures)


def render_object(path: Path, cameras: Sequence[Camera], config: RenderConfig) -> Ours:
    """Render one object on one core, from the file to encoded members, in this thread's child."""
    blender = _blender()
    started, cpu_before = time.monotonic(), _cpu_seconds(blender)
    report = blender.open(path, "cube")
    scale, sizes, encoding = depth_scale_for(cameras), [0], [0.0]

    def encode(view: int, views: ViewSet) -> None:
        began = time.monotonic()
        members = encode_view(view, views.rgba[view], views.depth[view], views.normals[view], scale)
        sizes.append(sum(len(data) for _, data in members))
        encoding.append(time.monotonic() - began)

    views, rendering = blender.render(cameras, config, on_view=encode)
    rendered = time.monotonic()
    check_render(views, rendering, config)
    ended = time.monotonic()
    timings = report.timings | rendering.timings
    timings |= {"encode": sum(encoding), "check": ended - rendered}
    return Ours(
        views=views,
        samples=rendering.samples,
        seconds=ended - started,
        cpu_seconds=_cpu_seconds(blender) - cpu_before,
        timings=timings,
        num_bytes=sum(sizes),
        memory=_peak_memory(blender.pid),
    )


_THREAD = threading.local()


def _blender() -> BlenderProcess:
    """Return this thread's Blender child; the kernel kills it when the thread ends."""
    if not hasattr(_THREAD, "blender"):
        _THREAD.blender = BlenderProcess(BlenderLimits(threads=1))
    return _THREAD.blender


def _cpu_seconds(blender: BlenderProcess) -> float:
    """Return the CPU seconds so far of this thread and its Blender child, if it has one."""
    seconds = time.thread_time()
    if blender.pid is not None:
        times = psutil.Process(blender.pid).cpu_times()
        seconds += times.user + times.system
    return seconds


def run_baseline(path: Path, cameras: Sequence[Camera], count: int) -> Baseline:
    """Render one object with the baseline script on all cores, and extrapolate to all views."""
    with tempfile.TemporaryDirectory() as folder:
        specs = [
            {"camera_to_world": c.camera_to_world.tolist(), "intrinsics": c.intrinsics.tolist()}
            for c in cameras[:count]
        ]
        camera_file = Path(folder) / "cameras.json"
        camera_file.write_text(json.dumps(specs))
        command = [sys.executable, "-m", "benchmarks.speed.baseline_render", str(path.absolute())]
        started, cpu_before = time.monotonic(), _ended_children_cpu()
        process = subprocess.run(
            [*command, str(camera_file), folder, str(RenderConfig().resolution), str(_CORES)],
            capture_output=True,
            text=True,
            check=True,
        )
        wall, cpu = time.monotonic() - started, _ended_children_cpu() - cpu_before
        figures = json.loads(process.stdout.strip().splitlines()[-1])
        share = len(cameras) / count
        num_bytes = sum(picture.stat().st_size for picture in Path(folder).glob("*.png"))
    seconds = wall + figures["render"] * (share - 1)
    cpu += figures["render_cpu"] * (share - 1)
    return Baseline(seconds, cpu, round(num_bytes * share), figures["memory"])


def _ended_children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_quality(path: Path, ours: Ours, count: int) -> tuple[float, float, float]:
    """Return three PSNR in dB against a reference of 1,024 samples per pixel.

    The first is over the pixels that the object fills, the second on a white background over all
    pixels that it touches. The third is over filled pixels again,
    for 128 samples per pixel without adaptive sampling, the baseline's setting, in our light.
    """
    cameras = list(ours.views.cameras)[:count]
    with BlenderProcess(_ENDLESS) as blender:
        blender.open(path, "cube")
        reference, _ = blender.render(cameras, _REFERENCE)
        at_128_samples, _ = blender.render(cameras, RenderConfig(samples=128, min_samples=128))
    pairs = [(ours.views.rgba[view], reference.rgba[view]) for view in range(count)]
    pairs_128 = [(at_128_samples.rgba[view], reference.rgba[view]) for view in range(count)]
    filled, white, filled_128 = (
        statistics.mean(compare(*pair) for pair in chosen)
        for compare, chosen in (
            (psnr_inside, pairs),
            (psnr_on_white, pairs),
            (psnr_inside, pairs_128),
        )
    )
    return filled, white, filled_128


def psnr_inside(actual: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR of sRGB over the pixels that the object fills in the reference, in dB."""
    filled = reference[..., 3] == 255
    return _psnr(actual[filled][:, :3] / 255, reference[filled][:, :3] / 255)


def psnr_on_white(actual: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR of both on a white background over the pixels that the object touches."""
    touched = (reference[..., 3] > 0) | (actual[..., 3] > 0)
    pixels = actual[touched] / 255, reference[touched] / 255
    return _psnr(*(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:] for rgba in pixels))


def _psnr(actual: np.ndarray, reference: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((actual - reference) ** 2) + 1e-12))


def _peak_memory(pid: int | None) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _report(
    ours: dict[Path, Ours],
    baselines: dict[Path, Baseline],
    quality: dict[Path, tuple[float, float, float]],
    wall: float,
) -> None:
    if quality:
        _report_quality(ours, baselines, quality)
    parts = sorted({name for item in ours.values() for name in item.timings})
    means = {
        part: statistics.mean(item.timings.get(part, 0) for item in ours.values()) for part in parts
    }
    timings = "seconds per object on one core: "
    timings += ", ".join(f"{part} {seconds:.2f}" for part, seconds in means.items())
    print(textwrap.fill(timings, 100, subsequent_indent="  "))
    for name, group in (("this project", ours), ("baseline", baselines)):
        num_bytes = statistics.mean(item.num_bytes for item in group.values())
        memory = max(item.memory for item in group.values())
        print(f"{name}: {num_bytes / 1e6:.2f} MB per object, peak memory {memory / 1e6:.0f} MB")
    baseline_seconds = sum(item.seconds for item in baselines.values())
    print(
        f"on all cores: this project {wall / len(ours):.1f} s per object, baseline "
        f"{baseline_seconds / len(ours):.1f} s: {baseline_seconds / wall:.1f} times the speed"
    )
    busy = sum(item.seconds for item in ours.values()) / _CORES
    print(f"without cores that are idle at the end: {baseline_seconds / busy:.1f} times the speed")
    cpu_seconds, baseline_cpu = (
        sum(item.cpu_seconds for item in group) for group in (ours.values(), baselines.values())
    )
    print(
        f"CPU seconds per object: this project {cpu_seconds / len(ours):.1f}, baseline "
        f"{baseline_cpu / len(ours):.1f}: {baseline_cpu / cpu_seconds:.1f} times"
    )


def _report_quality(
    ours: dict[Path, Ours],
    baselines: dict[Path, Baseline],
    quality: dict[Path, tuple[float, float, float]],
) -> None:
    print("PSNR in dB over filled pixels, on white, and of 128 samples without adaptive sampling:")
    print(
        "| model | samples | s on one core | baseline s, all cores "
        "| filled | on white | 128 samples |"
    )
    print("|---|---|---|---|---|---|---|")
    for path, (filled, white, filled_128) in quality.items():
        item = ours[path]
        seconds = f"{item.samples} | {item.seconds:.1f} | {baselines[path].seconds:.1f}"
        print(f"| {path.stem[:8]} | {seconds} | {filled:.1f} | {white:.1f} | {filled_128:.1f} |")
    medians = [statistics.median(values) for values in zip(*quality.values(), strict=True)]
    print("\nmedian dB: filled {:.1f}, on white {:.1f}, 128 samples {:.1f}".format(*medians))
