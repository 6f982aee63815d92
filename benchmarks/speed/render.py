"""What rendering costs and how good it is, beside the script that people use, on the same cores.

`python -m benchmarks render --source DIR` renders all views with all passes as `lrm build` does,
then the same models by benchmarks/speed/baseline_render.py, and compares colours with a reference
of 1,024 samples. docs/notes/rendering.md holds a run's figures.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.real_models import choose_models
from dataset.cameras import Camera
from dataset.views import ViewSet, depth_scale_for, encode_view
from render.check import check_views
from render.process import BlenderProcess
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig

_CORES = len(os.sched_getaffinity(0))
_REFERENCE = RenderConfig(samples=1024, denoise=False)
_ENDLESS = BlenderLimits(threads=_CORES, render_seconds=1e6, memory_bytes=1 << 37)


@dataclass(frozen=True)
class Ours:
    """One object as `lrm build` renders it."""

    views: ViewSet
    samples: int
    seconds: float
    cpu_seconds: float
    """Of the worker thread and its child."""
    timings: dict[str, float]
    num_bytes: int
    memory: int


@dataclass(frozen=True)
class Baseline:
    """One object by the script that people use."""

    seconds: float
    cpu_seconds: float
    num_bytes: int
    memory: int


def main() -> None:
    """Render, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="folder in Objaverse's layout")
    parser.add_argument("--objects", type=int, default=8, help="how many models")
    parser.add_argument("--classes", default="textured,animated", help="of labels.json")
    parser.add_argument("--views", type=int, default=32, help="views of each, of rig lrm32")
    parser.add_argument(
        "--baseline-views",
        type=int,
        default=None,
        help="views that the baseline renders; the others are taken to cost the same [all]",
    )
    parser.add_argument(
        "--reference-views", type=int, default=2, help="views of each for PSNR; 0: none"
    )
    parser.add_argument("--samples", type=int, default=RenderConfig().samples, help="at most")
    parser.add_argument("--min-samples", type=int, default=RenderConfig().min_samples)
    parser.add_argument("--quality", type=float, default=RenderConfig().quality, help="in dB")
    add_figures(parser)
    args = parser.parse_args()
    models = choose_models(args.source, args.classes.split(","), args.objects)
    config = RenderConfig(samples=args.samples, min_samples=args.min_samples, quality=args.quality)
    cameras = {path: get_rig("lrm32").cameras(f"objaverse:{path.stem}") for path in models}
    cameras = {path: found[: args.views] for path, found in cameras.items()}

    started = time.monotonic()
    with ThreadPoolExecutor(_CORES) as pool:
        # The largest first: a build of thousands has no end at which cores wait for the last one.
        queue = sorted(models, key=lambda path: -path.stat().st_size)
        futures = {path: pool.submit(render_object, path, cameras[path], config) for path in queue}
        ours = {path: futures[path].result() for path in queue}
    wall = time.monotonic() - started
    print(f"{len(models)} models, {args.views} views at {config.resolution} pixels, {_CORES} cores")
    print(f"ours: {wall / len(models):.1f} s per object on all cores", flush=True)
    for path, found in ours.items():
        print(
            f"{path.stem[:8]}: {found.samples} samples, {found.cpu_seconds:.1f} CPU s", flush=True
        )
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
    cpu = statistics.mean(found.cpu_seconds for found in ours.values())
    baseline_cpu = statistics.mean(found.cpu_seconds for found in baselines.values())
    what = f"{args.views} views of an object"
    size = statistics.mean(found.num_bytes for found in ours.values()) / 1e6
    figures = [
        Figure(f"{what}, CPU time", cpu, "s"),
        Figure("CPU time of the baseline relative to this project", baseline_cpu / cpu, "times"),
        Figure(f"bytes of {what}", size, "MB"),
    ]
    if quality:
        median = statistics.median(inside for inside, _, _ in quality.values())
        figures.append(Figure("PSNR inside, median", median, "dB"))
    write_figures(args.figures, figures)


def render_object(path: Path, cameras: Sequence[Camera], config: RenderConfig) -> Ours:
    """One object on one core, from the file to encoded members, in the child of this thread."""
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
    check_views(views)
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


_OWN = threading.local()


def _blender() -> BlenderProcess:
    """This thread's Blender child, which the kernel ends with it."""
    if not hasattr(_OWN, "blender"):
        _OWN.blender = BlenderProcess(BlenderLimits(threads=1))
    return _OWN.blender


def _cpu_seconds(blender: BlenderProcess) -> float:
    """So far, of this thread and its Blender child, if there is one already."""
    seconds = time.thread_time()
    if blender.pid is not None:
        times = psutil.Process(blender.pid).cpu_times()
        seconds += times.user + times.system
    return seconds


def run_baseline(path: Path, cameras: Sequence[Camera], count: int) -> Baseline:
    """One object by the script that people use, on all cores."""
    with tempfile.TemporaryDirectory() as folder:
        specs = [
            {"camera_to_world": c.camera_to_world.tolist(), "intrinsics": c.intrinsics.tolist()}
            for c in cameras[:count]
        ]
        listed = Path(folder) / "cameras.json"
        listed.write_text(json.dumps(specs))
        command = [sys.executable, "-m", "benchmarks.speed.baseline_render", str(path.absolute())]
        started, cpu_before = time.monotonic(), _ended_children_cpu()
        done = subprocess.run(
            [*command, str(listed), folder, str(RenderConfig().resolution), str(_CORES)],
            capture_output=True,
            text=True,
            check=True,
        )
        wall, cpu = time.monotonic() - started, _ended_children_cpu() - cpu_before
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        share = len(cameras) / count
        num_bytes = sum(picture.stat().st_size for picture in Path(folder).glob("*.png"))
    seconds = wall + figures["render"] * (share - 1)
    cpu += figures["render_cpu"] * (share - 1)
    return Baseline(seconds, cpu, round(num_bytes * share), figures["memory"])


def _ended_children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_quality(path: Path, ours: Ours, count: int) -> tuple[float, float, float]:
    """PSNR in dB against 1,024 samples: ours inside, ours on white, and the baseline's settings.

    Inside are the pixels that the object fills; on white also those that it touches. The third is
    of 128 samples in our light.
    """
    cameras = list(ours.views.cameras)[:count]
    with BlenderProcess(_ENDLESS) as blender:
        blender.open(path, "cube")
        reference, _ = blender.render(cameras, _REFERENCE)
        many, _ = blender.render(cameras, RenderConfig(samples=128, min_samples=128))
    pairs = [(ours.views.rgba[view], reference.rgba[view]) for view in range(count)]
    theirs = [(many.rgba[view], reference.rgba[view]) for view in range(count)]
    inside, white, plenty = (
        statistics.mean(compare(*pair) for pair in chosen)
        for compare, chosen in ((psnr_inside, pairs), (psnr_on_white, pairs), (psnr_inside, theirs))
    )
    return inside, white, plenty


def psnr_inside(found: np.ndarray, reference: np.ndarray) -> float:
    """PSNR of sRGB over the pixels that the object fills in the reference."""
    filled = reference[..., 3] == 255
    return _psnr(found[filled][:, :3] / 255, reference[filled][:, :3] / 255)


def psnr_on_white(found: np.ndarray, reference: np.ndarray) -> float:
    """PSNR of both on a white ground, over the pixels that the object touches."""
    touched = (reference[..., 3] > 0) | (found[..., 3] > 0)
    pixels = found[touched] / 255, reference[touched] / 255
    return _psnr(*(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:] for rgba in pixels))


def _psnr(found: np.ndarray, reference: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((found - reference) ** 2) + 1e-12))


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
    parts = sorted({name for found in ours.values() for name in found.timings})
    means = {
        part: statistics.mean(found.timings.get(part, 0) for found in ours.values())
        for part in parts
    }
    print("seconds per object on one core:", ", ".join(f"{k} {v:.2f}" for k, v in means.items()))
    for name, group in (("ours", ours), ("baseline", baselines)):
        num_bytes = statistics.mean(found.num_bytes for found in group.values())
        memory = max(found.memory for found in group.values())
        print(f"{name}: {num_bytes / 1e6:.2f} MB per object, peak memory {memory / 1e6:.0f} MB")
    theirs = sum(found.seconds for found in baselines.values())
    print(
        f"on all cores: ours {wall / len(ours):.1f} s per object, baseline "
        f"{theirs / len(ours):.1f} s: {theirs / wall:.1f} times as many objects per hour"
    )
    busy = sum(found.seconds for found in ours.values()) / _CORES
    print(f"without the idle cores while the last objects end: {theirs / busy:.1f} times")
    mine, theirs = (
        sum(found.cpu_seconds for found in group) for group in (ours.values(), baselines.values())
    )
    print(
        f"CPU seconds: ours {mine / len(ours):.1f} per object, baseline "
        f"{theirs / len(ours):.1f}: {theirs / mine:.1f} times"
    )


def _report_quality(
    ours: dict[Path, Ours],
    baselines: dict[Path, Baseline],
    quality: dict[Path, tuple[float, float, float]],
) -> None:
    print(
        "| model | samples | s on one core | baseline s, all cores "
        "| dB inside | dB on white | 128 samples |"
    )
    print("|---|---|---|---|---|---|---|")
    for path, (inside, white, many) in quality.items():
        found = ours[path]
        seconds = f"{found.samples} | {found.seconds:.1f} | {baselines[path].seconds:.1f}"
        print(f"| {path.stem[:8]} | {seconds} | {inside:.1f} | {white:.1f} | {many:.1f} |")
    medians = [statistics.median(values) for values in zip(*quality.values(), strict=True)]
    print("\nmedian dB: inside {:.1f}, on white {:.1f}; 128 samples {:.1f}".format(*medians))
