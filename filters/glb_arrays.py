"""Typed arrays of a GLB, bounds-checked (glTF 2.0 specification, section 3.6.2)."""

import numpy as np

from filters.glb import Glb, GlbRefused
from filters.gltf import Accessor, Sparse

__all__ = ["accessor_arrays"]

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


def accessor_arrays(glb: Glb, accessor: Accessor) -> list[np.ndarray]:
    """The stored arrays of an accessor, uncopied: its base values, its sparse replacements.

    An accessor of zeros has none. Raises GlbRefused(malformed) if the file does not hold them.
    """
    dtype = _COMPONENTS.get(accessor.component_type)
    width = _NUM_COMPONENTS.get(accessor.type)
    if dtype is None or width is None:
        text = f"accessor of component type {accessor.component_type}, {accessor.type[:20]!r}"
        raise GlbRefused("malformed", text)
    arrays = []
    if accessor.buffer_view is not None:
        view = glb.item(glb.gltf.buffer_views, accessor.buffer_view, "buffer view")
        start = accessor.byte_offset or 0
        shape = (accessor.count, width)
        arrays.append(_array(glb, accessor.buffer_view, start, shape, dtype, view.byte_stride))
    if accessor.sparse is not None:
        arrays.append(_sparse_values(glb, accessor, accessor.sparse, dtype, width))
    return arrays


def _sparse_values(
    glb: Glb, accessor: Accessor, sparse: Sparse, dtype: np.dtype, width: int
) -> np.ndarray:
    places = _COMPONENTS.get(sparse.indices.component_type or 0)
    if places is None or places.kind != "u" or sparse.count > accessor.count:
        raise GlbRefused("malformed", "a sparse accessor has impossible indices")
    start = sparse.indices.byte_offset or 0
    index = _array(glb, sparse.indices.buffer_view, start, (sparse.count, 1), places)
    if sparse.count and int(index.max()) >= accessor.count:
        raise GlbRefused("malformed", "a sparse accessor's index is out of range")
    start = sparse.values.byte_offset or 0
    return _array(glb, sparse.values.buffer_view, start, (sparse.count, width), dtype)


def _array(
    glb: Glb,
    view: int,
    start: int,
    shape: tuple[int, int],
    dtype: np.dtype,
    stride: int | None = None,
) -> np.ndarray:
    """Numbers of a buffer view, without copying them."""
    data = glb.view(view)
    row = dtype.itemsize * shape[1]
    step = stride or row
    if step < row or step % dtype.itemsize:
        raise GlbRefused("malformed", f"a stride of {step} bytes for elements of {row}")
    if shape[0] == 0:
        return np.empty(shape, dtype)
    if start + step * (shape[0] - 1) + row > len(data):
        raise GlbRefused("malformed", "an accessor ends beyond its buffer view")
    return np.ndarray(shape, dtype, data, start, (step, dtype.itemsize))
