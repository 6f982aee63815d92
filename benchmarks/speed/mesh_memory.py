"""What stage 2 keeps for the backward pass of one object, part by part, at the sizes of `base`.

`python -m benchmarks mesh_memory --resolution 128 --size 512` prints MiB of saved tensors and CPU
seconds of: geometry, one rendered view, the perceptual distance of a view, and the same as training
takes it. The shape is a sphere, half frame wide. All runs on the CPU: what is saved is the same
anywhere.
"""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.figures import Figure, add_figures, write_figures
from dataset.cameras import intrinsics_from_fov, look_at, orbit_eye
from train.models.lpips import Lpips
from train.models.lrm.lrm import mesh_preset
from train.models.lrm.mesh import MeshSynthesizer
from train.models.surfaces.flexicubes import grid_vertices
from train.recipes.mesh import view_by_view

T = TypeVar("T")


class _Sphere(MeshSynthesizer):
    """Its distances are those of a sphere, and still computed from the planes."""

    def distances(self, planes: Tensor) -> Tensor:
        grid = grid_vertices(self.config.grid_resolution, self.config.grid_size)
        return super().distances(planes) * 1e-3 + (grid.norm(dim=1) - 0.8)


def main() -> None:
    """Run each part once, forward, and add up what it saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--size", type=int, default=512)
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
    print(f"{len(geometry.surfaces[0].faces)} triangles")
    views = _measured(
        "one view",
        lambda: synthesizer.render(planes, geometry, camera_to_world, intrinsics, size),
        figures,
    )
    lpips, rgb = Lpips(), views.rgb[0].detach().requires_grad_()
    _measured("LPIPS of a view", lambda: lpips(rgb, 1 - rgb.detach()), figures)
    again = view_by_view(lpips)
    _measured("LPIPS of a view, recomputed", lambda: again(rgb, 1 - rgb.detach()), figures)
    write_figures(options.figures, figures)


def _measured(what: str, work: Callable[[], T], figures: list[Figure]) -> T:
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor

    started = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    seconds = time.process_time() - started
    size = sum(storage.nbytes() for storage in saved.values()) / 2**20
    print(f"{what}: {size:.0f} MiB, {seconds:.1f} s")
    figures.append(Figure(f"kept for backward: {what}", size, "MiB"))
    return result
