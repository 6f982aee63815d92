"""Both stages of the training without a transformer: a free triplane and the decoders.

Rendering, losses and the step from one stage to the next are the ones that training uses.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

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

_REPORTS = 10
"""Lines of progress in a stage."""
_FINAL_RATE = 0.03
"""Of the first; between them lies half a cosine."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Sizes and lengths of a fit; the defaults are a GPU's."""

    size: int = 512
    """Side of the pictures."""
    plane_channels: int = 40
    plane_resolution: int = 64
    steps_nerf: int = 3000
    rays: int = 16384
    """Per step of stage 1, over all views."""
    samples_per_ray: int = 96
    steps_mesh: int = 1000
    views: int = 6
    """Whole pictures per step of stage 2."""
    grid: int = 128
    """FlexiCubes along a side."""
    sdf_sign: float = 1.0
    """Share of that regularizer: it alone removes surfaces that no view shows."""
    rate_planes: float = 2e-2
    rate_decoder: float = 2e-3
    rate_planes_mesh: float = 5e-3
    rate_decoder_mesh: float = 5e-4
    seed: int = 0


class FreeNerf(nn.Module):
    """Stage 1 without encoder and transformer; the same keys."""

    def __init__(self, settings: FitSettings) -> None:
        super().__init__()
        self.planes = _planes(settings)
        config = NerfConfig(samples_per_ray=settings.samples_per_ray)
        self.synthesizer = NerfSynthesizer(config, settings.plane_channels)

    def forward(
        self, camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int]
    ) -> RenderedViews:
        """Views of the object."""
        return self.synthesizer(self.planes, camera_to_world, intrinsics, size)


class FreeMesh(nn.Module):
    """Stage 2 without encoder and transformer; starts as `nerf`, by the conversion of training."""

    def __init__(self, settings: FitSettings, nerf: FreeNerf) -> None:
        super().__init__()
        self.planes = _planes(settings)
        config = MeshConfig(grid_resolution=settings.grid)
        self.synthesizer = MeshSynthesizer(config, settings.plane_channels)
        load_state(self, nerf.state_dict(), "instantmesh", source="stage 1")

    def forward(
        self, camera_to_world: Tensor, intrinsics: Tensor, size: tuple[int, int]
    ) -> MeshViews:
        """Views of the object."""
        return self.synthesizer(self.planes, camera_to_world, intrinsics, size)[0]

    @torch.no_grad()
    def mesh(self) -> tuple[Float[Tensor, "n 3"], Tensor]:
        """Vertices and faces as they are written to files."""
        surface = self.synthesizer.geometry(self.planes, centred=False).surfaces[0]
        return surface.vertices, surface.faces


def _planes(settings: FitSettings) -> nn.Parameter:
    side = settings.plane_resolution
    return nn.Parameter(torch.randn(1, 3, settings.plane_channels, side, side) * 0.1)


def fit_nerf(views: FitViews, settings: FitSettings) -> FreeNerf:
    """Stage 1: random rays of all views."""
    torch.manual_seed(settings.seed)
    device = views.rgb.device
    model = FreeNerf(settings).to(device)
    rays = camera_rays(views.camera_to_world, views.intrinsics, views.size).flatten(0, 1)
    near, far = box_interval(rays)
    # The others show white whatever the object is.
    crossing = (far > near).nonzero()[:, 0]
    colours = torch.cat([views.rgb, views.alpha], dim=1).movedim(1, -1).flatten(0, 2)
    generator = torch.Generator(device).manual_seed(settings.seed)
    loss = NerfLossConfig(lpips=0)
    rates = (settings.rate_planes, settings.rate_decoder)
    for _ in _steps("stage 1", model, settings.steps_nerf, rates):
        chosen = torch.randint(len(crossing), (settings.rays,), generator=generator, device=device)
        places = crossing[chosen]
        some: Rays = rays[places[None]]
        drawn = draw_jitter(some, settings.samples_per_ray, generator)
        shown = volume_render(model.synthesizer.field(model.planes), some, drawn)
        # A picture of one row.
        rgb, alpha = shown.rgb.movedim(-1, 1)[:, :, None], shown.alpha[:, None, None]
        target = colours[places].T[None, :, None]
        terms = nerf_loss(rgb, alpha, target[:, :3], target[:, 3:], loss)
        terms["loss"].backward()
    return model


def fit_mesh(views: FitViews, nerf: FreeNerf, settings: FitSettings) -> FreeMesh:
    """Stage 2, from stage 1: whole pictures of random views, with depth and normals."""
    torch.manual_seed(settings.seed)
    device = views.rgb.device
    model = FreeMesh(settings, nerf).to(device)
    loss = MeshLossConfig(lpips=0, sdf_sign=settings.sdf_sign)
    rates = (settings.rate_planes_mesh, settings.rate_decoder_mesh)
    for _ in _steps("stage 2", model, settings.steps_mesh, rates):
        few = views.select(torch.randperm(len(views))[: settings.views].to(device))
        shown, geometry = model.synthesizer(
            model.planes, few.camera_to_world[None], few.intrinsics[None], few.size
        )
        targets = (few.rgb[None], few.alpha[None], few.depth[None], few.normals[None])
        mesh_loss(shown, geometry, *targets, loss)["loss"].backward()
    return model


def _steps(name: str, model: nn.Module, steps: int, rates: tuple[float, float]) -> Iterator[int]:
    """Steps of Adam: the caller's loop leaves gradients, which are applied when it comes back."""
    planes = [value for key, value in model.named_parameters() if key == "planes"]
    others = [value for key, value in model.named_parameters() if key != "planes"]
    optimizer = torch.optim.Adam(
        [{"params": planes, "lr": rates[0]}, {"params": others, "lr": rates[1]}],
        betas=(0.9, 0.99),
        eps=1e-12,
    )
    started = time.monotonic()
    for step in range(steps):
        share = _FINAL_RATE + (1 - _FINAL_RATE) * (1 + math.cos(math.pi * step / steps)) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        optimizer.zero_grad(set_to_none=True)
        yield step
        optimizer.step()
        if (step + 1) % max(steps // _REPORTS, 1) == 0:
            seconds = time.monotonic() - started
            print(f"  {name}: step {step + 1} of {steps}, {seconds:.0f} s", flush=True)


@torch.no_grad()
def show(model: FreeNerf | FreeMesh, views: FitViews) -> list[RenderedViews | MeshViews]:
    """The model's pictures of all views, one by one."""
    return [
        model(views.camera_to_world[None, [i]], views.intrinsics[None, [i]], views.size)
        for i in range(len(views))
    ]
