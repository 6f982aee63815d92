"""The PyTorch rasterizer: a z-buffer over all pairs of a triangle and a pixel in its bounds.

Results are exact at pixel centres. The computation is in homogeneous coordinates (Olano and Greer,
"Triangle scan conversion using 2D homogeneous coordinates", 1997): nothing is divided by a depth,
which could be 0, and a shared edge has exactly opposite signs for its two triangles, so that no
pixel falls between them.

Antialiasing is analytic, as in Laine et al. 2020 (arXiv 2011.03277): where a silhouette passes
between two neighbouring pixel centres, the pixel that it partly covers is blended with the other
one's colour. Unlike in the paper, all silhouette edges of the mesh are used instead of those of the
triangle at the pixel, so that edges of triangles smaller than a pixel are not missed. Each edge is
used along one image axis only, so that its coverage is not counted twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["TorchRaster", "TorchRasterizer"]

_PAIRS_PER_CHUNK = {"cpu": 2**21, "cuda": 2**24}
"""Pairs of triangle and pixel processed at once: bounds the memory. GPUs synchronise per chunk."""
_MARGIN = 1e-3
"""Pixels by which a triangle's bounds are widened because of rounding."""
_NO_FACE = torch.iinfo(torch.int64).max
"""Depth key of a pixel without a face."""


class TorchRasterizer:
    """Implementation of `train.models.surfaces.rasterize.Rasterizer`."""

    def __call__(
        self, clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"], size: tuple[int, int]
    ) -> "TorchRaster":
        """Find the visible faces; see the interface."""
        clip, faces = clip.float(), faces.long()
        with torch.no_grad():
            visible = _visible_faces(clip[:, faces], size)
        return TorchRaster(clip, faces, visible)


class TorchRaster:
    """Implementation of `train.models.surfaces.rasterize.Raster`."""

    def __init__(
        self, clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"], visible: Int[Tensor, "v h w"]
    ) -> None:
        """Compute barycentric coordinates; `visible` has each pixel's face, or -1 for none."""
        self._clip, self._faces, self._visible = clip, faces, visible
        self._pixels = self.hit.nonzero(as_tuple=True)
        view, row, column = self._pixels
        height, width = visible.shape[1:]
        self._corners = faces[visible[self._pixels]]
        x, y = _centre(column, width), _centre(row, height)
        weights = _edge_functions(clip[view[:, None], self._corners], x, y)
        self._barycentric = weights / weights.sum(dim=-1, keepdim=True)

    @property
    def hit(self) -> Bool[Tensor, "v h w"]:
        """Whether a face is visible at the pixel's centre."""
        return self._visible >= 0

    def interpolate(self, attributes: Float[Tensor, "*v n c"]) -> Float[Tensor, "v h w c"]:
        """Interpolate vertex attributes at the pixels; see the interface."""
        attributes = attributes.float()
        if attributes.dim() == 3:
            values = attributes[self._pixels[0][:, None], self._corners]
        else:
            values = attributes[self._corners]
        image = values.new_zeros(*self._visible.shape, values.shape[-1])
        return image.index_put(self._pixels, (self._barycentric[..., None] * values).sum(dim=1))

    def antialias(self, image: Float[Tensor, "v h w c"]) -> Float[Tensor, "v h w c"]:
        """Blend pixels along silhouettes; see the interface."""
        image = image.float()
        with torch.no_grad():
            depth = self.interpolate(self._clip[..., 3:])[..., 0].where(self.hit, torch.inf)
            silhouette = _find_silhouette(self._clip, self._faces)
        result = image
        for axis in (0, 1):
            blend = _find_blends(self._clip, silhouette, depth, axis)
            amount = blend.amount[:, None]
            near, far = image[blend.near], image[blend.far]
            result = result.index_put(blend.far, amount.clamp(min=0) * (near - far), True)
            result = result.index_put(blend.near, (-amount).clamp(min=0) * (far - near), True)
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class _Silhouette:
    """Silhouette edges of a mesh in all views, where a surface turns away or ends."""

    view: Int[Tensor, "e"]
    ends: Int[Tensor, "e 2"]
    """The edge's vertices."""
    opposite: Int[Tensor, "e"]
    """The third vertex of a face at the edge, on the side of the surface."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Blends:
    """Pairs of neighbouring pixels with a silhouette between them, as (view, row, column)."""

    near: tuple[Tensor, ...]
    """The pixels that show the front surface."""
    far: tuple[Tensor, ...]
    """The pixels that show what is behind it."""
    amount: Float[Tensor, "k"]
    """In ±0.5: the covered share of the far pixel or, if negative, the open share of the near."""


def _centre(index: Tensor, count: int) -> Tensor:
    """Return the coordinates in [-1, 1] of pixel centres."""
    return (index + 0.5) * (2 / count) - 1


def _edge_functions(
    corners: Float[Tensor, "k 3 4"], x: Float[Tensor, "k"], y: Float[Tensor, "k"]
) -> Float[Tensor, "k 3"]:
    """Return perspective-correct barycentric coordinates of image points, up to a common factor.

    With the image point as origin, they are the 2x2 minors of the corners' homogeneous (x, y).
    """
    w = corners[..., 3]
    x, y = corners[..., 0] - x[:, None] * w, corners[..., 1] - y[:, None] * w
    (x0, x1, x2), (y0, y1, y2) = x.unbind(-1), y.unbind(-1)
    return torch.stack([x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1], dim=-1)


def _visible_faces(
    corners: Float[Tensor, "v m 3 4"], size: tuple[int, int]
) -> Int[Tensor, "v h w"]:
    """Return the nearest face at each pixel centre in all views, -1 for none."""
    (views, faces), (height, width) = corners.shape[:2], size
    nearest = torch.full(
        (views * height * width,), _NO_FACE, dtype=torch.int64, device=corners.device
    )
    corners = corners.flatten(0, 1)
    for triangle, row, column in _candidates(corners, size):
        points = corners[triangle]
        weights = _edge_functions(points, _centre(column, width), _centre(row, height))
        total = weights.sum(dim=-1)
        # The total has the sign of the triangle's area: both sides of a face are visible.
        inside = ((weights * total[:, None].sign()) >= 0).all(dim=-1) & (total != 0)
        z, w = ((weights[..., None] * points[..., 2:]).sum(dim=1) / total[:, None]).unbind(-1)
        kept = (inside & (w > 0) & (z.abs() <= w)).nonzero()[:, 0]
        triangle, pixel = triangle[kept], (row * width + column)[kept]
        # Positive floats are ordered like their bit patterns; the face's number breaks ties.
        key = (w[kept].contiguous().view(torch.int32).long() << 32) | triangle % faces
        nearest.scatter_reduce_(0, triangle // faces * (height * width) + pixel, key, "amin")
    visible = torch.where(nearest == _NO_FACE, -1, nearest & 0xFFFFFFFF)
    return visible.view(views, height, width)


def _candidates(
    corners: Float[Tensor, "k 3 4"], size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield triangles with the rows and columns of the pixels in their bounds, in chunks."""
    top_left, extent = _bounds(corners, size)
    counts = extent.prod(dim=-1)
    triangles = counts.nonzero()[:, 0]
    top_left, extent, counts = top_left[triangles], extent[triangles], counts[triangles]
    after = counts.cumsum(0)
    before = after - counts
    max_pairs = _PAIRS_PER_CHUNK.get(corners.device.type, _PAIRS_PER_CHUNK["cpu"])
    start = 0
    while start < len(triangles):
        limit = before[start] + max_pairs
        stop = max(int(torch.searchsorted(after, limit, right=True)), start + 1)
        index = torch.repeat_interleave(
            torch.arange(start, stop, device=corners.device), counts[start:stop]
        )
        number = torch.arange(len(index), device=corners.device) + before[start] - before[index]
        columns = extent[index, 0]
        row, column = top_left[index, 1] + number // columns, top_left[index, 0] + number % columns
        yield triangles[index], row, column
        start = stop


def _bounds(corners: Float[Tensor, "m 3 4"], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the pixels that each face can cover: (left, top) and (columns, rows), `m 2` each."""
    counts = torch.tensor([size[1], size[0]], device=corners.device)
    in_front = corners[..., 3] > 0
    points = corners[..., :2] / corners[..., 3:].where(in_front[..., None], 1)
    pixels = (points + 1) * (counts / 2) - 0.5
    low = (pixels.amin(dim=1) - _MARGIN).ceil()
    high = (pixels.amax(dim=1) + _MARGIN).floor()
    # A face that crosses the camera's plane can cover any pixel; one behind it covers none.
    crosses = ~in_front.all(dim=1, keepdim=True)
    low, high = low.where(~crosses, 0), high.where(~crosses, counts - 1.0)
    low = torch.minimum(low.clamp(min=0), counts.float()).long()
    high = torch.minimum(high.clamp(min=-1), counts - 1.0).long()
    extent = (high - low + 1).clamp(min=0)
    return low, extent.where(in_front.any(dim=1, keepdim=True), 0)


def _find_silhouette(clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"]) -> _Silhouette:
    """Return the edges between a front-facing and a back-facing face, and the open edges."""
    # Positive if the corners run clockwise in the image, whose y axis points down. The determinant
    # is written out, because torch.linalg.det would decompose each matrix.
    a, b, c = clip[:, faces][..., [0, 1, 3]].unbind(dim=2)
    front = (a * torch.linalg.cross(b, c)).sum(dim=-1) > 0
    neighbours = _neighbours(faces)
    is_open = neighbours < 0
    turns_away = front[..., None] & ~front[:, neighbours.clamp(min=0)]
    view, face, edge = (is_open | turns_away).nonzero(as_tuple=True)
    corners = [faces[face, (edge + step) % 3] for step in range(3)]
    # A triangle that reaches behind the camera has no finite silhouette in the image.
    kept = torch.stack([clip[view, corner, 3] for corner in corners]).amin(dim=0) > 0
    return _Silhouette(
        view=view[kept],
        ends=torch.stack(corners[:2], dim=1)[kept],
        opposite=corners[2][kept],
    )


def _neighbours(faces: Int[Tensor, "m 3"]) -> Int[Tensor, "m 3"]:
    """Return the neighbouring face at the edge from each corner to the next.

    It is -1 unless exactly two faces share the edge.
    """
    low, high = torch.minimum(faces, faces.roll(-1, 1)), torch.maximum(faces, faces.roll(-1, 1))
    key, order = (low * (faces.max() + 1 if len(faces) else 1) + high).flatten().sort()
    equal = key[1:] == key[:-1]
    no_pair = torch.zeros(1, dtype=torch.bool, device=faces.device)
    as_first, as_second = torch.cat([equal, no_pair]), torch.cat([no_pair, equal])
    # Exactly two equal keys in a row: neither the previous nor the next key is equal, too.
    pair = equal & ~as_second[:-1] & ~as_first[1:]
    neighbours = torch.full_like(key, -1)
    first, second = order[:-1][pair], order[1:][pair]
    neighbours[first], neighbours[second] = second // 3, first // 3
    return neighbours.view(-1, 3)


def _find_blends(
    clip: Float[Tensor, "v n 4"], silhouette: _Silhouette, depth: Float[Tensor, "v h w"], axis: int
) -> _Blends:
    """Find silhouettes between neighbouring pixels along an image axis (0: columns, 1: rows)."""
    num_along, num_across = (depth.shape[2 - axis], depth.shape[1 + axis])
    edge, line = _lines_crossed(clip.detach(), silhouette, axis, (num_along, num_across))
    view = silhouette.view[edge]
    ends = clip[view[:, None], silhouette.ends[edge]]
    w = ends[..., 3]
    along, across = ends[..., axis], ends[..., 1 - axis] - _centre(line, num_across)[:, None] * w
    span = across[:, 0] - across[:, 1]
    fraction = across[:, 0] / span
    crossing_w = torch.lerp(w[:, 0], w[:, 1], fraction)
    position = torch.lerp(along[:, 0], along[:, 1], fraction) / crossing_w
    position = (position + 1) * (num_along / 2) - 0.5

    with torch.no_grad():
        first = position.floor().long()
        inside = (first >= 0) & (first < num_along - 1)
        first = first.clamp(0, num_along - 2)
        ahead = _surface_is_ahead(clip, silhouette, edge, axis)
        near, far = torch.where(ahead, first + 1, first), torch.where(ahead, first, first + 1)
        near_pixel, far_pixel = (_pixel(view, line, index, axis) for index in (near, far))
        # The edge must be visible: in front of the surface that the far pixel shows.
        visible = inside & (depth[near_pixel] < depth[far_pixel]) & (crossing_w < depth[far_pixel])
    reach = torch.where(ahead, near - position, position - near)
    kept = visible.nonzero()[:, 0]
    pixel = (view * depth.shape[1] + far_pixel[1]) * depth.shape[2] + far_pixel[2]
    kept = kept[_outermost((2 * pixel + ahead)[kept], reach[kept].detach())]
    return _Blends(
        near=tuple(index[kept] for index in near_pixel),
        far=tuple(index[kept] for index in far_pixel),
        amount=reach[kept] - 0.5,
    )


def _lines_crossed(
    clip: Float[Tensor, "v n 4"], silhouette: _Silhouette, axis: int, counts: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return pairs of a silhouette edge and a line of pixel centres along an axis that it crosses.

    Only edges that run more across the lines than along them are used, so that each edge is used
    along one axis only. An edge includes its lower end and excludes its upper end, so that a chain
    of edges crosses a line once.
    """
    ends = clip[silhouette.view[:, None], silhouette.ends]
    along, across = (
        (ends[..., dim] / ends[..., 3] + 1) * (count / 2) - 0.5
        for dim, count in zip((axis, 1 - axis), counts, strict=True)
    )
    run, rise = ((values[:, 1] - values[:, 0]).abs() for values in (along, across))
    steep = rise >= run if axis == 0 else rise > run
    first, stop = (bound.ceil().clamp(0, counts[1]).long() for bound in across.aminmax(dim=1))
    crossed = (stop - first).where(steep, 0)
    edge = torch.repeat_interleave(crossed)
    before = crossed.cumsum(0) - crossed
    return edge, first[edge] + torch.arange(len(edge), device=edge.device) - before[edge]


def _surface_is_ahead(
    clip: Float[Tensor, "v n 4"], silhouette: _Silhouette, edge: Int[Tensor, "k"], axis: int
) -> Bool[Tensor, "k"]:
    """Return whether the surface lies on the positive side of the edge along the image axis."""
    vertices = torch.cat([silhouette.ends, silhouette.opposite[:, None]], dim=1)
    corners = clip[silhouette.view[:, None], vertices]
    points = corners[..., :2] / corners[..., 3:]
    start, to_end, to_opposite = points[:, 0], points[:, 1] - points[:, 0], points[:, 2]
    to_opposite = to_opposite - start
    side = to_end[:, 0] * to_opposite[:, 1] - to_end[:, 1] * to_opposite[:, 0]
    ahead = -to_end[:, 1] if axis == 0 else to_end[:, 0]
    return ((side > 0) == (ahead > 0))[edge]


def _pixel(view: Tensor, line: Tensor, index: Tensor, axis: int) -> tuple[Tensor, ...]:
    """Return view, row and column of the pixel with an index on a line along an image axis."""
    return (view, line, index) if axis == 0 else (view, index, line)


def _outermost(pairs: Int[Tensor, "k"], reach: Float[Tensor, "k"]) -> Int[Tensor, "p"]:
    """Return, for each pair of pixels, the index of the silhouette that reaches farthest.

    Overlapping silhouettes between the same pixels must not add up. A pair's number is twice that
    of the far pixel, plus 1 if the near pixel comes after it.
    """
    by_reach = reach.argsort(stable=True)
    numbers, pair = pairs[by_reach].unique(return_inverse=True)
    last = torch.zeros_like(numbers)
    last.scatter_reduce_(0, pair, torch.arange(len(pair), device=pair.device), "amax")
    return by_reach[last]
