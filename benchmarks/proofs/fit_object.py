"""Fit the views of one object, to check cameras, rendering, losses and decoders.

The encoder and the transformer are omitted: a triplane and the decoders are fitted to the views of
one object, first as a radiance field (stage 1), then from there as a mesh (stage 2). Every eighth
view is held out. `python -m benchmarks fit_object --root DATASET` fits the objects of the newest
snapshot, which needs a build with `--geometry`. `--export DIR` only writes one file per object, and
`--data FILE ...` fits such files where the dataset is not available.

It prints PSNR in dB, Chamfer distance (CD) and depth error in world units, angles of normals in
degrees and seconds, and writes results.json and one image per object to `--out`.
"""

import argparse
import dataclasses
import json
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.help_text import benchmark_parser
from benchmarks.proofs.fit_data import FitObject, FitViews, export_objects, read_object
from benchmarks.proofs.fit_measures import (
    angles,
    mean_psnr,
    sample_mesh,
    seen_points,
    surface_distance,
)
from benchmarks.proofs.fit_pictures import comparison
from benchmarks.proofs.fit_stages import FitSettings, FreeMesh, fit_mesh, fit_nerf, show
from core.errors import LrmError
from train.monitoring.depth_and_normals import depth_normals

__all__ = ["main", "measure_mesh"]

_EVERY = 8
"""The first of every 8 views is held out."""
_SURFACE_POINTS = 16384
_CPU = FitSettings(
    size=128,
    steps_nerf=600,
    rays=3072,
    samples_per_ray=64,
    steps_mesh=80,
    views=4,
    grid=64,
)
_LIMITS = {"psnr stage 1": (">=", 27.0), "chamfer": ("<=", 0.03), "normals median": ("<=", 20.0)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Export the objects or fit them."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except LrmError as error:
        raise SystemExit(f"fit_object: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--root", metavar="DATASET", help="folder or URI of a dataset")
    source.add_argument("--data", metavar="FILE", nargs="+", type=Path, help="exported objects")
    add = parser.add_argument
    add("--snapshot", default="latest", help="snapshot of the dataset [default: the newest]")
    add(
        "--object",
        metavar="ID",
        action="append",
        default=[],
        help="asset id; can be repeated [default: all objects]",
    )
    add("--export", metavar="DIR", type=Path, help="only write one file per object to this folder")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--out", metavar="DIR", type=Path, default=Path("fit"), help="folder for the results")
    for field in dataclasses.fields(FitSettings):
        gpu, cpu = field.default, getattr(_CPU, field.name)
        default = f"{gpu}" if gpu == cpu else f"{gpu}, on a CPU {cpu}"
        add(
            f"--{field.name.replace('_', '-')}",
            type=type(gpu),
            metavar="N",
            help=f"{field.metadata['help']} [default: {default}]",
        )
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.export is not None:
        if options.root is None:
            raise SystemExit("fit_object: --export needs --root")
        for path in export_objects(options.root, options.snapshot, options.object, options.export):
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        return
    with TemporaryDirectory() as folder:
        paths = options.data or export_objects(
            options.root, options.snapshot, options.object, Path(folder)
        )
        _fit_all(paths, options)


def _fit_all(paths: Sequence[Path], options: argparse.Namespace) -> None:
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    options_given = {
        field.name: getattr(options, field.name) for field in dataclasses.fields(FitSettings)
    }
    settings = dataclasses.replace(
        FitSettings() if device.type == "cuda" else _CPU,
        **{field: value for field, value in options_given.items() if value is not None},
    )
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    header = {
        "device": machine,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "settings": dataclasses.asdict(settings),
        "limits": _LIMITS,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for path in paths:
        results.append(fit(read_object(path), settings, device, options.out))
        # Write after each object, so that a later failure loses no results.
        (options.out / "results.json").write_text(
            json.dumps(header | {"objects": results}, indent=1) + "\n"
        )
    _print_table(results)


def fit(item: FitObject, settings: FitSettings, device: torch.device, out: Path) -> dict[str, Any]:
    """Fit one object, write its comparison image, and return the measurements."""
    print(f"{item.name}: {len(item.views.cameras)} views", flush=True)
    views = item.at_size(settings.size, device)
    held_out = torch.arange(len(views), device=device) % _EVERY == 0
    training, test = views.select(~held_out), views.select(held_out)
    started = time.monotonic()
    nerf = fit_nerf(training, settings)
    stage_1 = _pictures(nerf, test)
    stage_1_end = time.monotonic()
    result: dict[str, Any] = {"object": item.name, "seconds stage 1": stage_1_end - started}
    result["psnr stage 1"] = mean_psnr(stage_1["rgb"], test.rgb)
    print(f"  stage 1: PSNR {result['psnr stage 1']:.2f} dB", flush=True)
    initial_mesh = FreeMesh(settings, nerf).to(device)
    result |= {
        f"start {name}": value for name, value in _measured(initial_mesh, item, views).items()
    }
    mesh = fit_mesh(training, nerf, settings)
    result["seconds stage 2"] = time.monotonic() - stage_1_end
    stage_2 = _pictures(mesh, test)
    result["psnr stage 2"] = mean_psnr(stage_2["rgb"], test.rgb)
    result |= _view_errors(stage_2, test) | _measured(mesh, item, views)
    target = {name: getattr(test, name) for name in ("rgb", "alpha", "depth", "normals")}
    sheet = comparison({"target": target, "stage 1": stage_1, "stage 2": stage_2})
    sheet.save(out / f"{item.name.replace(':', '-')}.png")
    print(_measurements(result), flush=True)
    return result


def _pictures(model: Any, views: FitViews) -> dict[str, Tensor]:
    """Render the views; the normals of a radiance field are computed from its depth."""
    renders = show(model, views)
    names = ("rgb", "alpha", "depth", "normals")
    images = {
        name: torch.cat([getattr(view, name)[0] for view in renders])
        for name in names
        if hasattr(renders[0], name)
    }
    if "normals" not in images:
        cameras = (views.camera_to_world, views.intrinsics)
        images["normals"] = depth_normals(images["depth"], *cameras)
    return images


def _view_errors(rendered: dict[str, Tensor], target: FitViews) -> dict[str, float]:
    """Return the median errors of depth and normals where both images show a surface."""
    in_both = ((rendered["depth"] > 0) & (target.depth > 0))[:, 0]
    depth_errors = (rendered["depth"] - target.depth).abs()[:, 0][in_both]
    cosines = F.cosine_similarity(rendered["normals"], target.normals, dim=1)[in_both]
    degrees = cosines.clamp(-1, 1).acos().rad2deg()
    return {
        "depth median": float(depth_errors.median()),
        "view normals median": float(degrees.median()),
    }


def _measured(model: FreeMesh, item: FitObject, views: FitViews) -> dict[str, float]:
    vertices, faces = (part.cpu().numpy() for part in model.mesh())
    depth = torch.cat([rendered.depth[0, :, 0] for rendered in show(model, views)])
    return measure_mesh(vertices, faces, depth.cpu().numpy(), item)


def measure_mesh(
    vertices: np.ndarray, faces: np.ndarray, depth: np.ndarray, item: FitObject
) -> dict[str, float]:
    """Compare a mesh with the true surface; an empty mesh is infinitely far from it.

    `depth` are the depth maps of the mesh for the object's cameras. The `outer` figures use only
    points that a view shows, of the mesh and of the true surface, because the inside of an object
    cannot be learned from its views.
    """
    try:
        points, normals = sample_mesh(vertices, faces, _SURFACE_POINTS, seed=0)
    except ValueError:
        return {"triangles": 0, "chamfer": np.inf, "normals median": 180.0}
    to_true, to_mesh = surface_distance(points, item.points[:_SURFACE_POINTS])
    degrees = angles(points, normals, item.points, item.normals)
    result = {
        "triangles": len(faces),
        "chamfer": (to_true + to_mesh) / 2,
        "mesh to true": to_true,
        "true to mesh": to_mesh,
        "normals median": float(np.median(degrees)),
        "normals median unsigned": float(np.median(np.minimum(degrees, 180 - degrees))),
    }
    outer = seen_points(points, item.views.cameras, depth)
    true_outer = seen_points(item.points, item.views.cameras, item.views.depth)
    result |= {"outer share": float(outer.mean()), "true outer share": float(true_outer.mean())}
    if outer.any() and true_outer.any():
        distances = surface_distance(points[outer], item.points[true_outer][:_SURFACE_POINTS])
        degrees = angles(
            points[outer], normals[outer], item.points[true_outer], item.normals[true_outer]
        )
        result |= {
            "chamfer outer": sum(distances) / 2,
            "normals median outer": float(np.median(degrees)),
        }
    return result


_LABELS = {
    "psnr stage 1": "PSNR of stage 1 {} dB",
    "psnr stage 2": "of stage 2 {} dB",
    "start chamfer": "initial CD {}",
    "chamfer": "CD {}",
    "chamfer outer": "outer CD {}",
    "normals median": "normals {} degrees",
    "normals median outer": "outer normals {} degrees",
    "depth median": "depth of views {}",
    "view normals median": "normals of views {} degrees",
    "seconds stage 1": "stage 1 {} s",
    "seconds stage 2": "stage 2 {} s",
}
"""Measurements that are printed, and their texts."""


def _measurements(result: dict[str, Any]) -> str:
    parts = [text.format(f"{result[name]:.4g}") for name, text in _LABELS.items() if name in result]
    return textwrap.fill(", ".join(parts), 100, initial_indent="  ", subsequent_indent="  ")


def _print_table(results: Sequence[dict[str, Any]]) -> None:
    limits = [f"{name} {sign} {limit:g}" for name, (sign, limit) in _LIMITS.items()]
    print(f"limits: {', '.join(limits)}")
    for result in results:
        passed = all(
            result[name] >= limit if sign == ">=" else result[name] <= limit
            for name, (sign, limit) in _LIMITS.items()
        )
        print(f"{result['object']}: {'within' if passed else 'not within'} the limits")
        print(_measurements(result))
