"""Texture baking: xatlas unwraps a mesh, and the colour field is evaluated at every texel."""

from dataclasses import dataclass

import numpy as np
import torch
import xatlas
from jaxtyping import Float, Int, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt

from core.errors import BadInput
from train.inference.reconstruction import Shape
from train.models.surfaces.rasterize_torch import TorchRasterizer

__all__ = ["Textured", "bake"]

_PADDING = 4
"""Texels between two charts: enough to prevent bleeding down to the second mip level."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Textured:
    """A mesh with a texture; its vertices are duplicated along the seams."""

    source_vertices: Int[np.ndarray, "n"]
    """Index in the shape's vertices of each vertex."""
    faces: Int[np.ndarray, "m 3"]
    uv: Float[np.ndarray, "n 2"]
    """Texture coordinates in [0, 1]; (0, 0) is the lower left corner of the texture."""
    texture: Image.Image


def bake(shape: Shape, size: int) -> Textured:
    """Bake the shape's colour field into a texture of `size` x `size` texels.

    Texels outside all charts get the colour of the nearest texel inside one. Raises BadInput for a
    shape without colours.
    """
    if shape.colour is None:
        raise BadInput("the model predicts no colours; leave --texture out")
    source_vertices, faces, uv = _unwrap(shape, size)
    clip = np.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1], 0 * uv[:, 0], 0 * uv[:, 0] + 1], axis=-1)
    raster = TorchRasterizer()(
        torch.from_numpy(clip)[None], torch.from_numpy(faces.astype(np.int64)), (size, size)
    )
    hit = raster.hit[0].numpy()
    points = raster.interpolate(torch.from_numpy(shape.vertices[source_vertices]))[0].numpy()
    texels = np.zeros((size, size, 3), dtype=np.float32)
    texels[hit] = shape.colour(points[hit])
    nearest = distance_transform_edt(~hit, return_distances=False, return_indices=True)
    return Textured(
        source_vertices=source_vertices,
        faces=faces,
        uv=uv,
        texture=Image.fromarray(_bytes(texels[tuple(nearest)])),
    )


def _unwrap(
    shape: Shape, size: int
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m 3"], Float[np.ndarray, "n 2"]]:
    """Return indices of the shape's vertices, faces over those, and texture coordinates."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution = size
    packing.padding = _PADDING
    atlas.generate(pack_options=packing)
    source_vertices, faces, uv = atlas[0]
    return source_vertices.astype(np.int64), faces.astype(np.int64), uv.astype(np.float32)


def _bytes(rgb: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.rint(rgb * 255).astype(np.uint8)
