"""Measure the memory that stage 2 saves for the backward pass, by part.

`python -m benchmarks mesh_memory` prints MiB of saved tensors and CPU seconds for one object, at
the sizes of the preset `base`: of the geometry, of one rendered view, of its LPIPS, and of LPIPS
with recomputation, as in training. The shape is a sphere, half as wide as the image. It runs on the
CPU, because the saved tensors are the same on every device.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
from dataset.cameras import intrinsics_from_fov, look_at, orbit_eye
from train.models.lpips import Lpips
from train.models.lrm.lrm import mesh_preset
from train.models.lrm.mesh import MeshSynthesizer
from train.models.surfaces.flexicubes import grid_vertices
from train.recipes.mesh import view_by_view

T = TypeVar("T")


class _Sphere(MeshSynthesizer):
    """A synthesizer that returns the distances of a sphere, but computes them from the planes."""

    def distances(self, planes: Tensor) -> Tensor:
        grid = grid_vertices(self.config.grid_resolution, self.config.grid_size)
        return super().distances(planes) * 1e-3 + (grid.norm(dim=1) - 0.8)


def main() -> None:
    """Run the forward pass of each part once, and print the size of the tensors that it saves."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--resolution", type=int, default=128, help="number of cubes along a side of the grid")
    add("--size", type=int, default=512, help="width and height of the view in pixels")
    add_figures(parser)
    options = parser.parse_args()
    config = mesh_preset("base", {"mesh": {"grid_resolution": options.resolution}})
    channels = config.transformer.channels
    synthesizer, size = _Sphere(config.mesh, channels), (options.size, options.size)
    planes = (torch.randn(1, 3, channels, 64, 64) * 0.1).requires_grad_()
    camera_to_world = torch.from_numpy(look_at(orbit_eye(20, 15, 2.7)))[None, None]
    intrinsics = torch.from_numpy(np.stack([intrinsics_from_fov(50)]))[None]
    figures: list[Figure] = []
    geometry = _measured("geometry", lambda: synthesizer.geometry(planes), figures)
    print(f"{len(geometry.surfaces[0].faces):,} triangles")
    views = _measured(
        "one view",
        lambda: synthesizer.render(planes, geometry, camera_to_world, intrinsics, size),
        figures,
    )
    lpips, rgb = Lpips(), views.rgb[0].detach().requires_grad_()
    _measured("LPIPS of a view", lambda: lpips(rgb, 1 - rgb.detach()), figures)
    recomputed_lpips = view_by_view(lpips)
    _measured(
        "LPIPS of a view, recomputed", lambda: recomputed_lpips(rgb, 1 - rgb.detach()), figures
    )
    write_figures(options.figures, figures)


def _measured(part: str, work: Callable[[], T], figures: list[Figure]) -> T:
    saved: dict[int, torch.UntypedStorage] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor

    started = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        result = work()
    seconds = time.process_time() - started
    size = sum(storage.nbytes() for storage in saved.values()) / 2**20
    print(f"{part}: {size:.0f} MiB, {seconds:.1f} s")
    figures.append(Figure(f"saved for the backward pass: {part}", size, "MiB"))
    return result
