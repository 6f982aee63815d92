"""Shells around a scene that are seen from inside only: outlines of cartoons, skies, rooms."""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool

from glb.document import Item
from glb.geometry.surface import Surface, grouped_faces
from render.blender.surfaces.axis_lines import AxisLines
from render.blender.surfaces.triangles import (
    area_vectors,
    centroids,
    relative_volumes,
    squares,
)
from render.blender.surfaces.welding import connected, weld

__all__ = ["inward_shells"]

_MIN_VOLUME = 2e-3
"""Relative volume (`relative_volumes`) that a shell has at least, inward. A cube has 0.068."""
_MAX_CANDIDATES = 256
_MAX_TESTS = 300_000_000
"""Of triangles, for all candidates, of which the largest are examined: about 5 s."""
_MIN_SIZE = 0.02
"""Of a shell, in sizes of the surface: smaller ones are a few pixels."""
_MIN_HIDING = 0.4
"""Share of the views of a shell along the axes in which its back is in front of everything. Three
sides of a box have 0.5, a room without a ceiling 0.8; the seats' side of a car's body 0.2."""
_MIN_FILLED = 0.6
"""Share of those in which something lies behind an outline: it follows a body."""
_MIN_OUTLINES = 0.75
"""Share of a material's area in outlines, from which it is a material of outlines."""
_MIN_CONVEX = 0.9
"""Share of the area of a room or sky that faces its centre. What it contains may be small."""
_MIN_CONTAINED = 0.5
"""Share of the area of everything else that is in its bounds: it contains the scene, not teeth."""


def inward_shells(surface: Surface, materials: Mapping[int, Item]) -> Bool[np.ndarray, "f"]:
    """Return a mask of the faces of shells that must be culled to see the object inside.

    A renderer that draws both sides of single-sided faces shows only the shell: a black body where
    a cartoon's outline is an inverted hull, a ball instead of the scene in a sky. A shell is a
    connected component of single-sided faces, within a material or across materials, that

    - faces inward: its volume about its centroid is negative;
    - hides other faces with its back: seen along the axes, its back is in front of everything in
      40 % of the picture;
    - follows a body that faces outward, which is behind 60 % of these (an outline), or is convex
      (90 % of its area faces its centre and what is inside) and contains half of everything else
      (a sky, a room).

    If a material consists of outlines by three quarters of its area, its other components that face
    inward are outlines, too: those of thin parts.

    So an object with reversed faces is no shell, nor is the inside of a mug or a car, which its
    outside hides. Larger shells are found before smaller ones.

    Limits: walls that do not share corners are not one room. An outline of open sheets has no
    volume. A convex reversed object that contains most of the scene cannot be told from a room, and
    of several rooms side by side none contains most. Alone, a shell smaller than 2 % of the bounds'
    diagonal is not found.
    """
    single = [index for index, item in materials.items() if not item.get("doubleSided")]
    shells = np.zeros(len(surface.faces), dtype=bool)
    components = _inward_components(surface, np.isin(surface.materials, single))
    if not components:
        return shells
    lines = AxisLines(surface)
    candidates = _largest(lines, components, len(surface.faces))
    body = ~_mask(surface, np.concatenate(components))
    outlines = shells.copy()
    for faces in candidates:
        if shells[faces].all():
            continue
        kind = _shell_kind(surface, faces, lines, shells, body)
        shells[faces] |= kind is not None
        outlines[faces] |= kind == "outline"
    return shells | _outlines_of_thin_parts(surface, outlines, components)


def _outlines_of_thin_parts(
    surface: Surface, outlines: np.ndarray, components: list[np.ndarray]
) -> np.ndarray:
    """Return a mask of the inward components of materials that consist mostly of outlines.

    The outline of an arm or a nose may be as thick as the part itself, which fills little of it.
    """
    mask = np.zeros(len(outlines), dtype=bool)
    if not outlines.any():
        return mask
    areas = np.sqrt(squares(area_vectors(surface)))
    num = int(surface.materials.max()) + 1
    total = np.bincount(surface.materials, areas, num)
    found = np.bincount(surface.materials, areas * outlines, num) > _MIN_OUTLINES * total
    for faces in components:
        if found[surface.materials[faces]].all():
            mask[faces] = True
    return mask


def _inward_components(surface: Surface, single_sided: np.ndarray) -> list[np.ndarray]:
    """Return the faces of each component that faces inward."""
    faces = np.flatnonzero(single_sided)
    if not len(faces):
        return []
    part = surface.select(single_sided)
    vectors, points = area_vectors(part), centroids(part)
    found: dict[tuple[int, int], np.ndarray] = {}
    for corners in _graphs(weld(surface)[faces], part.materials):
        num = int(corners.max()) + 1
        ends = corners[:, :2].T.ravel(), corners[:, 1:].T.ravel()
        components = connected(*ends, num)[corners[:, 0]]
        volumes = relative_volumes(points, vectors, components, num)
        inward = np.flatnonzero((volumes < -_MIN_VOLUME)[components])
        for rows in grouped_faces(components[inward]):
            group = inward[rows]
            found[int(group[0]), len(group)] = faces[group]
    return list(found.values())


def _largest(lines: AxisLines, components: list[np.ndarray], num_faces: int) -> list[np.ndarray]:
    """Return the components to examine, the largest first."""

    def size(faces: np.ndarray) -> float:
        low, high = lines.bounds(faces)
        return float(np.linalg.norm(high - low))

    limit = _MIN_SIZE * size(np.arange(num_faces))
    sized = [(size(faces), faces) for faces in components]
    large = sorted((item for item in sized if item[0] >= limit), key=lambda item: -item[0])
    return [faces for _, faces in large[: min(_MAX_CANDIDATES, _MAX_TESTS // num_faces)]]


def _graphs(welded: np.ndarray, materials: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the nodes (n, 3) of the corners: positions, then positions of each material."""
    yield welded
    if (materials != materials[0]).any():
        numbers = np.unique(materials, return_inverse=True)[1]
        nodes = welded * (numbers.max() + 1) + numbers[:, None]
        yield np.unique(nodes, return_inverse=True)[1].reshape(-1, 3)


def _mask(surface: Surface, faces: np.ndarray) -> np.ndarray:
    """Return a mask (f,) of some faces."""
    mask = np.zeros(len(surface.faces), dtype=bool)
    mask[faces] = True
    return mask


def _shell_kind(
    surface: Surface, faces: np.ndarray, lines: AxisLines, shells: np.ndarray, body: np.ndarray
) -> Literal["outline", "room"] | None:
    """Return which kind of shell a component that faces inward is, if it hides what is inside."""
    member = _mask(surface, faces)
    hiding, filled = _views(surface, faces, lines, member | ~shells, body)
    if hiding < _MIN_HIDING:
        return None
    if filled >= _MIN_FILLED:
        return "outline"
    return "room" if _contains_scene(surface, faces, lines, ~member & ~shells) else None


def _views(
    surface: Surface, faces: np.ndarray, lines: AxisLines, drawn: np.ndarray, body: np.ndarray
) -> tuple[float, float]:
    """Return in which share of its views a shell's back is in front, and a body behind that."""
    member = _mask(surface, faces)
    crossings = lines.cross(faces)
    crossed = np.zeros(int(crossings.lines.max(initial=0)) + 1, dtype=bool)
    crossed[crossings.lines[member[crossings.faces]]] = True
    crossings = crossings.select(crossed[crossings.lines] & drawn[crossings.faces])
    if not len(crossings.faces):
        return 0, 0
    # Along a line one enters the shell through a back, and leaves it through a front.
    signs = np.where(member[crossings.faces], np.where(crossings.along, 1, -1), 0)
    starts = np.flatnonzero(np.diff(crossings.lines, prepend=-1))
    ends = np.append(starts[1:], len(signs)) - 1
    lengths = ends - starts + 1
    entered = np.cumsum(signs)
    entered -= np.repeat(entered[starts] - signs[starts], lengths)
    entered_from_end = entered - np.repeat(entered[ends], lengths)
    content = body[crossings.faces] & lines.contained(faces, crossings.faces)
    hiding = filled = 0
    for first, back, inside in ((starts, 1, entered > 0), (ends, -1, entered_from_end > 0)):
        hides = signs[first] == back
        hiding += int(hides.sum())
        filled += int((hides & np.logical_or.reduceat(inside & content, starts)).sum())
    return hiding / (2 * len(starts)), filled / max(hiding, 1)


def _contains_scene(
    surface: Surface, shell: np.ndarray, lines: AxisLines, others: np.ndarray
) -> bool:
    """Return whether a shell is convex and contains most of the area of others, a mask (f,)."""
    own, rest = (surface.select(mask) for mask in (_mask(surface, shell), others))
    vectors, points = area_vectors(own), centroids(own)
    areas, other_areas = (np.sqrt(squares(item)) for item in (vectors, area_vectors(rest)))
    inside = lines.contained(shell, np.flatnonzero(others))
    contained = other_areas[inside]
    if contained.sum() <= _MIN_CONTAINED * other_areas.sum():
        return False
    content = contained @ centroids(rest)[inside] / contained.sum()
    for centre in (areas @ points / areas.sum(), content):
        facing = np.einsum("ij,ij->i", vectors, centre - points) > 0
        if areas[facing].sum() < _MIN_CONVEX * areas.sum():
            return False
    return True
