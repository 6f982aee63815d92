"""Radiance fields from triplanes, and their volume rendering: stage 1 of InstantMesh.

See arXiv 2404.07191, section 3.3. Module names are the keys of the published checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from core.config import Config, PositiveInt
from train.models.lrm.mlp import point_mlp
from train.models.lrm.rays import (
    Rays,
    SampleJitter,
    Window,
    box_interval,
    camera_rays,
    coarse_depths,
    draw_jitter,
    importance_depths,
    window_intrinsics,
)
from train.models.lrm.triplane import sample_planes
from train.models.recompute import recompute_in_backward

__all__ = [
    "MarchedRays",
    "NerfConfig",
    "NerfDecoder",
    "NerfSynthesizer",
    "RadianceField",
    "RenderedRays",
    "RenderedViews",
    "activate_density",
    "activate_rgb",
    "limit_to_box",
    "march",
    "raw_density",
    "volume_render",
]

_OUTSIDE = -torch.finfo(torch.float32).max / 3
"""Raw density outside the box: the sum of two such values is still finite."""
_MIN_ALPHA = 1e-6
"""Lower bound of the opacity that a depth is divided by."""

RadianceField = Callable[
    [Float[Tensor, "b n 3"]], tuple[Float[Tensor, "b n"], Float[Tensor, "b n 3"]]
]
"""Returns raw density (see `activate_density`) and RGB of world points."""


class NerfConfig(Config):
    """Sizes of the decoder, and sampling of the renderer; the defaults are InstantMesh base."""

    decoder_width: PositiveInt = 64
    """Width of the decoder's hidden layers."""
    decoder_hidden_layers: PositiveInt = 3
    """Number of the decoder's hidden layers."""
    samples_per_ray: int = Field(default=96, ge=8, multiple_of=2)
    """Number of samples on a ray: half are spread evenly, half follow the density of those."""
    rays_per_chunk: PositiveInt = 192 * 192
    """Number of rays of each object that are rendered at once: bounds the memory."""
    checkpoint_chunks: bool = True
    """Whether the backward pass recomputes each chunk instead of keeping its activations."""
    published_sampling: bool = False
    """Whether rays are sampled as in the released renderer, defects included (`volume_render`)."""


class NerfDecoder(nn.Module):
    """Network from triplane features to raw density and RGB."""

    def __init__(self, features: int, width: int, num_hidden_layers: int) -> None:
        super().__init__()
        self.net = point_mlp(features, width, num_hidden_layers, 4)

    def forward(
        self, features: Float[Tensor, "*n f"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Return raw density (see `activate_density`) and RGB (see `activate_rgb`) in float32."""
        out = self.net(features.to(next(self.parameters()).dtype)).float()
        return out[..., 0], activate_rgb(out[..., 1:])


def activate_rgb(raw: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Map network outputs to RGB in [-0.001, 1.001], so that 0 and 1 can be reached."""
    return raw.sigmoid() * 1.002 - 0.001


def activate_density(raw: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the density per unit length, softplus(raw - 1)."""
    return F.softplus(raw - 1)


def raw_density(density: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the raw density of a density above 0: the inverse of `activate_density`."""
    return density + torch.log(-torch.expm1(-density)) + 1


@dataclass(frozen=True, kw_only=True, eq=False)
class MarchedRays:
    """Integrals along rays of i intervals."""

    rgb: Float[Tensor, "*n 3"]
    """RGB premultiplied by alpha, without background."""
    alpha: Float[Tensor, "*n"]
    """Opacity: the sum of the weights."""
    distance: Float[Tensor, "*n"]
    """Sum of weight times distance along the ray, not divided by alpha."""
    weights: Float[Tensor, "*n i"]


def march(
    raw_density: Float[Tensor, "*n s"], rgb: Float[Tensor, "*n s 3"], depths: Float[Tensor, "*n s"]
) -> MarchedRays:
    """Integrate along rays by the midpoint rule; `depths` are ascending distances.

    Each of the s - 1 intervals has the mean raw density, colour and distance of its ends. Its
    weight is T (1 - exp(-density · length)), where T is the transmittance of the intervals before
    it (Max 1995).
    """
    optical_depth = activate_density(_midpoints(raw_density, -1)) * depths.diff(dim=-1)
    accumulated = F.pad(optical_depth[..., :-1].cumsum(dim=-1), (1, 0))
    weights = (-accumulated).exp() * -torch.expm1(-optical_depth)
    return MarchedRays(
        rgb=(weights[..., None] * _midpoints(rgb, -2)).sum(dim=-2),
        alpha=weights.sum(dim=-1),
        distance=(weights * _midpoints(depths, -1)).sum(dim=-1),
        weights=weights,
    )


def _midpoints(values: Tensor, dim: int) -> Tensor:
    count = values.shape[dim] - 1
    return (values.narrow(dim, 0, count) + values.narrow(dim, 1, count)) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedRays:
    """Rendered values of each ray; see `RenderedViews`."""

    rgb: Float[Tensor, "b n 3"]
    alpha: Float[Tensor, "b n"]
    depth: Float[Tensor, "b n"]
    distance: Float[Tensor, "b n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedViews:
    """Images of v views of each of b objects."""

    rgb: Float[Tensor, "b v 3 h w"]
    """RGB on white, in [-0.001, 1.001]."""
    alpha: Float[Tensor, "b v 1 h w"]
    depth: Float[Tensor, "b v 1 h w"]
    """Mean planar depth, weighted by opacity; 0 for background, as in the dataset."""
    distance: Float[Tensor, "b v 1 h w"]
    """Expected distance along the ray, not divided by alpha; the released `images_depth`."""


def volume_render(
    field: RadianceField, rays: Rays, jitter: SampleJitter, *, published: bool = False
) -> RenderedRays:
    """Render rays through the box from coarse samples and importance samples together.

    `published` reproduces the defects of the released renderer: a ray hits a box behind the camera;
    a ray that misses the box gets the interval of other rays; coarse samples reach past the box;
    importance samples are shifted towards the camera; and `distance` is clamped to the smallest and
    largest sample of the call, so that it depends on which rays are rendered together.
    """
    field = limit_to_box(field)
    near, far = box_interval(rays, published=published)
    coarse = coarse_depths(near, far, jitter.offsets, published=published)
    raw_coarse, rgb_coarse = _query(field, rays, coarse)
    with torch.no_grad():
        weights = march(raw_coarse, rgb_coarse, coarse).weights
        fine = importance_depths(coarse, weights, jitter.quantiles, published=published)
    raw_fine, rgb_fine = _query(field, rays, fine)
    depths, order = torch.cat([coarse, fine], dim=-1).sort(dim=-1)
    raw = torch.cat([raw_coarse, raw_fine], dim=-1).gather(-1, order)
    rgb = torch.cat([rgb_coarse, rgb_fine], dim=-2)
    rgb = rgb.gather(-2, order[..., None].expand(-1, -1, -1, 3))
    marched = march(raw, rgb, depths)
    distance = marched.distance
    if published:
        distance = distance.clamp(depths.min(), depths.max())
    return RenderedRays(
        rgb=marched.rgb + (1 - marched.alpha[..., None]),
        alpha=marched.alpha,
        depth=marched.distance / marched.alpha.clamp(min=_MIN_ALPHA) * rays.cosines,
        distance=distance,
    )


def limit_to_box(field: RadianceField) -> RadianceField:
    """Return the field with empty space outside the closed box [-1, 1]^3."""

    def inside_only(points: Tensor) -> tuple[Tensor, Tensor]:
        raw, rgb = field(points)
        inside = (points.abs() <= 1).all(dim=-1)
        return raw.where(inside, _OUTSIDE), rgb.where(inside[..., None], 0)

    return inside_only


def _query(field: RadianceField, rays: Rays, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Return raw density and RGB at distances along `b n` rays."""
    points = rays.origins[..., None, :] + depths[..., None] * rays.directions[..., None, :]
    raw, rgb = field(points.flatten(1, 2))
    return raw.view_as(depths), rgb.view_as(points)


class NerfSynthesizer(nn.Module):
    """Volume rendering of triplanes: the model's `synthesizer` in stage 1."""

    def __init__(self, config: NerfConfig, plane_channels: int) -> None:
        super().__init__()
        self.config = config
        self.decoder = NerfDecoder(
            3 * plane_channels, config.decoder_width, config.decoder_hidden_layers
        )

    def field(self, planes: Float[Tensor, "b 3 c r r"]) -> RadianceField:
        """Return the radiance field of the planes, not limited to the box."""
        return lambda points: self.decoder(sample_planes(planes, points))

    def forward(
        self,
        planes: Float[Tensor, "b 3 c r r"],
        camera_to_world: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 4"],
        size: tuple[int, int],
        window: Window | None = None,
        randomness: torch.Generator | SampleJitter | None = None,
    ) -> RenderedViews:
        """Render each object's views as images of `size` (height, width), or a window of them.

        `intrinsics` may differ from view to view. Samples lie in the middle of their bins, or with
        `randomness` at random positions in them: it is a generator, or the jitter of all v h w
        rays.
        """
        if window is not None:
            intrinsics = window_intrinsics(intrinsics, size, window)
            size = (window.height, window.width)
        rays = camera_rays(camera_to_world, intrinsics, size).flatten(1, 2)
        if not isinstance(randomness, SampleJitter):
            randomness = draw_jitter(rays, self.config.samples_per_ray, randomness)
        rendered = self._render_chunks(planes, rays, randomness)
        views = (camera_to_world.shape[1], *size)
        return RenderedViews(
            rgb=rendered.rgb.unflatten(1, views).movedim(-1, 2),
            alpha=rendered.alpha.unflatten(1, views)[:, :, None],
            depth=rendered.depth.unflatten(1, views)[:, :, None],
            distance=rendered.distance.unflatten(1, views)[:, :, None],
        )

    def _render_chunks(self, planes: Tensor, rays: Rays, jitter: SampleJitter) -> RenderedRays:
        # Recomputation restores no random state: the jitter is drawn before.
        render = recompute_in_backward(self._render, self.config.checkpoint_chunks)
        step = self.config.rays_per_chunk
        parts = [
            (slice(None), slice(start, start + step))
            for start in range(0, rays.cosines.shape[1], step)
        ]
        chunks = [render(planes, rays[part], jitter[part]) for part in parts]
        return RenderedRays(
            **{
                name: torch.cat([getattr(chunk, name) for chunk in chunks], dim=1)
                for name in ("rgb", "alpha", "depth", "distance")
            }
        )

    def _render(self, planes: Tensor, rays: Rays, jitter: SampleJitter) -> RenderedRays:
        return volume_render(
            self.field(planes), rays, jitter, published=self.config.published_sampling
        )
