"""The plain PyTorch rasterizer: a z-buffer over all pairs of triangle and pixel in its bounds.

Everything is exact at pixel centres and works in homogeneous coordinates (Olano and Greer,
"Triangle scan conversion using 2D homogeneous coordinates", 1997): nothing is divided by a depth
that might be 0, and a shared edge gives its two triangles exactly opposite signs, so that no pixel
falls between them.

Antialiasing is analytic, after Laine et al. 2020 (arXiv 2011.03277): where a silhouette passes
between two neighbouring pixel centres, the pixel that it covers in part takes its share of the
other's colour. Unlike there, silhouettes are looked for edge by edge and not in the triangle at
the pixel, so that triangles far smaller than a pixel lose none. Each edge is looked at along one
image axis only, so that no share counts twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["TorchRaster", "TorchRasterizer"]

_PAIRS_AT_ONCE = {"cpu": 2**21, "cuda": 2**24}
"""Pairs of triangle and pixel in one piece of work: bounds the memory. A GPU waits between two."""
_SLACK = 1e-3
"""Pixels by which a triangle's bounds are widened against rounding."""
_NOTHING = torch.iinfo(torch.int64).max


class TorchRasterizer:
    """Implements `train.models.surfaces.rasterize.Rasterizer`."""

    def __call__(
        self, clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"], size: tuple[int, int]
    ) -> "TorchRaster":
        """See the interface."""
        clip, faces = clip.float(), faces.long()
        with torch.no_grad():
            seen = _visible_faces(clip[:, faces], size)
        return TorchRaster(clip, faces, seen)


class TorchRaster:
    """Implements `train.models.surfaces.rasterize.Raster`."""

    def __init__(
        self, clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"], seen: Int[Tensor, "v h w"]
    ) -> None:
        """`seen`: the face at each pixel, -1 for none."""
        self._clip, self._faces, self._seen = clip, faces, seen
        self._pixels = self.hit.nonzero(as_tuple=True)
        view, row, column = self._pixels
        height, width = seen.shape[1:]
        self._corners = faces[seen[self._pixels]]
        x, y = _centre(column, width), _centre(row, height)
        shares = _edge_functions(clip[view[:, None], self._corners], x, y)
        self._shares = shares / shares.sum(dim=-1, keepdim=True)

    @property
    def hit(self) -> Bool[Tensor, "v h w"]:
        """Whether a face lies at the pixel's centre."""
        return self._seen >= 0

    def interpolate(self, attributes: Float[Tensor, "*v n c"]) -> Float[Tensor, "v h w c"]:
        """See the interface."""
        attributes = attributes.float()
        if attributes.dim() == 3:
            values = attributes[self._pixels[0][:, None], self._corners]
        else:
            values = attributes[self._corners]
        image = values.new_zeros(*self._seen.shape, values.shape[-1])
        return image.index_put(self._pixels, (self._shares[..., None] * values).sum(dim=1))

    def antialias(self, image: Float[Tensor, "v h w c"]) -> Float[Tensor, "v h w c"]:
        """See the interface."""
        image = image.float()
        with torch.no_grad():
            depth = self.interpolate(self._clip[..., 3:])[..., 0].where(self.hit, torch.inf)
            outline = _outline(self._clip, self._faces)
        changed = image
        for axis in (0, 1):
            mix = _mixtures(self._clip, outline, depth, axis)
            amount = mix.amount[:, None]
            near, far = image[mix.near], image[mix.far]
            changed = changed.index_put(mix.far, amount.clamp(min=0) * (near - far), True)
            changed = changed.index_put(mix.near, (-amount).clamp(min=0) * (far - near), True)
        return changed


@dataclass(frozen=True, kw_only=True, eq=False)
class _Outline:
    """The edges of all views where a surface turns away or ends."""

    view: Int[Tensor, "e"]
    ends: Int[Tensor, "e 2"]
    opposite: Int[Tensor, "e"]
    """The third vertex of a face at the edge: on its side lies the surface."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mixtures:
    """Neighbouring pixels between whose centres an outline passes, as view, row, column."""

    near: tuple[Tensor, ...]
    """The pixel that shows the surface in front."""
    far: tuple[Tensor, ...]
    amount: Float[Tensor, "k"]
    """In +-0.5: the covered share of the far pixel or, if negative, the open share of the near."""


def _centre(index: Tensor, count: int) -> Tensor:
    """Pixel centres in [-1, 1]."""
    return (index + 0.5) * (2 / count) - 1


def _edge_functions(
    corners: Float[Tensor, "k 3 4"], x: Float[Tensor, "k"], y: Float[Tensor, "k"]
) -> Float[Tensor, "k 3"]:
    """Perspective-correct barycentric coordinates of image points, up to a common factor.

    With the point moved to the origin, those of b_i are the minors of the corners' (x, y).
    """
    w = corners[..., 3]
    x, y = corners[..., 0] - x[:, None] * w, corners[..., 1] - y[:, None] * w
    (x0, x1, x2), (y0, y1, y2) = x.unbind(-1), y.unbind(-1)
    return torch.stack([x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1], dim=-1)


def _visible_faces(
    corners: Float[Tensor, "v m 3 4"], size: tuple[int, int]
) -> Int[Tensor, "v h w"]:
    """The nearest face at each pixel centre, -1 for none; all views at once."""
    (views, faces), (height, width) = corners.shape[:2], size
    nearest = torch.full(
        (views * height * width,), _NOTHING, dtype=torch.int64, device=corners.device
    )
    corners = corners.flatten(0, 1)
    for triangle, row, column in _candidates(corners, size):
        at = corners[triangle]
        shares = _edge_functions(at, _centre(column, width), _centre(row, height))
        total = shares.sum(dim=-1)
        # The sign of the area, so that both sides of a face are seen.
        inside = ((shares * total[:, None].sign()) >= 0).all(dim=-1) & (total != 0)
        z, w = ((shares[..., None] * at[..., 2:]).sum(dim=1) / total[:, None]).unbind(-1)
        kept = (inside & (w > 0) & (z.abs() <= w)).nonzero()[:, 0]
        triangle, pixel = triangle[kept], (row * width + column)[kept]
        # Positive floats are ordered like their bits; the face's number settles ties.
        key = (w[kept].contiguous().view(torch.int32).long() << 32) | triangle % faces
        nearest.scatter_reduce_(0, triangle // faces * (height * width) + pixel, key, "amin")
    seen = torch.where(nearest == _NOTHING, -1, nearest & 0xFFFFFFFF)
    return seen.view(views, height, width)


def _candidates(
    corners: Float[Tensor, "k 3 4"], size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Triangles with the rows and columns of the pixels in their bounds, piece by piece."""
    top_left, extent = _bounds(corners, size)
    counts = extent.prod(dim=-1)
    triangles = counts.nonzero()[:, 0]
    top_left, extent, counts = top_left[triangles], extent[triangles], counts[triangles]
    after = counts.cumsum(0)
    before = after - counts
    most = _PAIRS_AT_ONCE.get(corners.device.type, _PAIRS_AT_ONCE["cpu"])
    start = 0
    while start < len(triangles):
        limit = before[start] + most
        stop = max(int(torch.searchsorted(after, limit, right=True)), start + 1)
        piece = torch.repeat_interleave(
            torch.arange(start, stop, device=corners.device), counts[start:stop]
        )
        number = torch.arange(len(piece), device=corners.device) + before[start] - before[piece]
        columns = extent[piece, 0]
        row, column = top_left[piece, 1] + number // columns, top_left[piece, 0] + number % columns
        yield triangles[piece], row, column
        start = stop


def _bounds(corners: Float[Tensor, "m 3 4"], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Left and top pixel, and columns and rows, of what each face can cover: `m 2` integers."""
    counts = torch.tensor([size[1], size[0]], device=corners.device)
    in_front = corners[..., 3] > 0
    places = corners[..., :2] / corners[..., 3:].where(in_front[..., None], 1)
    pixels = (places + 1) * (counts / 2) - 0.5
    low = (pixels.amin(dim=1) - _SLACK).ceil()
    high = (pixels.amax(dim=1) + _SLACK).floor()
    # What passes the camera's plane may reach anywhere; what lies behind it is not seen.
    passes = ~in_front.all(dim=1, keepdim=True)
    low, high = low.where(~passes, 0), high.where(~passes, counts - 1.0)
    low = torch.minimum(low.clamp(min=0), counts.float()).long()
    high = torch.minimum(high.clamp(min=-1), counts - 1.0).long()
    extent = (high - low + 1).clamp(min=0)
    return low, extent.where(in_front.any(dim=1, keepdim=True), 0)


def _outline(clip: Float[Tensor, "v n 4"], faces: Int[Tensor, "m 3"]) -> _Outline:
    """Edges between a face seen from its front and one seen from its back, and open edges."""
    # Positive if the corners run clockwise in the image, whose y axis points down.
    # Written out, because a library's determinant is a decomposition of each matrix.
    a, b, c = clip[:, faces][..., [0, 1, 3]].unbind(dim=2)
    front = (a * torch.linalg.cross(b, c)).sum(dim=-1) > 0
    beside = _neighbours(faces)
    alone = beside < 0
    turns = front[..., None] & ~front[:, beside.clamp(min=0)]
    view, face, edge = (alone | turns).nonzero(as_tuple=True)
    corners = [faces[face, (edge + step) % 3] for step in range(3)]
    # A triangle that reaches behind the camera has no outline in the image.
    kept = torch.stack([clip[view, corner, 3] for corner in corners]).amin(dim=0) > 0
    return _Outline(
        view=view[kept],
        ends=torch.stack(corners[:2], dim=1)[kept],
        opposite=corners[2][kept],
    )


def _neighbours(faces: Int[Tensor, "m 3"]) -> Int[Tensor, "m 3"]:
    """The face beyond the edge from each corner to the next; -1 where there is not exactly one."""
    low, high = torch.minimum(faces, faces.roll(-1, 1)), torch.maximum(faces, faces.roll(-1, 1))
    key, order = (low * (faces.max() + 1 if len(faces) else 1) + high).flatten().sort()
    equal = key[1:] == key[:-1]
    lonely = torch.zeros(1, dtype=torch.bool, device=faces.device)
    as_first, as_second = torch.cat([equal, lonely]), torch.cat([lonely, equal])
    # Exactly two in a row: neither the one before nor the one after is equal as well.
    pair = equal & ~as_second[:-1] & ~as_first[1:]
    beside = torch.full_like(key, -1)
    first, second = order[:-1][pair], order[1:][pair]
    beside[first], beside[second] = second // 3, first // 3
    return beside.view(-1, 3)


def _mixtures(
    clip: Float[Tensor, "v n 4"], outline: _Outline, depth: Float[Tensor, "v h w"], axis: int
) -> _Mixtures:
    """Where outlines pass between neighbours along an image axis (0: columns, 1: rows)."""
    num_along, num_across = (depth.shape[2 - axis], depth.shape[1 + axis])
    edge, line = _lines_crossed(clip.detach(), outline, axis, (num_along, num_across))
    view = outline.view[edge]
    ends = clip[view[:, None], outline.ends[edge]]
    w = ends[..., 3]
    along, across = ends[..., axis], ends[..., 1 - axis] - _centre(line, num_across)[:, None] * w
    span = across[:, 0] - across[:, 1]
    share = across[:, 0] / span
    crossing_w = torch.lerp(w[:, 0], w[:, 1], share)
    place = torch.lerp(along[:, 0], along[:, 1], share) / crossing_w
    place = (place + 1) * (num_along / 2) - 0.5

    with torch.no_grad():
        first = place.floor().long()
        inside = (first >= 0) & (first < num_along - 1)
        first = first.clamp(0, num_along - 2)
        ahead = _surface_is_ahead(clip, outline, edge, axis)
        near, far = torch.where(ahead, first + 1, first), torch.where(ahead, first, first + 1)
        near_at, far_at = (_pixel(view, line, column, axis) for column in (near, far))
        # The outline must be what is seen there: in front of what the far pixel shows.
        seen = inside & (depth[near_at] < depth[far_at]) & (crossing_w < depth[far_at])
    reach = torch.where(ahead, near - place, place - near)
    kept = seen.nonzero()[:, 0]
    pixel = (view * depth.shape[1] + far_at[1]) * depth.shape[2] + far_at[2]
    kept = kept[_outermost((2 * pixel + ahead)[kept], reach[kept].detach())]
    return _Mixtures(
        near=tuple(index[kept] for index in near_at),
        far=tuple(index[kept] for index in far_at),
        amount=reach[kept] - 0.5,
    )


def _lines_crossed(
    clip: Float[Tensor, "v n 4"], outline: _Outline, axis: int, counts: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Pairs of outline edge and line of pixel centres along an axis that it crosses.

    Only edges that run more across the lines than along them: each edge is looked at along one
    axis, or its share would count twice. The lower end belongs to an edge and the upper does not,
    so that a chain of edges crosses a line once.
    """
    ends = clip[outline.view[:, None], outline.ends]
    along, across = (
        (ends[..., place] / ends[..., 3] + 1) * (count / 2) - 0.5
        for place, count in zip((axis, 1 - axis), counts, strict=True)
    )
    run, rise = ((values[:, 1] - values[:, 0]).abs() for values in (along, across))
    steep = rise >= run if axis == 0 else rise > run
    first, stop = (bound.ceil().clamp(0, counts[1]).long() for bound in across.aminmax(dim=1))
    crossed = (stop - first).where(steep, 0)
    edge = torch.repeat_interleave(crossed)
    before = crossed.cumsum(0) - crossed
    return edge, first[edge] + torch.arange(len(edge), device=edge.device) - before[edge]


def _surface_is_ahead(
    clip: Float[Tensor, "v n 4"], outline: _Outline, edge: Int[Tensor, "k"], axis: int
) -> Bool[Tensor, "k"]:
    """Whether the surface lies after the edge, going along the image axis."""
    vertices = torch.cat([outline.ends, outline.opposite[:, None]], dim=1)
    corners = clip[outline.view[:, None], vertices]
    places = corners[..., :2] / corners[..., 3:]
    start, to_end, to_opposite = places[:, 0], places[:, 1] - places[:, 0], places[:, 2]
    to_opposite = to_opposite - start
    side = to_end[:, 0] * to_opposite[:, 1] - to_end[:, 1] * to_opposite[:, 0]
    ahead = -to_end[:, 1] if axis == 0 else to_end[:, 0]
    return ((side > 0) == (ahead > 0))[edge]


def _pixel(view: Tensor, line: Tensor, place: Tensor, axis: int) -> tuple[Tensor, ...]:
    """View, row and column of a place on a line along an image axis."""
    return (view, line, place) if axis == 0 else (view, place, line)


def _outermost(pairs: Int[Tensor, "k"], reach: Float[Tensor, "k"]) -> Int[Tensor, "p"]:
    """Of each pair of pixels the outline that reaches farthest: folds overlap, they do not add.

    A pair's number is the far pixel's, twice, plus the side on which the near one lies.
    """
    by_reach = reach.argsort(stable=True)
    numbers, pair = pairs[by_reach].unique(return_inverse=True)
    last = torch.zeros_like(numbers)
    last.scatter_reduce_(0, pair, torch.arange(len(pair), device=pair.device), "amax")
    return by_reach[last]
