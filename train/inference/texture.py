"""Colours of a mesh as a texture: unwrapped by xatlas, and asked for at every texel's place."""

from dataclasses import dataclass

import numpy as np
import torch
import xatlas
from jaxtyping import Float, Int, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt

from train.inference.lrm import Shape
from train.models.surfaces.rasterize_torch import TorchRasterizer

__all__ = ["Textured", "bake"]

_PADDING = 4
"""Texels between two charts: neighbours do not bleed into each other, two mip levels down."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Textured:
    """A mesh with a texture; its vertices are doubled along the seams."""

    rows: Int[np.ndarray, "n"]
    """The vertex of the shape that each of these is."""
    faces: Int[np.ndarray, "m 3"]
    uv: Float[np.ndarray, "n 2"]
    """In [0, 1]; (0, 0) is the lower left corner of the texture."""
    texture: Image.Image


def bake(shape: Shape, size: int) -> Textured:
    """A texture of `size` x `size` texels with the colour field's value at each texel's place.

    Texels outside all charts take the colour of the nearest one inside.
    """
    rows, faces, uv = _unwrap(shape, size)
    clip = np.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1], 0 * uv[:, 0], 0 * uv[:, 0] + 1], axis=-1)
    raster = TorchRasterizer()(
        torch.from_numpy(clip)[None], torch.from_numpy(faces.astype(np.int64)), (size, size)
    )
    hit = raster.hit[0].numpy()
    places = raster.interpolate(torch.from_numpy(shape.vertices[rows]))[0].numpy()
    texels = np.zeros((size, size, 3), dtype=np.float32)
    texels[hit] = shape.colour(places[hit])
    nearest = distance_transform_edt(~hit, return_distances=False, return_indices=True)
    return Textured(
        rows=rows,
        faces=faces,
        uv=uv,
        texture=Image.fromarray(_bytes(texels[tuple(nearest)])),
    )


def _unwrap(
    shape: Shape, size: int
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m 3"], Float[np.ndarray, "n 2"]]:
    """Rows of the mesh's vertices, faces of those, and where they lie in the texture."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution = size
    packing.padding = _PADDING
    atlas.generate(pack_options=packing)
    rows, faces, uv = atlas[0]
    return rows.astype(np.int64), faces.astype(np.int64), uv.astype(np.float32)


def _bytes(rgb: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.rint(rgb * 255).astype(np.uint8)
