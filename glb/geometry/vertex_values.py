"""Vertex attributes as numbers, and the triangles of a primitive (specification, section 3.7.2)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Shaped

from core.failures import FailureKind
from glb.accessors import accessor_numbers, accessor_type, accessor_values, stored_numbers
from glb.document import Document, Item, extension
from glb.extensions import DRACO
from glb.glb_error import GlbError, malformed

__all__ = ["DecodedMesh", "DracoDecoder", "PrimitiveValues", "read_primitive"]

_STRIP, _FAN, _TRIANGLES = 5, 6, 4


@dataclass(frozen=True, eq=False)
class DecodedMesh:
    """The arrays that a mesh decoder returns."""

    attributes: Mapping[int, Shaped[np.ndarray, "v _"]]
    """By the attribute's id in the compressed data."""
    indices: Shaped[np.ndarray, "n"]


DracoDecoder = Callable[[memoryview, Mapping[int, tuple[np.dtype, int]]], DecodedMesh]
"""(compressed bytes, component type and number of components by attribute id) -> arrays.

Raises GlbError (`import_error`) for data that it cannot decode.
"""


@dataclass(frozen=True, eq=False)
class PrimitiveValues:
    """The used vertices of a primitive and its triangles."""

    attributes: Mapping[str, Float64[np.ndarray, "v _"]]
    """By name, with normalised integers as numbers; only finite values."""
    targets: list[Mapping[str, Float64[np.ndarray, "v 3"]]]
    """Morph targets, with the same vertices."""
    faces: Int32[np.ndarray, "f 3"]


def read_primitive(
    document: Document, primitive: Item, names: set[str], draco: DracoDecoder
) -> PrimitiveValues | None:
    """Return the named attributes of a primitive, its morph targets and triangles.

    Vertices that no triangle uses are left out. Returns None for a primitive without triangles.
    Raises GlbError.
    """
    mode = _TRIANGLES if primitive.get("mode") is None else primitive["mode"]
    if mode not in (_TRIANGLES, _STRIP, _FAN) or "POSITION" not in primitive["attributes"]:
        return None
    names = names & primitive["attributes"].keys()
    attributes, corners = _read_arrays(document, primitive, names, draco)
    count = len(attributes["POSITION"])
    if any(len(values) < count for values in attributes.values()):
        raise malformed("an attribute does not have a value for each vertex")
    if corners is None:
        corners = np.arange(count)
    if len(corners) and int(corners.max()) >= count:
        raise malformed(f"an index is out of range for {count} vertices")
    targets = [
        _read_target(document, target, attributes) for target in primitive.get("targets") or []
    ]
    return _compact(attributes, targets, _triangles(corners.astype(np.int32), mode))


def _read_target(
    document: Document, target: Item, attributes: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the differences of positions and normals.

    Those of a wrong type, and of normals that the primitive does not have, have no effect.
    """
    count = len(attributes["POSITION"])
    values = {
        name: accessor_numbers(document, target[name], count)
        for name in ("POSITION", "NORMAL")
        if target.get(name) is not None and name in attributes
    }
    return {name: array for name, array in values.items() if array.shape == (count, 3)}


def _compact(
    attributes: Mapping[str, np.ndarray],
    targets: list[dict[str, np.ndarray]],
    faces: np.ndarray,
) -> PrimitiveValues:
    """Leave out vertices that no face uses: copies of them would cost memory and distort bounds."""
    used = np.zeros(len(attributes["POSITION"]), dtype=bool)
    used[faces] = True
    numbers = (np.cumsum(used) - 1).astype(np.int32)
    return PrimitiveValues(
        {name: values[: len(used)][used] for name, values in attributes.items()},
        [{name: values[used] for name, values in target.items()} for target in targets],
        numbers[faces],
    )


def _read_arrays(
    document: Document, primitive: Item, names: set[str], draco: DracoDecoder
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    compressed = extension(primitive, DRACO)
    ids = {} if compressed is None else compressed["attributes"]
    accessors = {name: _accessor(document, primitive, name) for name in sorted(names)}
    attributes = {
        name: stored_numbers(accessor_values(document, accessor), accessor)
        for name, accessor in accessors.items()
        if name not in ids
    }
    if compressed is None:
        index = primitive.get("indices")
        if index is None:
            return attributes, None
        return attributes, accessor_values(document, document.item("accessors", index))[:, 0]
    decoded = {name: accessor for name, accessor in accessors.items() if name in ids}
    types = {ids[name]: accessor_type(accessor) for name, accessor in decoded.items()}
    if len(types) < len(decoded):
        raise malformed(f"{DRACO}: two attributes have the same id")
    mesh = draco(document.view(compressed["bufferView"]), types)
    for name, accessor in decoded.items():
        attributes[name] = stored_numbers(mesh.attributes[ids[name]], accessor)
        if name == "POSITION" and not np.isfinite(mesh.attributes[ids[name]]).all():
            raise GlbError(FailureKind.MALFORMED, "a vertex position is not finite")
    if "POSITION" not in attributes:
        raise malformed(f"{DRACO}: it has no positions")
    return attributes, mesh.indices


def _accessor(document: Document, primitive: Item, name: str) -> Item:
    """Return the accessor of an attribute; integers of colours are normalised, as glTF requires."""
    accessor = document.item("accessors", primitive["attributes"][name])
    return accessor | {"normalized": True} if name.startswith("COLOR_") else accessor


def _triangles(corners: Int32[np.ndarray, "n"], mode: int) -> Int32[np.ndarray, "f 3"]:
    """Return the corners of each triangle of a list, strip or fan."""
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    first = np.arange(max(len(corners) - 2, 0))
    if mode == _FAN:
        return corners[np.stack([first + 1, first + 2, np.zeros_like(first)], axis=1)]
    odd = first % 2
    return corners[np.stack([first, first + 1 + odd, first + 2 - odd], axis=1)]
