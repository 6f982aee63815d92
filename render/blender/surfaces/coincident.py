"""Triangles at the same place: which of them are drawn, and in which order they lie."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from glb.document import Item
from glb.geometry.surface import Surface
from glb.shown_materials import texture_slots
from render.blender.surfaces.diagonals import align_diagonals
from render.blender.surfaces.layers import OPAQUE, by_material, drawing_modes, lift
from render.blender.surfaces.sheets import outward_choice
from render.blender.surfaces.welding import weld

__all__ = ["separate_coincident"]

_STEP = 1e-4
"""Distance of two layers in sizes of the surface: 0.03 pixels of 512. Rays of single precision tell
1e-6 apart."""
_MAX_SHIFT = 1e-3
"""Of the outermost layer."""
_COORDINATE_TOLERANCE = 1e-4
"""Of texture coordinates: less than half a texel of 4096."""
_COLOUR_TOLERANCE = 2e-3
"""Half a step of 8 bits."""
_MAX_LOOKS = 64
"""Different looks that are told apart at one place; more are taken as different from each other."""
_HASH = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
"""Odd numbers without a pattern."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stacks:
    """Triangles that share their corners' positions with others, sorted by place, then as drawn."""

    faces: Int64[np.ndarray, "n"]
    """Indices."""
    places: Int64[np.ndarray, "n"]
    """Numbers from 0."""
    corners: Int64[np.ndarray, "n 3"]
    """Numbers of the positions, ascending."""
    vertices: Int32[np.ndarray, "n 3"]
    """In the order of `corners`."""
    odd: Bool[np.ndarray, "n"]
    """Whether the triangle is wound against the order of `corners`."""
    modes: Int64[np.ndarray, "n"]
    """0 opaque, 1 MASK, 2 BLEND: the order of drawing."""


def separate_coincident(surface: Surface, materials: Mapping[int, Item]) -> Surface:
    """Return the surface without the triangles that others hide, and other layers set apart.

    A path tracer that meets several triangles at one distance picks any of them, or renders them
    black. This decides as a depth-tested renderer would (opaque before MASK before BLEND, each in
    the order of the file, a later triangle over an equally distant one), for triangles with the
    same three corners:

    - All look alike (material, texture coordinates, colours): the first is kept. If they are wound
      both ways, it is the first that faces outward (`sheets.outward_choice`).
    - Otherwise each of the two sides is a stack of its own, seen from its side. Of the opaque ones
      the last is kept. MASK and BLEND are kept, once each look, as layers over it.

    The layers of a stack lie 1e-4 of the longest side of the bounds apart along their normals, or
    closer if there are more than ten.

    Flat quads are divided along the same diagonal before (`align_diagonals`). Other triangles that
    overlap in part are not coincident here (`overlapping`), nor are those whose corners are closer
    than 1e-5 of the size.
    """
    welded = weld(surface)
    surface, welded = align_diagonals(surface, welded, ~_coincide(welded))
    stacks = _find_stacks(surface, welded, materials)
    if not len(stacks.faces):
        return surface
    looks = _looks(surface, materials, stacks)
    firsts = np.flatnonzero(np.diff(stacks.places, prepend=-1))
    alike = looks == firsts[stacks.places]
    alike = np.logical_and.reduceat(alike, firsts)[stacks.places]
    rows, shifts = _layers(stacks, looks, np.flatnonzero(~alike))
    kept = np.zeros(len(stacks.faces), dtype=bool)
    kept[_one_of_each(surface, stacks, np.flatnonzero(alike))] = True
    kept[rows] = True
    surface = lift(surface, stacks.faces[rows], shifts)
    mask = np.ones(len(surface.faces), dtype=bool)
    mask[stacks.faces[~kept]] = False
    return surface.select(mask)


def _coincide(welded: np.ndarray) -> np.ndarray:
    """Return which triangles (f,) may have the same three corners as others."""
    low, middle, high = np.sort(welded, axis=1).T
    # Equal keys of different triangles cost only time. Sorting is faster than `np.unique`.
    keys = low.astype(np.uint64) * _HASH[0] + middle.astype(np.uint64) * _HASH[1]
    keys += high.astype(np.uint64) * _HASH[2]
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return np.zeros(len(keys), dtype=bool)
    found = repeated[np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)] == keys
    # Triangles smaller than a cell are no more coincident than their neighbours.
    return found & (low < middle) & (middle < high)


def _find_stacks(surface: Surface, welded: np.ndarray, materials: Mapping[int, Item]) -> _Stacks:
    """Return the triangles whose three corners are those of another one, too."""
    faces = np.flatnonzero(_coincide(welded))
    low, middle, high = np.sort(welded[faces], axis=1).T
    num = int(high.max(initial=0)) + 1
    sides = np.unique(low * num + middle, return_inverse=True)[1]
    places = np.unique(sides * num + high, return_inverse=True)[1]
    modes = drawing_modes(surface.materials[faces], materials)
    order = np.lexsort((faces, surface.parts[faces], modes, places))
    faces, modes, places = faces[order], modes[order], places[order]
    corners = np.argsort(welded[faces], axis=1)
    return _Stacks(
        faces=faces,
        places=places,
        corners=np.take_along_axis(welded[faces], corners, axis=1),
        vertices=np.take_along_axis(surface.faces[faces], corners, axis=1),
        odd=(corners[:, 1] - corners[:, 0]) % 3 == 2,
        modes=modes,
    )


def _looks(surface: Surface, materials: Mapping[int, Item], stacks: _Stacks) -> np.ndarray:
    """Return for each row (n,) the first row of its place that looks the same."""
    numbers: dict[str, int] = {}
    for index, item in materials.items():
        numbers.setdefault(json.dumps(item | {"name": None}, sort_keys=True), index)
    indices = surface.materials[stacks.faces]
    names = by_material(
        indices,
        lambda index: numbers[json.dumps(materials[index] | {"name": None}, sort_keys=True)],
    )
    textured = by_material(indices, lambda index: any(texture_slots(materials[index])))
    looks = np.arange(len(stacks.faces))
    rows = looks.copy()
    for _ in range(_MAX_LOOKS):
        first = np.diff(stacks.places[rows], prepend=-1) != 0
        leaders = rows[np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))]
        alike = names[rows] == names[leaders]
        for corner in range(3):
            one, other = (stacks.vertices[ends, corner] for ends in (rows, leaders))
            for uvs in surface.uvs.values():
                near = (np.abs(uvs[one] - uvs[other]) <= _COORDINATE_TOLERANCE).all(axis=1)
                alike &= near | (textured[rows] == 0)
            if surface.colours is not None:
                near = np.abs(surface.colours[one] - surface.colours[other]) <= _COLOUR_TOLERANCE
                near[stacks.modes[rows] == OPAQUE, 3] = True
                alike &= near.all(axis=1)
        looks[rows[alike]] = leaders[alike]
        rows = rows[~alike & ~first]
        if not len(rows):
            break
    return looks


def _one_of_each(surface: Surface, stacks: _Stacks, rows: np.ndarray) -> np.ndarray:
    """Return the row to keep of each place, of places where all look alike."""
    if not len(rows):
        return rows
    starts = np.flatnonzero(np.diff(stacks.places[rows], prepend=-1))
    places = np.cumsum(np.diff(stacks.places[rows], prepend=-1) != 0) - 1
    first, odd = rows[starts], stacks.odd[rows]
    both = np.logical_or.reduceat(odd, starts) & np.logical_or.reduceat(~odd, starts)
    wanted = stacks.odd[first]
    if both.any():
        chosen = first[both]
        faces = stacks.faces[chosen]
        rank = np.lexsort((faces, surface.parts[faces], stacks.modes[chosen])).argsort()
        points = surface.positions[stacks.vertices[chosen]]
        wanted[both] = outward_choice(stacks.corners[chosen], points, wanted[both], rank)
    fitting = np.flatnonzero(odd == wanted[places])
    return rows[fitting[np.flatnonzero(np.diff(places[fitting], prepend=-1))]]


def _layers(stacks: _Stacks, looks: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to keep of places with different looks, and their shifts (n,) in sizes."""
    piles = stacks.places[rows] * 2 + stacks.odd[rows]
    rows = rows[np.argsort(piles, kind="stable")]
    opaque, rest = (rows[mask] for mask in (stacks.modes[rows] == OPAQUE, stacks.modes[rows] > 0))
    piles = stacks.places * 2 + stacks.odd
    last = np.flatnonzero(np.diff(piles[opaque], append=-1))
    _, first = np.unique(piles[rest] * len(looks) + looks[rest], return_index=True)
    kept = np.concatenate([opaque[last], rest[first]])
    kept = kept[np.lexsort((kept, piles[kept]))]
    _, starts, sizes = np.unique(piles[kept], return_index=True, return_counts=True)
    layers = np.arange(len(kept)) - np.repeat(starts, sizes)
    sizes = np.repeat(sizes, sizes)
    # The outermost layers of two sides are apart, too, and none is at the place of the other side.
    sided = np.bincount(stacks.places[kept], minlength=len(looks))[stacks.places[kept]] > sizes
    return kept, (layers + 0.5 * sided) * np.minimum(_STEP, _MAX_SHIFT / sizes)
