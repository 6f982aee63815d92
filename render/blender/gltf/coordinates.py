"""Vertex attributes with infinite values or values that are not a number."""

from collections.abc import Sequence

import numpy as np

from glb.accessors import accessor_arrays
from glb.document import Document, Item
from glb.primitives import compressed_attributes

__all__ = ["sanitise_values"]


def sanitise_values(document: Document, primitives: Sequence[Item]) -> None:
    """Set non-finite values of normals, texture coordinates and so on to 0, in place.

    Blender computes normals for such vertices. The parser rejects non-finite positions.
    """
    accessors, changed = set(), False
    for primitive in primitives:
        attributes = primitive["attributes"]
        compressed = compressed_attributes(primitive)
        if "POSITION" in attributes:
            accessors |= {attributes[name] for name in attributes if name not in compressed}
    for index in sorted(accessors):
        for values in accessor_arrays(document, document.item("accessors", index)):
            invalid = ~np.isfinite(values)
            if invalid.any():
                values[invalid], changed = 0, True
    if changed:
        document.store_buffers()
