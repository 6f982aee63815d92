"""What a view of a mesh costs, with gradients: a sphere of FlexiCubes' triangles, half frame wide.

`python -m benchmarks rasterize --resolution 96 --size 512 --device cpu --rasterizer torch` prints
CPU seconds a view of each part (seconds on a GPU).
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.figures import Figure, add_figures, write_figures
from dataset.cameras import intrinsics_from_fov, look_at, orbit_eye
from train.models.surfaces.flexicubes import find_surface, grid_vertices, shape_surface
from train.models.surfaces.rasterize import clip_positions, open_rasterizer

T = TypeVar("T")

_REPEATS = 3


def main() -> None:
    """Render, differentiate, time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rasterizer", default="torch", choices=["torch", "nvdiffrast"])
    add_figures(parser)
    options = parser.parse_args()
    device, size = torch.device(options.device), (options.size, options.size)
    grid = grid_vertices(options.resolution, 2.1, device)
    sdf = grid.norm(dim=1) - 0.8
    surface = shape_surface(find_surface(sdf, options.resolution), grid, sdf)
    vertices = surface.vertices.detach().requires_grad_()
    camera_to_world = torch.from_numpy(look_at(orbit_eye(20, 15, 2.7)))[None].to(device)
    intrinsics = torch.from_numpy(np.stack([intrinsics_from_fov(50)])).to(device)
    rasterize = open_rasterizer(options.rasterizer, device)
    times: dict[str, list[float]] = {}

    def timed(what: str, work: Callable[..., T], *arguments: Any) -> T:
        clock = time.process_time if device.type == "cpu" else time.monotonic
        started = clock()
        result = work(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.setdefault(what, []).append(clock() - started)
        return result

    for _ in range(_REPEATS):
        clip = clip_positions(vertices, camera_to_world, intrinsics)
        raster = timed("rasterize", rasterize, clip, surface.faces, size)
        image = timed("interpolate", raster.interpolate, vertices)
        smooth = timed("antialias", raster.antialias, image)
        timed("backward", smooth.square().sum().backward)
    print(f"{len(surface.faces)} triangles, {int(raster.hit.sum())} of {options.size}^2 pixels hit")
    for what, seconds in times.items():
        print(f"{what}: {min(seconds):.3f} s")
    name = f"a view of {len(surface.faces):,} triangles at {options.size}^2"
    found = [Figure(f"{name}: {what}", min(each), "s") for what, each in times.items()]
    write_figures(options.figures, found)
