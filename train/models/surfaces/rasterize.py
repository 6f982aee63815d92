"""Pictures of triangle meshes with gradients: one interface, two rasterizers behind it.

`torch` is the plain reference for any device (rasterize_torch.py), `nvdiffrast` the fast one on
CUDA. Both read clip coordinates whose y axis points down: row 0 is the image's top.
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
"""Planar depths between which something is seen, as in the published code."""


class Raster(Protocol):
    """What v views of a mesh see: which triangle lies at each pixel's centre, and where in it."""

    @property
    def hit(self) -> Bool[Tensor, "v h w"]:
        """Whether there is one."""

    def interpolate(self, attributes: Float[Tensor, "*v n c"]) -> Float[Tensor, "v h w c"]:
        """Attributes of the vertices (of all views, or each view's) at the pixels; 0 elsewhere.

        Perspective-correct; differentiable in the attributes and in the clip coordinates.
        """

    def antialias(self, image: Float[Tensor, "v h w c"]) -> Float[Tensor, "v h w c"]:
        """The image with its pixels mixed along silhouettes, by the share each side covers.

        This is what gives silhouettes a gradient: differentiable in image and clip coordinates.
        """


class Rasterizer(Protocol):
    """Finds what is seen."""

    def __call__(
        self, clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"], size: tuple[int, int]
    ) -> Raster:
        """Rasterize a mesh in v views of (height, width) pixels. Both sides of a face are seen."""


def clip_positions(
    points: Float[Tensor, "n 3"],
    camera_to_world: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 4"],
) -> Float[Tensor, "v n 4"]:
    """World points in each view's clip coordinates; the last of the four is their planar depth.

    x / w and y / w run from -1 to 1, from left to right and from top to bottom of the image.
    """
    axes, position = camera_to_world[:, :3, :3].float(), camera_to_world[:, None, :3, 3].float()
    # Elementwise, because autocast would round a matrix product to bfloat16.
    apart = points.float() - position
    x, y, z = (axes[:, None] * apart[..., None]).sum(dim=-2).unbind(-1)
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
    """The rasterizer of that name; `auto` is nvdiffrast on CUDA where it is installed.

    Raises BadInput if nvdiffrast is asked for where it cannot run.
    """
    installed = importlib.util.find_spec("nvdiffrast") is not None
    if name == "nvdiffrast" and not (installed and device.type == "cuda"):
        problem = "is not installed" if not installed else f"needs CUDA, not {device.type}"
        raise BadInput(f"rasterizer nvdiffrast {problem}: take rasterizer torch")
    if name != "torch" and installed and device.type == "cuda":
        return _nvdiffrast(device)
    return TorchRasterizer()


@cache
def _nvdiffrast(device: torch.device) -> Rasterizer:
    """One for each device: its context owns buffers that grow with what is drawn."""
    return _NvdiffrastRasterizer(device)


class _NvdiffrastRasterizer:
    """nvdiffrast 0.3.3 or later (Laine et al. 2020, arXiv 2011.03277)."""

    def __init__(self, device: torch.device) -> None:
        import nvdiffrast.torch

        self._library = nvdiffrast.torch
        self._context = self._library.RasterizeCudaContext(device)

    def __call__(
        self, clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"], size: tuple[int, int]
    ) -> Raster:
        if not len(faces):  # nvdiffrast refuses what has no triangle
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
