"""Camera rays, their intersection with the box, and the positions of samples along them.

Conventions: the world is right-handed with z up; camera_to_world has OpenGL axes (x right, y up,
view direction -z); intrinsics fx, fy, cx, cy are divided by the image size. The box is [-1, 1]^3.

`published=True` reproduces the released renderer's numbers exactly. Each function documents its own
differences; `train.models.lrm.nerf.volume_render` lists them all.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "Rays",
    "SampleJitter",
    "Window",
    "box_interval",
    "camera_rays",
    "coarse_depths",
    "draw_places",
    "importance_depths",
    "intersect_box",
    "window_intrinsics",
]

_UNIFORM_WEIGHT = 0.01 + 1e-5
"""Weight added to every interval, so that importance sampling reaches all of them.

The two terms are those that the released renderer adds one after the other.
"""


class Window(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Rays:
    """Rays in world axes."""

    origins: Float[Tensor, "*n 3"]
    directions: Float[Tensor, "*n 3"]
    """Unit vectors."""
    cosines: Float[Tensor, "*n"]
    """Ratio of planar depth to distance along the ray."""

    def __getitem__(self, index: Any) -> "Rays":
        """Return the rays at an index of the leading dimensions."""
        return dataclasses.replace(
            self,
            origins=self.origins[index],
            directions=self.directions[index],
            cosines=self.cosines[index],
        )

    def flatten(self, first: int, last: int) -> "Rays":
        """Merge leading dimensions `first` to `last`, counted from the front."""
        return dataclasses.replace(
            self,
            origins=self.origins.flatten(first, last),
            directions=self.directions.flatten(first, last),
            cosines=self.cosines.flatten(first, last),
        )


def window_intrinsics(
    intrinsics: Float[Tensor, "*v 4"], size: tuple[int, int], window: Window
) -> Float[Tensor, "*v 4"]:
    """Return the intrinsics of a window of an image of `size` (height, width).

    Rendering window.height x window.width pixels with them gives exactly the window's pixels.
    Raises ValueError if the window extends beyond the image.
    """
    height, width = size
    inside_rows = 0 <= window.top <= window.top + window.height <= height
    inside_columns = 0 <= window.left <= window.left + window.width <= width
    if not (inside_rows and inside_columns):
        raise ValueError(f"{window} extends beyond the image of {height}x{width} pixels")
    fx, fy, cx, cy = intrinsics.unbind(-1)
    scale_x, scale_y = width / window.width, height / window.height
    cx = cx * scale_x - window.left / window.width
    cy = cy * scale_y - window.top / window.height
    return torch.stack([fx * scale_x, fy * scale_y, cx, cy], dim=-1)


def camera_rays(
    camera_to_world: Float[Tensor, "*v 4 4"],
    intrinsics: Float[Tensor, "*v 4"],
    size: tuple[int, int],
) -> Rays:
    """Return rays through the pixel centres of images of `size` (height, width).

    Their shape is `*v h*w`, row by row.
    """
    height, width = size
    device = camera_to_world.device
    rows = (torch.arange(height, device=device) + 0.5)[:, None] / height
    columns = (torch.arange(width, device=device) + 0.5) / width
    fx, fy, cx, cy = intrinsics.float()[..., None, None].unbind(-3)
    y = -(rows - cy) / fy
    x = (columns - cx) / fx
    right, up, backward, position = camera_to_world[..., :3, :].float().unbind(-1)
    right, up, backward = (axis[..., None, None, :] for axis in (right, up, backward))
    # Elementwise, because autocast would round a matrix product to bfloat16.
    unscaled = (x[..., None] * right + y[..., None] * up - backward).flatten(-3, -2)
    length = unscaled.norm(dim=-1)
    return Rays(
        origins=position[..., None, :].expand_as(unscaled),
        directions=unscaled / length[..., None],
        cosines=1 / length,
    )


def intersect_box(rays: Rays) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Return the distances at which the rays' lines enter and leave the box (near, far).

    They are negative behind the origin. A line hits the box if far > near; a line in the plane of a
    face has NaN distances and does not.
    """
    low, high = (-1 - rays.origins) / rays.directions, (1 - rays.origins) / rays.directions
    return torch.minimum(low, high).amax(dim=-1), torch.maximum(low, high).amin(dim=-1)


def box_interval(
    rays: Rays, *, published: bool = False
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Return the interval (near, far) of distances in the box in front of the camera.

    Rays that miss the box get (0, 0). `published`: distances may be negative, and rays that miss
    get the smallest and the largest near of the rays of the call that hit, or (-1, -2) if none
    does.
    """
    near, far = intersect_box(rays)
    if not published:
        near = near.clamp(min=0)
    hit = far > near
    if not published:
        return near.where(hit, 0), far.where(hit, 0)
    if not hit.any():
        return torch.full_like(near, -1), torch.full_like(far, -2)
    return near.where(hit, near[hit].min()), far.where(hit, near[hit].max())


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleJitter:
    """The random numbers that determine the samples of rays."""

    offsets: Float[Tensor, "b n c"]
    """Position of each coarse sample in its bin, in [0, 1)."""
    quantiles: Float[Tensor, "b n q"]
    """Quantiles of the importance samples, in [0, 1)."""

    def __getitem__(self, index: Any) -> "SampleJitter":
        """Return the jitter at an index of the leading dimensions."""
        return dataclasses.replace(
            self, offsets=self.offsets[index], quantiles=self.quantiles[index]
        )


def draw_places(
    rays: Rays, samples_per_ray: int, generator: torch.Generator | None = None
) -> SampleJitter:
    """Draw stratified jitter for `b n` rays; without a generator, use the middle of every bin."""
    count, device = samples_per_ray // 2, rays.origins.device
    shape = (*rays.cosines.shape, count)
    if generator is None:
        offsets = torch.full((), 0.5, device=device).expand(2, *shape)
    else:
        offsets = torch.rand(2, *shape, generator=generator, device=generator.device).to(device)
    quantiles = (torch.arange(count, device=device) + offsets[1]) / count
    return SampleJitter(offsets=offsets[0], quantiles=quantiles)


def coarse_depths(
    near: Float[Tensor, "*n"],
    far: Float[Tensor, "*n"],
    offsets: Float[Tensor, "*n s"],
    *,
    published: bool = False,
) -> Float[Tensor, "*n s"]:
    """Return one distance in each of s equal bins, at the given offset in [0, 1) of its bin.

    `published`: the bins are (far - near) / (s - 1) long, so that the last one lies beyond far.
    """
    bins = offsets.shape[-1]
    length = (far - near) / (bins - 1 if published else bins)
    steps = torch.arange(bins, device=offsets.device) + offsets
    return near[..., None] + length[..., None] * steps


def importance_depths(
    depths: Float[Tensor, "*n s"],
    weights: Float[Tensor, "*n i"],
    quantiles: Float[Tensor, "*n q"],
    *,
    published: bool = False,
) -> Float[Tensor, "*n q"]:
    """Return distances drawn from the weights of the intervals between coarse samples, unsorted.

    The weights, which must have no gradient, are widened as in mip-NeRF (arXiv 2103.13415,
    section 3.1). `published`: each weight is applied half an interval nearer than where it was
    computed, and the last one is not used.
    """
    padded = F.pad(weights, (1, 1))
    peaks = torch.maximum(padded[..., 1:], padded[..., :-1])
    widened = (peaks[..., 1:] + peaks[..., :-1]) / 2 + _UNIFORM_WEIGHT
    if not published:
        return _inverse_cdf(depths, widened, quantiles)
    middles = (depths[..., 1:] + depths[..., :-1]) / 2
    return _inverse_cdf(middles[..., :-1], widened[..., 1:-1], quantiles)


def _inverse_cdf(edges: Tensor, weights: Tensor, quantiles: Tensor) -> Tensor:
    """Invert the cumulative distribution of a piecewise constant density between edges."""
    cdf = F.pad(weights.cumsum(dim=-1), (1, 0))
    cdf = cdf / cdf[..., -1:]
    last = weights.shape[-1] - 1
    below = (torch.searchsorted(cdf, quantiles.contiguous(), right=True) - 1).clamp(0, last)
    start, stop = cdf.gather(-1, below), cdf.gather(-1, below + 1)
    left, right = edges.gather(-1, below), edges.gather(-1, below + 1)
    return left + (right - left) * (quantiles - start) / (stop - start)
