"""Typed, bounds-checked arrays of a GLB (glTF 2.0 specification, section 3.6.2)."""

import sys

import numpy as np
from jaxtyping import Float64, Shaped

from glb.document import Document, Item
from glb.glb_error import malformed

__all__ = [
    "accessor_arrays",
    "accessor_numbers",
    "accessor_type",
    "accessor_values",
    "require_finite",
    "require_type",
    "stored_numbers",
]

_COMPONENTS: dict[int, np.dtype] = {
    5120: np.dtype("<i1"),
    5121: np.dtype("<u1"),
    5122: np.dtype("<i2"),
    5123: np.dtype("<u2"),
    5125: np.dtype("<u4"),
    5126: np.dtype("<f4"),
}
_NUM_COMPONENTS = {
    "SCALAR": 1,
    "VEC2": 2,
    "VEC3": 3,
    "VEC4": 4,
    "MAT2": 4,
    "MAT3": 9,
    "MAT4": 16,
}


def accessor_type(accessor: Item) -> tuple[np.dtype, int]:
    """Return an accessor's component type and its number of components. Raises GlbError."""
    dtype = _COMPONENTS.get(accessor["componentType"])
    width = _NUM_COMPONENTS.get(accessor["type"])
    if dtype is None or width is None:
        kind = f"{accessor['componentType']}, {accessor['type'][:20]!r}"
        raise malformed(f"accessor of component type {kind}")
    return dtype, width


def accessor_arrays(document: Document, accessor: Item) -> list[np.ndarray]:
    """Return the stored arrays of an accessor without copying: base values, then sparse values.

    The list is empty for an accessor of zeros. Raises GlbError (`malformed`) if the file does not
    contain the arrays.
    """
    dtype, width = accessor_type(accessor)
    arrays = []
    if accessor.get("bufferView") is not None:
        stride = document.item("bufferViews", accessor["bufferView"]).get("byteStride")
        arrays.append(_array(document, accessor, (accessor["count"], width), dtype, stride))
    if accessor.get("sparse") is not None:
        shape = len(_sparse_indices(document, accessor)), width
        arrays.append(_array(document, accessor["sparse"]["values"], shape, dtype))
    return arrays


def accessor_values(document: Document, accessor: Item, count: int | None = None) -> np.ndarray:
    """Return the first `count` values (n, components) of an accessor, sparse values applied.

    Without `count` all values, whose number the caller has limited. Raises GlbError (`malformed`)
    if the file does not contain them.
    """
    arrays = accessor_arrays(document, accessor)
    sparse = accessor.get("sparse")
    if sparse is None and arrays:
        return arrays[0][:count]
    dtype, width = accessor_type(accessor)
    number = accessor["count"] if count is None else min(count, accessor["count"])
    values = np.zeros((number, width), dtype)
    if accessor.get("bufferView") is not None:
        values[:] = arrays[0][:number]
    if sparse is not None:
        indices = _sparse_indices(document, accessor)[:, 0]
        values[indices[indices < number]] = arrays[-1][indices < number]
    return values


def accessor_numbers(
    document: Document, index: int, count: int | None = None
) -> Float64[np.ndarray, "n c"]:
    """Return an accessor's first `count` values as numbers; values that are not finite become 0."""
    accessor = document.item("accessors", index)
    return stored_numbers(accessor_values(document, accessor, count), accessor)


def stored_numbers(values: Shaped[np.ndarray, "n c"], accessor: Item) -> Float64[np.ndarray, "n c"]:
    """Return stored values of an accessor as numbers, with normalised integers in [-1, 1]."""
    numbers = values.astype(np.float64)
    if values.dtype.kind == "f":
        numbers[~np.isfinite(numbers)] = 0
    elif accessor.get("normalized"):
        numbers /= np.iinfo(values.dtype).max
        np.maximum(numbers, -1, out=numbers)
    return numbers


def require_type(accessor: Item, description: str, *types: str) -> None:
    """Raise GlbError (`malformed`) unless the accessor has one of the types."""
    if accessor["type"] not in types:
        actual = accessor["type"][:20]
        raise malformed(f"{description} of type {actual!r} instead of {' or '.join(types)}")


def require_finite(document: Document, accessor: Item, description: str) -> None:
    """Raise GlbError (`malformed`) if a stored value of an accessor is not finite."""
    if not all(np.isfinite(part).all() for part in accessor_arrays(document, accessor)):
        raise malformed(f"{description} is not finite")


def _sparse_indices(document: Document, accessor: Item) -> np.ndarray:
    sparse = accessor["sparse"]
    indices, count = sparse["indices"], sparse["count"]
    dtype = _COMPONENTS.get(indices["componentType"])
    if dtype is None or dtype.kind != "u" or count > accessor["count"]:
        raise malformed("a sparse accessor has invalid indices")
    index = _array(document, indices, (count, 1), dtype)
    if count and int(index.max()) >= accessor["count"]:
        raise malformed("a sparse accessor's index is out of range")
    return index


def _array(
    document: Document,
    part: Item,
    shape: tuple[int, int],
    dtype: np.dtype,
    stride: int | None = None,
) -> np.ndarray:
    """Return an array of a buffer view without copying it."""
    data = document.view(part["bufferView"])
    start, row = part.get("byteOffset") or 0, dtype.itemsize * shape[1]
    step = stride or row
    # numpy rejects larger strides, even for a single element.
    if not row <= step <= sys.maxsize or step % dtype.itemsize:
        raise malformed(f"a stride of {step} bytes is invalid for elements of {row} bytes")
    if shape[0] == 0:
        return np.empty(shape, dtype)
    if start + step * (shape[0] - 1) + row > len(data):
        raise malformed("an accessor ends beyond its buffer view")
    return np.ndarray(shape, dtype, data, start, (step, dtype.itemsize))
