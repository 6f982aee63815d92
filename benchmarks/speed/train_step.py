"""Measure the time and the memory of a training step by part.

`python -m benchmarks train_step --stage mesh --preset base` prints the median milliseconds of each
part of a step, without loader and DeepSpeed, and on a GPU the peak memory in GiB and the share of
its peak FLOPs. `--json FILE` appends the same as one JSON object per line. Images and LPIPS weights
are random, which costs the same as real ones; cameras are on an orbit; the mesh is a sphere, so
that the number of triangles is realistic.
"""

import argparse
import gc
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from benchmarks.speed.step_inputs import StepBatch, random_batch, start_as_sphere
from benchmarks.speed.step_timing import MasterAdamW, Stopwatch, peak_flops
from core.errors import BadInput, LrmError
from train.models.lpips import Lpips
from train.models.lrm.losses import MeshLossConfig, NerfLossConfig, mesh_loss, nerf_loss
from train.models.lrm.lrm import PRESETS, MeshLRM, NerfLRM, mesh_preset, nerf_preset
from train.models.lrm.mesh import MeshSynthesizer
from train.models.surfaces.rasterize import RasterizerName, open_rasterizer

__all__ = ["main", "measure_step"]

LossFunction = Callable[[Stopwatch, Tensor], dict[str, Tensor]]
"""Functions from planes to loss terms."""

_PATCH, _FRAME = 192, 512
_WARM_UP = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every configuration; if one fails, such as out of memory, the others still run."""
    options = _parser().parse_args(arguments)
    failed, figures = [], []
    for stage in options.stage:
        for preset in options.preset:
            # Memory of the last configuration must not count for this one.
            gc.collect()
            try:
                result = measure_step(stage, preset, options)
                _report(result, options.json)
                figures += _figures(result)
            except LrmError as error:
                raise SystemExit(f"train_step: {error}") from None
            except RuntimeError as error:
                failed.append(f"{stage} {preset}")
                print(f"{stage} {preset} failed: {error}", flush=True)
    write_figures(options.figures, figures)
    if failed:
        raise SystemExit(f"train_step: failed: {', '.join(failed)}")


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--stage", nargs="+", choices=["nerf", "mesh"], default=["nerf"], help="training stages")
    presets = ", ".join(PRESETS)
    add(
        "--preset",
        nargs="+",
        choices=list(PRESETS),
        default=["base"],
        metavar="PRESET",
        help=f"model sizes: {presets}",
    )
    add("--precision", choices=["bf16", "fp32"], default="bf16", help="type of the parameters")
    add("--batch", type=int, default=1, help="objects per step")
    add("--inputs", type=int, default=6, help="input views of the model")
    add("--views", type=int, default=10, help="supervised views")
    add(
        "--size",
        type=int,
        help=f"width and height of these views in pixels [default: {_PATCH} in stage 1, "
        f"{_FRAME} in stage 2]",
    )
    add("--no-lpips", action="store_true", help="omit the LPIPS loss")
    add("--compile", action="store_true", help="compile encoder, transformer and volume rendering")
    add("--rasterizer", choices=["torch", "nvdiffrast"], default="torch", help="for stage 2")
    add("--repeat", type=int, default=10, help="measured steps, after 3 unmeasured ones")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--json", metavar="FILE", type=Path, help="append the results to this file")
    add_figures(parser)
    return parser


def measure_step(stage: str, preset: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the median milliseconds of each part of a step, the peak memory and the FLOPs.

    Raises BadInput if the rasterizer cannot run on the device.
    """
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    torch.manual_seed(0)
    step = _Step(stage, preset, options, device)
    compiled = step.compile() if options.compile else []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch = Stopwatch(device)
    for i in range(_WARM_UP + options.repeat):
        if i == _WARM_UP:
            watch.clear()
        step.run(watch)
    milliseconds = watch.medians()
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    flops = None if options.compile else _flops(step)
    total = sum(milliseconds.values())
    peak = peak_flops(device, step.dtype)
    return {
        "stage": stage,
        "preset": preset,
        "precision": options.precision,
        "batch": options.batch,
        "inputs": options.inputs,
        "views": options.views,
        "size": step.batch.size[0],
        "lpips": not options.no_lpips,
        "compiled": compiled,
        "rasterizer": options.rasterizer if stage == "mesh" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in step.model.parameters()),
        "triangles": step.triangles,
        "milliseconds": {part: round(value, 2) for part, value in milliseconds.items()},
        "step_milliseconds": round(total, 2),
        "peak_bytes": memory,
        "flops": flops,
        "peak_flops": peak,
        "share_of_peak": flops / (total / 1000) / peak if flops and peak else None,
    }


class _Step:
    """A model, its optimizer and a batch, to run steps."""

    def __init__(
        self, stage: str, preset: str, options: argparse.Namespace, device: torch.device
    ) -> None:
        self.dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        weight = 0.0 if options.no_lpips else 2.0
        self.lpips = _random_lpips(device) if weight else None
        self.triangles: int | None = None
        if options.inputs > options.views:
            inputs, views = options.inputs, options.views
            raise BadInput(f"--inputs {inputs} exceeds --views {views}; inputs are among the views")
        self.model, self.losses, size = self._build(
            stage, preset, options.rasterizer, weight, device
        )
        self.model.to(device=device, dtype=self.dtype)
        if isinstance(self.model, MeshLRM):
            start_as_sphere(self.model, device)
        self.optimizer = MasterAdamW(self.model)
        sizes = (options.inputs, options.views, self._image_size, options.size or size)
        self.batch: StepBatch = random_batch(options.batch, *sizes, device)
        self.encode: Callable[..., Tensor] = self.model.encoder
        self.transform: Callable[..., Tensor] = self.model.transformer

    def _build(
        self,
        stage: str,
        preset: str,
        rasterizer: RasterizerName,
        lpips_weight: float,
        device: torch.device,
    ) -> tuple[NerfLRM | MeshLRM, LossFunction, int]:
        """Return the stage's model, the function from planes to losses, and the size of views."""
        if stage == "nerf":
            nerf = nerf_preset(preset)
            self._image_size = nerf.image_size
            return NerfLRM(nerf), partial(self._nerf, NerfLossConfig(lpips=lpips_weight)), _PATCH
        open_rasterizer(rasterizer, device)
        config = mesh_preset(preset)
        self._image_size = config.image_size
        mesh = config.mesh.model_copy(update={"rasterizer": rasterizer})
        model = MeshLRM(config.model_copy(update={"mesh": mesh}))
        return model, partial(self._mesh, MeshLossConfig(lpips=lpips_weight)), _FRAME

    def compile(self) -> list[str]:
        """Compile the parts with static shapes; return their names."""
        self.encode, self.transform = torch.compile(self.encode), torch.compile(self.transform)
        if isinstance(self.model, MeshLRM):
            # The number of triangles changes at every step, which would compile it every time.
            return ["encoder", "transformer"]
        synthesizer: Any = self.model.synthesizer
        synthesizer._render = torch.compile(synthesizer._render)
        return ["encoder", "transformer", "render"]

    def run(self, watch: Stopwatch) -> None:
        """Run one step, and time its parts."""
        batch = self.batch
        with watch.part("encode"):
            tokens = self.encode(batch.images.flatten(0, 1), batch.cameras.flatten(0, 1))
        with watch.part("transform"):
            planes = self.transform(tokens.unflatten(0, batch.images.shape[:2]).flatten(1, 2))
        # The backward pass in two halves, to time them separately.
        planes_leaf = planes.detach().requires_grad_()
        terms = self.losses(watch, planes_leaf)
        with watch.part("backward: picture"):
            terms["loss"].backward()
        with watch.part("backward: planes"):
            planes.backward(planes_leaf.grad)
        with watch.part("optimizer"):
            self.optimizer.step()

    def _nerf(self, loss: NerfLossConfig, watch: Stopwatch, planes: Tensor) -> dict[str, Tensor]:
        """Render the objects one at a time, as the recipe does; return the mean losses."""
        batch, object_terms = self.batch, []
        for i in range(len(planes)):
            part = slice(i, i + 1)
            with watch.part("render"):
                rendered = self.model.synthesizer(
                    planes[part], batch.views[part], batch.lenses[part], batch.size
                )
            with watch.part("loss"):
                targets = (batch.rgb[part], batch.alpha[part])
                object_terms.append(
                    nerf_loss(rendered.rgb, rendered.alpha, *targets, loss, self.lpips)
                )
        return {
            name: torch.stack([terms[name] for terms in object_terms]).mean()
            for name in object_terms[0]
        }

    def _mesh(self, loss: MeshLossConfig, watch: Stopwatch, planes: Tensor) -> dict[str, Tensor]:
        batch, synthesizer = self.batch, self.model.synthesizer
        assert isinstance(synthesizer, MeshSynthesizer)
        with watch.part("geometry"):
            geometry = synthesizer.geometry(planes)
        with watch.part("render"):
            rendered = synthesizer.render(planes, geometry, batch.views, batch.lenses, batch.size)
        self.triangles = sum(len(surface.faces) for surface in geometry.surfaces)
        with watch.part("loss"):
            targets = (batch.rgb, batch.alpha, batch.depth, batch.normals)
            return mesh_loss(rendered, geometry, *targets, loss, self.lpips)


def _random_lpips(device: torch.device) -> Lpips:
    """Return LPIPS with random weights, which has the cost of the real one."""
    model = Lpips()
    for weight in model.linear:
        weight.data.uniform_(0, 1)
    return model.to(device)


def _flops(step: _Step) -> int:
    """Return the FLOPs of matrix products, convolutions and attention in a step.

    Operations that activation checkpointing repeats in the backward pass count twice.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        step.run(Stopwatch(step.batch.images.device))
    return int(counter.get_total_flops())


def _report(result: dict[str, Any], path: Path | None) -> None:
    facts = {
        name: result[name]
        for name in ("stage", "preset", "precision", "batch", "compiled", "device", "triangles")
        if result[name]
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    total = result["step_milliseconds"]
    for part, value in result["milliseconds"].items():
        print(f"  {part:18} {value:10.2f} ms  {100 * value / total:5.1f} %")
    print(f"  {'step':18} {total:10.2f} ms")
    if result["peak_bytes"]:
        print(f"  peak memory {result['peak_bytes'] / 2**30:.2f} GiB")
    if result["flops"]:
        print(f"  {result['flops'] / 1e12:.3f} TFLOP per step", end="")
        if result["share_of_peak"]:
            peak = result["peak_flops"] / 1e12
            print(f", {100 * result['share_of_peak']:.1f} % of the peak of {peak:.1f} TFLOP/s")
        else:
            print()
    print(end="", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")


def _figures(result: dict[str, Any]) -> list[Figure]:
    name = (
        f"step of {result['stage']} {result['preset']}, {result['precision']}, "
        f"{result['views']} views of {result['size']}^2"
    )
    figures = [Figure(name, result["step_milliseconds"] / 1000, "s")]
    if result["share_of_peak"]:
        figures.append(
            Figure(f"{name}: share of the peak FLOPs", 100 * result["share_of_peak"], "%")
        )
    return figures
