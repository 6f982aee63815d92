"""The surface of a file's default scene, evaluated in double precision."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from core.failures import FailureKind
from glb.document import Document, Item, extension
from glb.extensions import INSTANCING
from glb.geometry.deformation import (
    Placed,
    Values,
    apply_targets,
    place,
    place_by_joints,
    skin_placements,
)
from glb.geometry.surface import Surface
from glb.geometry.vertex_values import DracoDecoder, PrimitiveValues, read_primitive
from glb.glb_error import GlbError
from glb.node_tree import NodeTree
from glb.placements import Placements, instance_matrices, world_placements
from glb.primitive_arrays import joint_sets

__all__ = ["SceneSurface", "scene_surface"]

_VECTORS = ("POSITION", "NORMAL")
_FARTHEST_UV = 2.0**24
"""Beyond, float32 has no fractions, and the tangents of normal maps overflow."""


@dataclass(frozen=True, eq=False)
class SceneSurface:
    """A surface, its materials, and how far from the origin the coordinates were on the way."""

    surface: Surface
    materials: Sequence[int]
    """Indices of the drawn materials in the document."""
    reach: Float64[np.ndarray, "p"]
    """Per part, a bound on every coordinate in the computation of its positions."""


def scene_surface(
    document: Document,
    tree: NodeTree,
    texture_sets: Mapping[int, Sequence[int]],
    max_triangles: int,
    draco: DracoDecoder,
) -> SceneSurface:
    """Return the triangles that a still picture of the default scene shows.

    `texture_sets` are the sets of texture coordinates that each material uses, in the order of
    `Surface.uvs`; every drawn primitive names one of these materials. Raises GlbError: `malformed`,
    `import_error` for undecodable compressed data, `too_large`, `refused` if coordinates exceed
    double precision, `empty` without a triangle.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        parts = _limited(_parts(document, tree, texture_sets, draco), max_triangles)
    if not parts:
        raise GlbError(FailureKind.EMPTY, "the scene has no triangle")
    if not all(np.isfinite(part.positions).all() for part in parts):
        raise GlbError(FailureKind.REFUSED, "coordinates are infinite or not a number")
    drawn = sorted({part.material for part in parts})
    reach = np.array([part.reach for part in parts])
    return SceneSurface(_joined(parts, drawn, texture_sets), drawn, reach)


@dataclass(frozen=True, eq=False)
class _Part:
    """One copy of a primitive in world axes (z up)."""

    positions: np.ndarray
    normals: np.ndarray
    values: Values
    faces: np.ndarray
    material: int
    reach: float


def _limited(parts: Iterable[_Part], max_triangles: int) -> list[_Part]:
    """Return all parts. Raises GlbError if they have too many triangles, which Draco data hides."""
    kept, total = [], 0
    for part in parts:
        kept.append(part)
        total += len(part.faces)
        if total > max_triangles:
            message = f"the scene has more than the limit of {max_triangles} triangles"
            raise GlbError(FailureKind.TOO_LARGE, message)
    return kept


def _parts(
    document: Document, tree: NodeTree, sets: Mapping[int, Sequence[int]], draco: DracoDecoder
) -> Iterator[_Part]:
    world = world_placements(document)
    skins: dict[int, Placements] = {}
    read: dict[tuple[int, bool], list[tuple[int, PrimitiveValues]]] = {}
    posed: dict[tuple[int, bool, tuple[float, ...]], list[Values]] = {}
    for index in tree.shown:
        node = document.item("nodes", index)
        if node.get("mesh") is None:
            continue
        mesh = document.item("meshes", node["mesh"])
        joints = _joints(document, node, world, skins)
        key = node["mesh"], joints is not None
        if key not in read:
            read[key] = list(_primitives(document, mesh, sets, draco, skinned=key[1]))
        weights = tuple(node.get("weights") or mesh.get("weights") or ())
        pose = (*key, weights)
        if pose not in posed:
            posed[pose] = [
                apply_targets(values.attributes, values.targets, weights) for _, values in read[key]
            ]
        copies = _copies(document, node, world[index])
        for (material, values), attributes in zip(read[key], posed[pose], strict=True):
            if joints is not None and "JOINTS_0" in attributes:
                reach = float(joints.farthest(attributes["POSITION"]).max(initial=0))
                placed = place_by_joints(attributes, joints)
                yield _part(placed, attributes, values.faces, material, reach)
                continue
            reaches = copies.farthest(attributes["POSITION"])
            for matrix, reach in zip(copies.matrices, reaches, strict=True):
                placed = place(attributes, matrix)
                yield _part(placed, attributes, values.faces, material, float(reach))


def _primitives(
    document: Document,
    mesh: Item,
    sets: Mapping[int, Sequence[int]],
    draco: DracoDecoder,
    skinned: bool,
) -> Iterator[tuple[int, PrimitiveValues]]:
    """Yield the material and the values of each primitive of a mesh that has triangles."""
    for primitive in mesh["primitives"]:
        material = primitive["material"]
        names = {*_VECTORS, "COLOR_0", *(f"TEXCOORD_{number}" for number in sets[material])}
        if skinned:
            numbers = joint_sets(primitive["attributes"])
            names |= {f"{name}_{number}" for name in ("JOINTS", "WEIGHTS") for number in numbers}
        values = read_primitive(document, primitive, names, draco)
        if values is not None and len(values.faces):
            yield material, values


def _joints(
    document: Document, node: Item, world: Placements, skins: dict[int, Placements]
) -> Placements | None:
    """Return the placements by the joints of a node's skin; an instanced mesh has none."""
    skin = node.get("skin")
    if skin is None or extension(node, INSTANCING) is not None:
        return None
    if skin not in skins:
        skins[skin] = skin_placements(document, skin, world)
    return skins[skin]


def _copies(document: Document, node: Item, placed: Placements) -> Placements:
    instances = instance_matrices(document, node)
    return placed if instances is None else placed.then(instances)


def _part(
    placed: Placed, attributes: Values, faces: np.ndarray, material: int, reach: float
) -> _Part:
    positions, normals, mirrored = placed
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 0)
    unit = np.where(usable, normals / np.where(usable, lengths, 1), 0)
    return _Part(
        _z_up(positions),
        _z_up(unit).astype(np.float32),
        {name: values for name, values in attributes.items() if name not in _VECTORS},
        _turn(faces, mirrored),
        material,
        reach,
    )


def _turn(faces: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Return faces with the order of corners reversed where a reflection reverses the front.

    A skin may mirror a part of a primitive: most corners of a face decide.
    """
    if len(mirrored) == 1 or not mirrored.any():
        return faces[:, ::-1] if mirrored.any() else faces
    turned = mirrored[faces].sum(axis=1, keepdims=True) > 1
    return np.where(turned, faces[:, ::-1], faces)


def _z_up(vectors: np.ndarray) -> np.ndarray:
    """Return vectors in axes with z up, from those of glTF with y up."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)


def _joined(
    parts: Sequence[_Part], materials: Sequence[int], sets: Mapping[int, Sequence[int]]
) -> Surface:
    numbers_of_materials = {index: number for number, index in enumerate(materials)}
    of_parts = [numbers_of_materials[part.material] for part in parts]
    counts = [len(part.faces) for part in parts]
    starts = np.cumsum([0, *(len(part.positions) for part in parts[:-1])])
    names = {name for part in parts for name in part.values}
    num_sets = max(len(sets[index]) for index in materials)
    numbers = np.arange(len(parts))
    flat = np.array([not part.normals.any() for part in parts])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=True)]
    return Surface(
        positions=np.concatenate([part.positions for part in parts]),
        normals=np.concatenate([part.normals for part in parts]),
        uvs={number: _texture_coordinates(parts, sets, number) for number in range(num_sets)},
        colours=_column(parts, ["COLOR_0"] * len(parts), 4, 1) if "COLOR_0" in names else None,
        faces=np.concatenate(faces).astype(np.int32),
        materials=np.repeat(of_parts, counts).astype(np.int32),
        parts=np.repeat(numbers, counts).astype(np.int32),
        flat=np.repeat(flat, counts),
    )


def _texture_coordinates(
    parts: Sequence[_Part], sets: Mapping[int, Sequence[int]], number: int
) -> np.ndarray:
    """Return the coordinates of each material's set at a place in its list."""
    of_parts = (sets[part.material] for part in parts)
    names = [f"TEXCOORD_{used[number]}" if number < len(used) else "" for used in of_parts]
    column = _column(parts, names, 2, 0)
    return np.clip(column, -_FARTHEST_UV, _FARTHEST_UV, out=column)


def _column(parts: Sequence[_Part], names: Sequence[str], width: int, default: float) -> np.ndarray:
    """Return an attribute of all vertices, named for each part; `default` where it is absent."""
    total = sum(len(part.positions) for part in parts)
    column = np.full((total, width), default, dtype=np.float32)
    start = 0
    for part, name in zip(parts, names, strict=True):
        values = part.values.get(name)
        end = start + len(part.positions)
        if values is not None:
            column[start:end, : values.shape[1]] = values
        start = end
    return column
