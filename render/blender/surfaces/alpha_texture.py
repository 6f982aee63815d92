"""The alpha of a base colour texture: which triangles show a texel of at least some alpha."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from glb.document import Item
from glb.geometry.surface import Surface
from glb.shown_materials import texture_coordinate_set

__all__ = ["AlphaTexture", "shows_alpha", "texture_coordinates"]

CLAMP, MIRROR, REPEAT = 33071, 33648, 10497
_FARTHEST = 2.0**40
"""In texels; coordinates beyond are as good as infinite."""

_Range = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class AlphaTexture:
    """The alpha of an image, and how a sampler continues it beyond its edges."""

    alpha: UInt8[np.ndarray, "h w"] | Float32[np.ndarray, "h w"]
    """In bytes or [0, 1]; the first row is the top of the image."""
    wrap_s: int = REPEAT
    wrap_t: int = REPEAT
    _counts: dict[float, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def counts(self, level: float) -> Int32[np.ndarray, "rows columns"]:
        """Return how many texels above and to the left of each have an alpha of at least `level`.

        The last result is kept, because the materials of an atlas ask for the same level.
        """
        if level not in self._counts:
            self._counts.clear()
            visible = self.alpha >= (level * 255 if self.alpha.dtype == np.uint8 else level)
            counts = np.zeros((visible.shape[0] + 1, visible.shape[1] + 1), dtype=np.int32)
            np.cumsum(visible, axis=0, dtype=np.int32, out=counts[1:, 1:])
            np.cumsum(counts, axis=1, out=counts)
            self._counts[level] = counts
        return self._counts[level]


def texture_coordinates(
    surface: Surface, slot: Item, faces: Int64[np.ndarray, "n"]
) -> Float64[np.ndarray, "n 3 2"]:
    """Return where the corners of faces show a texture, by KHR_texture_transform.

    `slot` is the JSON object that names the texture. Coordinates are zero if the set is missing.
    """
    transform = (slot.get("extensions") or {}).get("KHR_texture_transform") or {}
    uvs = surface.uvs.get(texture_coordinate_set(slot))
    if uvs is None:
        return np.zeros((len(faces), 3, 2))
    x, y = transform.get("scale") or (1, 1)
    angle = transform.get("rotation") or 0
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine * x, -sine * x], [sine * y, cosine * y]])
    corners = uvs[surface.faces[faces]].astype(np.float64)
    return corners @ matrix + np.array(transform.get("offset") or (0, 0))


def shows_alpha(
    texture: AlphaTexture, coordinates: Float64[np.ndarray, "n 3 2"], level: float
) -> Bool[np.ndarray, "n"]:
    """Return which triangles may show an alpha of at least `level`.

    `coordinates` are those of the corners. A triangle may show all texels that bilinear
    interpolation reads within the bounds of its corners: one that shows such alpha is never missed.
    """
    # Factors are rounded: without a tolerance, a texel of just this level could be missed.
    counts = texture.counts(level * (1 - 1e-5))
    if counts[-1, -1] in (0, texture.alpha.size):
        return np.full(len(coordinates), bool(counts[-1, -1]))
    height, width = texture.alpha.shape
    low, high = coordinates.min(axis=1), coordinates.max(axis=1)
    columns = _texel_ranges(low[:, 0], high[:, 0], width, texture.wrap_s)
    rows = _texel_ranges(low[:, 1], high[:, 1], height, texture.wrap_t)
    total = np.zeros(len(coordinates), dtype=np.int32)
    for top, bottom in rows:
        for left, right in columns:
            total += counts[bottom, right] - counts[top, right]
            total -= counts[bottom, left] - counts[top, left]
    return total > 0


def _texel_ranges(low: np.ndarray, high: np.ndarray, size: int, wrap: int) -> list[_Range]:
    """Return the texels read between two coordinates: ranges (start, end), which may be empty."""
    with np.errstate(invalid="ignore"):
        first, last = np.floor(low * size - 0.5), np.floor(high * size - 0.5) + 1
        known = (np.abs(first) < _FARTHEST) & (np.abs(last) < _FARTHEST)
    first = np.where(known, first, 0).astype(np.int64)
    last = np.where(known, last, 2 * size).astype(np.int64)
    if wrap == CLAMP:
        # A coordinate that is not a number may be anywhere.
        start = np.where(known, np.clip(first, 0, size - 1), 0)
        return [(start, np.clip(last, 0, size - 1) + 1)]
    if wrap == MIRROR:
        return [_mirrored(first, last, size)]
    everything = last - first + 1 >= size
    start = np.where(everything, 0, first % size)
    end = np.where(everything, size, start + last - first + 1)
    return [(start, np.minimum(end, size)), (np.zeros_like(end), np.maximum(end - size, 0))]


def _mirrored(first: np.ndarray, last: np.ndarray, size: int) -> _Range:
    """Return the range of texels of an image of which every second copy is mirrored."""
    tile, crossed = first // size, last // size - first // size

    def folded(texel: np.ndarray) -> np.ndarray:
        within = texel % size
        return np.where(texel // size % 2 == 0, within, size - 1 - within)

    start = np.minimum(folded(first), folded(last))
    end = np.maximum(folded(first), folded(last)) + 1
    start = np.where((crossed > 1) | ((crossed == 1) & (tile % 2 == 1)), 0, start)
    end = np.where((crossed > 1) | ((crossed == 1) & (tile % 2 == 0)), size, end)
    return start, end
