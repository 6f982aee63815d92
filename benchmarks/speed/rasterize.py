"""Measure the time of rendering one view of a mesh, with gradients.

`python -m benchmarks rasterize` renders a sphere of FlexiCubes' triangles, half as wide as the
image, and prints the shortest time of three runs for each part, in CPU seconds (on a GPU in
seconds).
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from dataset.cameras import intrinsics_from_fov, look_at, orbit_eye
from train.models.surfaces.flexicubes import find_surface, grid_vertices, shape_surface
from train.models.surfaces.rasterize import clip_positions, open_rasterizer

T = TypeVar("T")

_REPEATS = 3


def main() -> None:
    """Render a view with gradients, and print the time of each part."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--resolution", type=int, default=96, help="number of cubes along a side of the grid")
    add("--size", type=int, default=512, help="width and height of the view in pixels")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rasterizer", default="torch", choices=["torch", "nvdiffrast"], help="rasterizer")
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

    def timed(part: str, work: Callable[..., T], *arguments: Any) -> T:
        clock = time.process_time if device.type == "cpu" else time.monotonic
        started = clock()
        result = work(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.setdefault(part, []).append(clock() - started)
        return result

    for _ in range(_REPEATS):
        clip = clip_positions(vertices, camera_to_world, intrinsics)
        raster = timed("rasterize", rasterize, clip, surface.faces, size)
        image = timed("interpolate", raster.interpolate, vertices)
        smooth = timed("antialias", raster.antialias, image)
        timed("backward", smooth.square().sum().backward)
    hits = int(raster.hit.sum())
    print(f"{len(surface.faces):,} triangles, {hits:,} of {options.size}^2 pixels covered")
    for part, seconds in times.items():
        print(f"{part}: {min(seconds):.3f} s")
    name = f"view of {len(surface.faces):,} triangles at {options.size}^2"
    figures = [Figure(f"{name}: {part}", min(seconds), "s") for part, seconds in times.items()]
    write_figures(options.figures, figures)
