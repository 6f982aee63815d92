"""Both training stages without encoder and transformer: the triplane itself is optimised.

Rendering, losses and the conversion from stage 1 to stage 2 are those of the training.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.proofs.fit_data import FitViews
from train.models.lrm.losses import MeshLossConfig, NerfLossConfig, mesh_loss, nerf_loss
from train.models.lrm.mesh import MeshConfig, MeshSynthesizer
from train.models.lrm.mesh_render import MeshViews
from train.models.lrm.nerf import NerfConfig, NerfSynthesizer, RenderedViews, volume_render
from train.models.lrm.published_weights import load_state
from train.models.lrm.rays import Rays, box_interval, camera_rays, draw_jitter

__all__ = ["FitSettings", "FreeMesh", "FreeNerf", "fit_mesh", "fit_nerf", "show"]

_NUM_REPORTS = 10
"""Lines of progress per stage."""
_FINAL_RATE = 0.03
"""Last learning rate as a fraction of the first; a half cosine connects them."""


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Sizes and lengths of a fit. The defaults are for a GPU; `help` in the metadata explains."""

    size: int = _setting(512, "width and height of the images in pixels")
    plane_channels: int = _setting(40, "channels of a plane of the triplane")
    plane_resolution: int = _setting(64, "width and height of a plane")
    steps_nerf: int = _setting(3000, "steps of stage 1")
    rays: int = _setting(16384, "rays per step of stage 1, over all views")
    samples_per_ray: int = _setting(96, "samples per ray in stage 1")
    steps_mesh: int = _setting(1000, "steps of stage 2")
    views: int = _setting(6, "whole images per step of stage 2")
    grid: int = _setting(128, "number of FlexiCubes along a side of the grid")
    sdf_sign: float = _setting(
        1.0, "weight of the SDF sign loss in stage 2; only it removes surfaces that no view shows"
    )
    rate_planes: float = _setting(2e-2, "first learning rate of the triplane in stage 1")
    rate_decoder: float = _setting(2e-3, "first learning rate of the decoder in stage 1")
    rate_planes_mesh: float = _setting(5e-3, "first learning rate of the triplane in stage 2")
    rate_decoder_mesh: float = _setting(5e-4, "first learning rate of the decoder in stage 2")
    seed: int = _setting(0, "seed of weights, rays and views")


class FreeNerf(nn.Module):
    """Stage 1 without encoder and transformer; the decoder has the keys of the full model."""

    def __init__(self, settings: FitSettings) -> None:
        super().__init__()
        self.planes = _planes(settings)
        config = NerfConfig(samples_per_ray=settings.samples_per_ray)
        self.synthesizer = NerfSynthesizer(config, settings.plane_channels)

    def forward(
        self, camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int]
    ) -> RenderedViews:
        """Render views of the object."""
        return self.synthesizer(self.planes, camera_to_world, intrinsics, size)


class FreeMesh(nn.Module):
    """Stage 2 without encoder and transformer, initialised from stage 1 as in training."""

    def __init__(self, settings: FitSettings, nerf: FreeNerf) -> None:
        super().__init__()
        self.planes = _planes(settings)
        config = MeshConfig(grid_resolution=settings.grid)
        self.synthesizer = MeshSynthesizer(config, settings.plane_channels)
        load_state(self, nerf.state_dict(), "instantmesh", source="stage 1")

    def forward(
        self, camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int]
    ) -> MeshViews:
        """Render views of the object."""
        return self.synthesizer(self.planes, camera_to_world, intrinsics, size)[0]

    @torch.no_grad()
    def mesh(self) -> tuple[Float[Tensor, "n 3"], Tensor]:
        """Return vertices and faces, as mesh files contain them."""
        surface = self.synthesizer.geometry(self.planes, centred=False).surfaces[0]
        return surface.vertices, surface.faces


def _planes(settings: FitSettings) -> nn.Parameter:
    side = settings.plane_resolution
    return nn.Parameter(torch.randn(1, 3, settings.plane_channels, side, side) * 0.1)


def fit_nerf(views: FitViews, settings: FitSettings) -> FreeNerf:
    """Fit stage 1 on random rays of all views."""
    torch.manual_seed(settings.seed)
    device = views.rgb.device
    model = FreeNerf(settings).to(device)
    rays = camera_rays(views.camera_to_world, views.intrinsics, views.size).flatten(0, 1)
    near, far = box_interval(rays)
    # Rays that miss the box are white for any object.
    crossing = (far > near).nonzero()[:, 0]
    colours = torch.cat([views.rgb, views.alpha], dim=1).movedim(1, -1).flatten(0, 2)
    generator = torch.Generator(device).manual_seed(settings.seed)
    loss = NerfLossConfig(lpips=0)
    rates = (settings.rate_planes, settings.rate_decoder)
    for _ in _steps("stage 1", model, settings.steps_nerf, rates):
        chosen = torch.randint(len(crossing), (settings.rays,), generator=generator, device=device)
        indices = crossing[chosen]
        batch: Rays = rays[indices[None]]
        jitter = draw_jitter(batch, settings.samples_per_ray, generator)
        rendered = volume_render(model.synthesizer.field(model.planes), batch, jitter)
        # The loss expects images, so the rays form an image of one row.
        rgb, alpha = rendered.rgb.movedim(-1, 1)[:, :, None], rendered.alpha[:, None, None]
        target = colours[indices].T[None, :, None]
        terms = nerf_loss(rgb, alpha, target[:, :3], target[:, 3:], loss)
        terms["loss"].backward()
    return model


def fit_mesh(views: FitViews, nerf: FreeNerf, settings: FitSettings) -> FreeMesh:
    """Fit stage 2, from stage 1, on whole random views with depth and normals."""
    torch.manual_seed(settings.seed)
    device = views.rgb.device
    model = FreeMesh(settings, nerf).to(device)
    loss = MeshLossConfig(lpips=0, sdf_sign=settings.sdf_sign)
    rates = (settings.rate_planes_mesh, settings.rate_decoder_mesh)
    for _ in _steps("stage 2", model, settings.steps_mesh, rates):
        batch = views.select(torch.randperm(len(views))[: settings.views].to(device))
        rendered, geometry = model.synthesizer(
            model.planes, batch.camera_to_world[None], batch.intrinsics[None], batch.size
        )
        targets = (batch.rgb[None], batch.alpha[None], batch.depth[None], batch.normals[None])
        mesh_loss(rendered, geometry, *targets, loss)["loss"].backward()
    return model


def _steps(name: str, model: nn.Module, steps: int, rates: tuple[float, float]) -> Iterator[int]:
    """Yield the numbers of the steps; after each, apply the gradients that the caller computed."""
    planes = [value for key, value in model.named_parameters() if key == "planes"]
    others = [value for key, value in model.named_parameters() if key != "planes"]
    optimizer = torch.optim.Adam(
        [{"params": planes, "lr": rates[0]}, {"params": others, "lr": rates[1]}],
        betas=(0.9, 0.99),
        eps=1e-12,
    )
    started = time.monotonic()
    for step in range(steps):
        factor = _FINAL_RATE + (1 - _FINAL_RATE) * (1 + math.cos(math.pi * step / steps)) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        optimizer.zero_grad(set_to_none=True)
        yield step
        optimizer.step()
        if (step + 1) % max(steps // _NUM_REPORTS, 1) == 0:
            seconds = time.monotonic() - started
            print(f"  {name}: step {step + 1} of {steps}, {seconds:.0f} s", flush=True)


@torch.no_grad()
def show(model: FreeNerf | FreeMesh, views: FitViews) -> list[RenderedViews | MeshViews]:
    """Render all views, one at a time."""
    return [
        model(views.camera_to_world[None, [i]], views.intrinsics[None, [i]], views.size)
        for i in range(len(views))
    ]
