"""Values of vertices that are infinite or no numbers."""

from collections.abc import Iterator, Sequence

import numpy as np

from render.blender.failure import SceneFailure
from render.blender.gltf.container import Container
from render.blender.gltf.document import Item, extension, index, item, items, reference

__all__ = ["settle_odd_numbers"]

_DRACO = "KHR_draco_mesh_compression"
_FLOAT = 5126
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def settle_odd_numbers(container: Container, primitives: Sequence[Item]) -> None:
    """Set odd numbers of normals and texture coordinates to 0; Blender takes its own normals there.

    Raises SceneFailure (`refused`) for those of positions and bind matrices: Blender would move
    such vertices to the origin, without a word.
    """
    document = container.document
    for accessor in dict.fromkeys(_places(document, primitives)):
        for values in _floats(container, accessor):
            if not np.isfinite(values).all():
                raise SceneFailure("refused", "coordinates are infinite or no numbers")
    for accessor in dict.fromkeys(_looks(primitives)):
        for values in _floats(container, accessor):
            odd = ~np.isfinite(values)
            if odd.any():
                values[odd] = 0


def _places(document: Item, primitives: Sequence[Item]) -> Iterator[int]:
    """The accessors of what places vertices."""
    for primitive in primitives:
        for part in (_attributes(primitive), *items(primitive, "targets")):
            yield from _indices(part, ["POSITION"])
    for skin in items(document, "skins"):
        yield from _indices(skin, ["inverseBindMatrices"])


def _looks(primitives: Sequence[Item]) -> Iterator[int]:
    """The accessors of all other attributes."""
    for primitive in primitives:
        attributes = _attributes(primitive)
        yield from _indices(attributes, [name for name in attributes if name != "POSITION"])


def _indices(part: Item, names: Sequence[str]) -> Iterator[int]:
    found = [index(part, name) for name in names]
    return (number for number in found if number is not None)


def _attributes(primitive: Item) -> Item:
    """The attributes that lie in the file as they are."""
    compressed = extension(primitive, _DRACO) is not None
    return {} if compressed else reference(primitive, "attributes") or {}


def _floats(container: Container, number: int) -> Iterator[np.ndarray]:
    """The values (n, components) of an accessor of floats, and those that replace some of them."""
    accessor = item(container.document, "accessors", number)
    components = _COMPONENTS.get(str(accessor.get("type")))
    if accessor.get("componentType") != _FLOAT or components is None:
        return
    parts = [accessor]
    sparse = reference(accessor, "sparse")
    if sparse is not None:
        values = reference(sparse, "values") or {}
        parts.append(values | {"count": sparse.get("count")})
    for part in parts:
        if part.get("bufferView") is not None:
            yield _strided(container, part, components)


def _strided(container: Container, part: Item, components: int) -> np.ndarray:
    view = item(container.document, "bufferViews", part["bufferView"])
    stride = view.get("byteStride") or 4 * components
    try:
        return np.ndarray(
            (part["count"], components),
            "<f4",
            container.view(part["bufferView"]),
            part.get("byteOffset") or 0,
            (stride, 4),
        )
    except (OverflowError, TypeError, ValueError):
        raise SceneFailure("import_error", "an accessor does not fit its buffer view") from None
