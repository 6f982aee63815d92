"""Vertex attributes that are infinite or not a number."""

from collections.abc import Sequence

import numpy as np

from glb.accessors import accessor_arrays
from glb.document import Document, Item
from glb.primitives import compressed_attributes

__all__ = ["sanitise_values"]


def sanitise_values(document: Document, primitives: Sequence[Item]) -> None:
    """Set values of normals, texture coordinates and the like that are not finite to 0, in place.

    Blender takes its own normals there. The parser refuses such positions.
    """
    found, changed = set(), False
    for primitive in primitives:
        attributes = primitive["attributes"]
        compressed = compressed_attributes(primitive)
        if "POSITION" in attributes:
            found |= {attributes[name] for name in attributes if name not in compressed}
    for index in sorted(found):
        for values in accessor_arrays(document, document.item("accessors", index)):
            odd = ~np.isfinite(values)
            if odd.any():
                values[odd], changed = 0, True
    if changed:
        document.store_buffers()
