"""Differentiable rasterization of triangle meshes: an interface with two implementations.

`torch` is the reference for any device (rasterize_torch.py), `nvdiffrast` the fast one on CUDA.
Both take clip coordinates whose y axis points down: row 0 is the top of the image.
"""

import importlib.util
from functools import cache
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.errors import BadInput
from train.models.surfaces.rasterize_torch import TorchRasterizer

__all__ = ["Raster", "Rasterizer", "RasterizerName", "clip_positions", "open_rasterizer"]

RasterizerName = Literal["auto", "torch", "nvdiffrast"]

NEAR, FAR = 0.1, 1000.0
"""Planar depths of the clipping planes in world units, as in the published code."""


class Raster(Protocol):
    """Visible triangles of a mesh in v views, and the position in them of each pixel's centre."""

    @property
    def hit(self) -> Bool[Tensor, "v h w"]:
        """Whether a triangle is visible at the pixel's centre."""

    def interpolate(self, attributes: Float[Tensor, "*v n c"]) -> Float[Tensor, "v h w c"]:
        """Interpolate vertex attributes, common to all views or per view, at the pixels.

        Pixels without a triangle get 0. Interpolation is perspective-correct and differentiable in
        the attributes and in the clip coordinates.
        """

    def antialias(self, image: Float[Tensor, "v h w c"]) -> Float[Tensor, "v h w c"]:
        """Blend the pixels on both sides of silhouettes by the share that each side covers.

        The result is differentiable in the image and in the clip coordinates, so silhouettes get a
        gradient.
        """


class Rasterizer(Protocol):
    """Finds the visible triangles of a mesh."""

    def __call__(
        self, clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"], size: tuple[int, int]
    ) -> Raster:
        """Rasterize a mesh in v views of `size` (height, width); both sides of a face count."""


def clip_positions(
    points: Float[Tensor, "n 3"],
    camera_to_world: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 4"],
) -> Float[Tensor, "v n 4"]:
    """Return world points in each view's clip coordinates (x, y, z, w); w is their planar depth.

    x / w runs from -1 at the left to 1 at the right of the image, y / w from -1 at the top to 1 at
    the bottom.
    """
    axes, position = camera_to_world[:, :3, :3].float(), camera_to_world[:, None, :3, 3].float()
    # Elementwise, because autocast would round a matrix product to bfloat16.
    offsets = points.float() - position
    x, y, z = (axes[:, None] * offsets[..., None]).sum(dim=-2).unbind(-1)
    fx, fy, cx, cy = intrinsics.float()[:, :, None].unbind(1)
    depth = -z
    return torch.stack(
        [
            2 * fx * x + (2 * cx - 1) * depth,
            -2 * fy * y + (2 * cy - 1) * depth,
            ((FAR + NEAR) * depth - 2 * FAR * NEAR) / (FAR - NEAR),
            depth,
        ],
        dim=-1,
    )


def open_rasterizer(name: RasterizerName, device: torch.device) -> Rasterizer:
    """Return the rasterizer of a name; `auto` is nvdiffrast on CUDA if installed, else torch.

    Raises BadInput if `name` is nvdiffrast and it is not installed or the device is not CUDA.
    """
    installed = importlib.util.find_spec("nvdiffrast") is not None
    if name == "nvdiffrast" and not (installed and device.type == "cuda"):
        problem = "is not installed" if not installed else f"needs CUDA, not {device.type}"
        raise BadInput(f"rasterizer nvdiffrast {problem}: use rasterizer torch")
    if name != "torch" and installed and device.type == "cuda":
        return _nvdiffrast(device)
    return TorchRasterizer()


@cache
def _nvdiffrast(device: torch.device) -> Rasterizer:
    """Return the rasterizer of a device; its context owns buffers that are reused."""
    return _NvdiffrastRasterizer(device)


class _NvdiffrastRasterizer:
    """Rasterizer of nvdiffrast 0.3.3 or later (Laine et al. 2020, arXiv 2011.03277)."""

    def __init__(self, device: torch.device) -> None:
        import nvdiffrast.torch

        self._library = nvdiffrast.torch
        self._context = self._library.RasterizeCudaContext(device)

    def __call__(
        self, clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"], size: tuple[int, int]
    ) -> Raster:
        if not len(faces):  # nvdiffrast rejects a mesh without triangles
            return TorchRasterizer()(clip, faces, size)
        return _NvdiffrastRaster(self._library, self._context, clip, faces, size)


class _NvdiffrastRaster:
    def __init__(
        self, library: Any, context: Any, clip: Tensor, faces: Tensor, size: tuple[int, int]
    ) -> None:
        self._library = library
        self._clip, self._faces = clip.float().contiguous(), faces.int().contiguous()
        self._raster, _ = library.rasterize(context, self._clip, self._faces, resolution=size)

    @property
    def hit(self) -> Bool[Tensor, "v h w"]:
        return self._raster[..., 3] > 0

    def interpolate(self, attributes: Float[Tensor, "*v n c"]) -> Float[Tensor, "v h w c"]:
        values = attributes.float().contiguous()
        values = values if values.dim() == 3 else values[None]
        return self._library.interpolate(values, self._raster, self._faces)[0]

    def antialias(self, image: Float[Tensor, "v h w c"]) -> Float[Tensor, "v h w c"]:
        return self._library.antialias(
            image.float().contiguous(), self._raster, self._clip, self._faces
        )
