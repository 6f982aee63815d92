"""Triangles of one plane that overlap in part: the order in which they lie."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from glb.document import Item
from glb.geometry.surface import Surface
from glb.shown_materials import texture_slots
from render.blender.surfaces.layers import by_material, drawing_modes, lift
from render.blender.surfaces.triangles import area_vectors, squares

__all__ = ["separate_overlapping"]

_STEP = 3e-5
"""Distance of two layers in sizes of the surface: less than that of coincident layers, which may be
above the same plane."""
_MAX_SHIFT = 3e-4
"""Of the outermost layer."""
_MIN_SIDE = 2e-3
"""Longest side of a triangle that is compared, in sizes: a pixel of 512."""
_MAX_FACES = 300_000
"""Triangles that are compared, of which those with the longest sides are chosen: 1 s."""
_MIN_HEIGHT = 2e-4
"""Of such a triangle over its longest side: the normal of a lower one is rounding."""
_SAME_PLANE = 1e-6
"""Distance of corners from a plane that they are in. Rays tell planes apart that are farther."""
_MARGIN = 1e-4
"""Width of an overlap that counts: neighbours may overlap by rounding."""
_CELL = 2e-3
"""Side of the cells in which planes are searched, by the point that is next to a reference."""
_REFERENCE = (1.13, 1.71, 2.37)
"""From the centre of the bounds: outside of them, and in no plane that is usual."""
_NEAR = 0.05
"""Distance in cells of planes that are the same but for the rounding of normals."""
_SHIFTS = (0.25, 0.5, 0.75)
"""Of further grids, in cells, for planes with a side of cells between them: on each axis, this is
so in one grid at most."""
_MAX_TESTS = 20_000_000
"""Pairs of triangles per grid, of which those beyond are not compared: about 1 s."""
_CHUNK = 1_000_000
_MAX_LAYERS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class _Flat:
    """Triangles that may overlap others in their plane, in sizes of the surface."""

    faces: Int64[np.ndarray, "n"]
    """Indices."""
    corners: Float64[np.ndarray, "n 3 3"]
    normals: Float64[np.ndarray, "n 3"]
    looks: Int64[np.ndarray, "n"]
    """Equal for triangles that look the same; negative if that is unknown."""


def separate_overlapping(surface: Surface, materials: Mapping[int, Item]) -> Surface:
    """Return the surface with triangles of one plane that overlap in part set apart.

    A path tracer that meets several triangles at one distance picks any of them, for each ray
    anew: decals, and the two sides of a card that are divided into triangles differently, would be
    mixed at random. As in `coincident`, each side of the plane is a stack of its own, and a
    triangle that is drawn later lies over an earlier one: opaque before MASK before BLEND, each in
    the order of the file. A double-sided triangle over the back of an earlier single-sided one is
    on the front of that one. Layers are 3e-5 of the longest side of the bounds apart along their
    normals, or closer if there are more than ten.

    Triangles that look the same without a texture stay. Triangles smaller than a pixel of 512
    (2e-3 of the size) are not compared, and only the 300,000 largest are.
    """
    if not len(surface.faces):
        return surface
    flat = _flat_triangles(surface, materials)
    found = [pairs for rows, keys in _planes(flat) for pairs in _overlaps(flat, rows, keys)]
    pairs = np.unique(np.concatenate([np.zeros((0, 2), dtype=np.int64), *found]), axis=0)
    if not len(pairs):
        return surface
    one, other = pairs.T
    indices = surface.materials[flat.faces]
    modes = drawing_modes(indices, materials)
    order = np.lexsort((flat.faces, surface.parts[flat.faces], modes)).argsort()
    later = order[other] > order[one]
    low, high = np.where(later, one, other), np.where(later, other, one)
    alike = np.einsum("ij,ij->i", flat.normals[low], flat.normals[high]) > 0
    # What has two fronts is on that side of a single-sided surface from which both are seen.
    double = by_material(indices, lambda index: bool(materials[index].get("doubleSided"))) > 0
    turned = np.zeros(len(flat.faces), dtype=bool)
    turned[high[~alike & double[high] & ~double[low]]] = True
    alike ^= turned[low] ^ turned[high]
    layers = _stack(low[alike], high[alike], len(flat.faces))
    layers[np.unique(pairs[~alike])] += 0.5
    layers *= min(_STEP, _MAX_SHIFT / max(layers.max(), 1))
    return lift(surface, flat.faces, np.where(turned, -layers, layers))


def _stack(low: np.ndarray, high: np.ndarray, num: int) -> np.ndarray:
    """Return layers (num,) such that each triangle in `high` is above its counterpart in `low`."""
    layers = np.zeros(num)
    for _ in range(_MAX_LAYERS):
        raised = layers.copy()
        np.maximum.at(raised, high, layers[low] + 1)
        if np.array_equal(raised, layers):
            break
        layers = raised
    return layers


def _flat_triangles(surface: Surface, materials: Mapping[int, Item]) -> _Flat:
    """Return the triangles that are large enough to be compared."""
    corners = surface.positions[surface.faces]
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    size = max(float((high - low).max()), 1e-300)
    corners = (corners - (low + high) / 2) / size
    longest = np.max([squares(corners[:, k] - corners[:, k - 1]) for k in range(3)], axis=0)
    vectors = area_vectors(surface) / size**2
    areas = np.sqrt(squares(vectors))
    large = (longest > _MIN_SIDE**2) & (areas > _MIN_HEIGHT * np.sqrt(longest))
    faces = np.flatnonzero(large)
    if len(faces) > _MAX_FACES:
        faces = np.sort(faces[np.argsort(-longest[faces], kind="stable")[:_MAX_FACES]])

    def look(index: int) -> int:
        return -1 if surface.colours is not None or any(texture_slots(materials[index])) else index

    return _Flat(
        faces=faces,
        corners=corners[faces],
        normals=vectors[faces] / areas[faces, None],
        looks=by_material(surface.materials[faces], look),
    )


def _planes(flat: _Flat) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows (n,) of triangles and keys that are equal for those of one plane, per grid."""
    away = flat.corners.mean(axis=1) - np.array(_REFERENCE)
    distances = np.einsum("ij,ij->i", away, flat.normals)
    # A plane is known by its point next to the reference, whichever side is its front.
    cells = distances[:, None] * flat.normals / _CELL
    rows = np.arange(len(cells))
    for shift in (0.0, *_SHIFTS):
        keys = (np.floor(cells + shift).astype(np.int64) + (1 << 15)) @ (1 << np.array([32, 16, 0]))
        _, groups, counts = np.unique(keys, return_inverse=True, return_counts=True)
        several = counts[groups] > 1
        yield rows[several], groups[several]
        if not shift:
            near = (np.abs(cells - np.rint(cells)) < _NEAR).any(axis=1)
            rows, cells = rows[near], cells[near]


def _overlaps(flat: _Flat, rows: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    """Yield pairs (n, 2) of rows of triangles that overlap in a plane, among groups of them."""
    if not len(rows):
        return
    rows, points, strips = _sweep(flat, rows, groups)
    start, end = points.min(axis=1), points.max(axis=1)
    # In units in which strips do not overlap.
    ends = np.searchsorted(strips * 4.0 + start[:, 0], strips * 4.0 + end[:, 0] - _MARGIN)
    counts = np.maximum(ends - np.arange(len(rows)) - 1, 0)
    counts[np.cumsum(counts) > _MAX_TESTS] = 0
    stops = np.unique(np.searchsorted(np.cumsum(counts), np.arange(0, counts.sum(), _CHUNK)))
    for first, last in itertools.pairwise([*stops, len(rows)]):
        number = counts[first:last]
        one = np.repeat(np.arange(first, last), number)
        other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(number) - number, number)
        near = np.minimum(end[one, 1], end[other, 1]) > np.maximum(start[one, 1], start[other, 1])
        looks = flat.looks[rows]
        near &= (looks[one] != looks[other]) | (looks[one] < 0)
        one, other = one[near], other[near]
        same = _in_one_plane(flat, rows[one], rows[other])
        one, other = one[same], other[same]
        cover = _cover(points[one], points[other])
        yield np.sort(np.stack([rows[one], rows[other]], axis=1)[cover], axis=1)


def _sweep(
    flat: _Flat, rows: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, their corners (n, 3, 2) along an axis of their group, and numbers of strips.

    Every group is divided into strips, and a triangle is in all strips that it touches. They are
    sorted by strip, and by their beginning along it.
    """
    _, firsts, groups = np.unique(groups, return_index=True, return_inverse=True)
    axes = np.abs(flat.normals[rows[firsts]]).argmax(axis=1)[groups]
    columns = np.stack([(axes + 1) % 3, (axes + 2) % 3], axis=1)
    points = np.take_along_axis(flat.corners[rows], columns[:, None, :], axis=2)
    low, high = points[..., 1].min(axis=1), points[..., 1].max(axis=1)
    # Strips twice as wide as triangles on average, so that these are in less than two on average.
    widths = 2 * np.bincount(groups, high - low) / np.bincount(groups) + _MARGIN
    first, last = (np.floor(ends / widths[groups]).astype(np.int64) for ends in (low, high))
    numbers = last - first + 1
    copies = np.repeat(np.arange(len(rows)), numbers)
    strips = (
        first[copies] + np.arange(len(copies)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
    )
    strips = np.unique(groups[copies] * (1 << 20) + strips, return_inverse=True)[1]
    order = np.lexsort((points[copies, :, 0].min(axis=1), strips))
    return rows[copies[order]], points[copies[order]], strips[order]


def _in_one_plane(flat: _Flat, one: np.ndarray, other: np.ndarray) -> Bool[np.ndarray, "n"]:
    """Return whether the triangles of each pair are in one plane, that of either of them."""

    def inside(base: np.ndarray, rest: np.ndarray) -> np.ndarray:
        across = flat.corners[rest] - flat.corners[base, :1]
        distances = np.einsum("ikj,ij->ik", across, flat.normals[base])
        return (np.abs(distances) < _SAME_PLANE).all(axis=1)

    return inside(one, other) | inside(other, one)


def _cover(
    one: Float64[np.ndarray, "n 3 2"], other: Float64[np.ndarray, "n 3 2"]
) -> Bool[np.ndarray, "n"]:
    """Return whether the triangles of each pair overlap: no line along a side is between them."""
    result = np.ones(len(one), dtype=bool)
    for triangles in (one, other):
        sides = np.roll(triangles, -1, axis=1) - triangles
        across = np.stack([-sides[..., 1], sides[..., 0]], axis=-1)
        lengths = np.linalg.norm(across, axis=-1, keepdims=True)
        across /= np.where(lengths > 0, lengths, 1)
        first, second = (np.einsum("ikj,isj->isk", item, across) for item in (one, other))
        width = np.minimum(first.max(axis=2), second.max(axis=2))
        width -= np.maximum(first.min(axis=2), second.min(axis=2))
        result &= (width > _MARGIN).all(axis=1)
    return result
