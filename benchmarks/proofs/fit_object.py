"""Fit one object: proves cameras, rendering, losses and both decoders on a real model's views.

The transformer is left out: a free triplane and the decoders learn the views of one object, first
as a radiance field (stage 1), then, starting from that, as a mesh (stage 2). Every eighth view is
held out. `python -m benchmarks fit_object --root DATASET` fits the objects of the newest snapshot,
which `lrm build --geometry` and `lrm snapshot` made; with `--export DIR` it only writes a file for
each, and `--data FILE ...` fits those where the dataset is not at hand.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
"""Of so many views the first is held out."""
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
    """Export or fit."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except LrmError as error:
        raise SystemExit(f"fit_object: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--root", metavar="DATASET", help="folder or URI of a dataset")
    source.add_argument("--data", metavar="FILE", nargs="+", type=Path, help="exported objects")
    parser.add_argument("--snapshot", metavar="ID", help="by default the newest")
    parser.add_argument("--object", metavar="ID", action="append", default=[], help="asset ids")
    parser.add_argument("--export", metavar="DIR", type=Path, help="write files and end")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("fit"))
    for field in dataclasses.fields(FitSettings):
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind)
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
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(FitSettings)}
    settings = dataclasses.replace(
        FitSettings() if device.type == "cuda" else _CPU,
        **{field: value for field, value in given.items() if value is not None},
    )
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    about = {
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
        # After each, so that what was measured is kept whatever comes next.
        (options.out / "results.json").write_text(
            json.dumps(about | {"objects": results}, indent=1) + "\n"
        )
    _print_table(results)


def fit(one: FitObject, settings: FitSettings, device: torch.device, out: Path) -> dict[str, Any]:
    """Fit one object, write its picture, and return what was measured."""
    print(f"{one.name}: {len(one.views.cameras)} views", flush=True)
    views = one.at_size(settings.size, device)
    held = torch.arange(len(views), device=device) % _EVERY == 0
    training, test = views.select(~held), views.select(held)
    started = time.monotonic()
    nerf = fit_nerf(training, settings)
    first = _pictures(nerf, test)
    between = time.monotonic()
    result: dict[str, Any] = {"object": one.name, "seconds stage 1": between - started}
    result["psnr stage 1"] = mean_psnr(first["rgb"], test.rgb)
    print(f"  stage 1: PSNR {result['psnr stage 1']:.2f} dB", flush=True)
    start = FreeMesh(settings, nerf).to(device)
    result |= {f"start {name}": value for name, value in _measured(start, one, views).items()}
    mesh = fit_mesh(training, nerf, settings)
    result["seconds stage 2"] = time.monotonic() - between
    second = _pictures(mesh, test)
    result["psnr stage 2"] = mean_psnr(second["rgb"], test.rgb)
    result |= _view_errors(second, test) | _measured(mesh, one, views)
    target = {name: getattr(test, name) for name in ("rgb", "alpha", "depth", "normals")}
    picture = comparison({"target": target, "stage 1": first, "stage 2": second})
    picture.save(out / f"{one.name.replace(':', '-')}.png")
    print(f"  {_line(result)}", flush=True)
    return result


def _pictures(model: Any, views: FitViews) -> dict[str, Tensor]:
    """The model's pictures of the views; a radiance field's normals are those of its depth."""
    shown = show(model, views)
    names = ("rgb", "alpha", "depth", "normals")
    found = {
        name: torch.cat([getattr(view, name)[0] for view in shown])
        for name in names
        if hasattr(shown[0], name)
    }
    if "normals" not in found:
        cameras = (views.camera_to_world, views.intrinsics)
        found["normals"] = depth_normals(found["depth"], *cameras)
    return found


def _view_errors(shown: dict[str, Tensor], target: FitViews) -> dict[str, float]:
    """Where target and picture both show a surface: what their depth and normals differ by."""
    both = ((shown["depth"] > 0) & (target.depth > 0))[:, 0]
    apart = (shown["depth"] - target.depth).abs()[:, 0][both]
    cosines = F.cosine_similarity(shown["normals"], target.normals, dim=1)[both]
    degrees = cosines.clamp(-1, 1).acos().rad2deg()
    return {
        "depth median": float(apart.median()),
        "view normals median": float(degrees.median()),
    }


def _measured(model: FreeMesh, one: FitObject, views: FitViews) -> dict[str, float]:
    vertices, faces = (part.cpu().numpy() for part in model.mesh())
    depth = torch.cat([shown.depth[0, :, 0] for shown in show(model, views)])
    return measure_mesh(vertices, faces, depth.cpu().numpy(), one)


def measure_mesh(
    vertices: np.ndarray, faces: np.ndarray, depth: np.ndarray, one: FitObject
) -> dict[str, float]:
    """A mesh against the true surface; without a surface, infinitely far from it.

    `depth` is what the object's cameras see of the mesh. `outer` figures compare what views show of
    the mesh with what they show of the true surface: the inside cannot be learned from pictures.
    """
    try:
        points, normals = sample_mesh(vertices, faces, _SURFACE_POINTS, seed=0)
    except ValueError:
        return {"triangles": 0, "chamfer": np.inf, "normals median": 180.0}
    there, back = surface_distance(points, one.points[:_SURFACE_POINTS])
    degrees = angles(points, normals, one.points, one.normals)
    found = {
        "triangles": len(faces),
        "chamfer": (there + back) / 2,
        "mesh to true": there,
        "true to mesh": back,
        "normals median": float(np.median(degrees)),
        "normals median unsigned": float(np.median(np.minimum(degrees, 180 - degrees))),
    }
    outer = seen_points(points, one.views.cameras, depth)
    true = seen_points(one.points, one.views.cameras, one.views.depth)
    found |= {"outer share": float(outer.mean()), "true outer share": float(true.mean())}
    if outer.any() and true.any():
        distances = surface_distance(points[outer], one.points[true][:_SURFACE_POINTS])
        degrees = angles(points[outer], normals[outer], one.points[true], one.normals[true])
        found |= {
            "chamfer outer": sum(distances) / 2,
            "normals median outer": float(np.median(degrees)),
        }
    return found


_COLUMNS = {
    "psnr stage 1": "PSNR 1",
    "psnr stage 2": "PSNR 2",
    "start chamfer": "CD start",
    "chamfer": "CD",
    "chamfer outer": "CD outer",
    "normals median": "normals",
    "normals median outer": "n. outer",
    "depth median": "depth",
    "view normals median": "view n.",
    "seconds stage 1": "s 1",
    "seconds stage 2": "s 2",
}


def _line(result: dict[str, Any]) -> str:
    return ", ".join(
        f"{short} {result[name]:.4g}" for name, short in _COLUMNS.items() if name in result
    )


def _print_table(results: Sequence[dict[str, Any]]) -> None:
    print("object".ljust(46) + "".join(short.rjust(10) for short in _COLUMNS.values()) + "  met")
    for result in results:
        cells = [f"{result.get(name, np.nan):.4g}".rjust(10) for name in _COLUMNS]
        met = [
            result[name] >= limit if sign == ">=" else result[name] <= limit
            for name, (sign, limit) in _LIMITS.items()
        ]
        print(result["object"].ljust(46) + "".join(cells) + ("  yes" if all(met) else "  no"))
