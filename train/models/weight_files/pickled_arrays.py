"""Arrays in a pickle that Python 2 and numpy wrote, read without running it."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from core.paths.regular_file import open_regular
from train.models.weight_files.pickle_machine import (
    MAX_PICKLE_BYTES,
    Constructor,
    InvalidWeights,
    PickleMachine,
    is_count,
)

__all__ = ["PickledArray", "read_arrays"]

_TYPES = ("f4", "f8", "i4", "i8")
_MAX_DIMENSIONS = 4


class _Type:
    """A type of numbers, whose byte order follows in the pickle."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _TYPES:
            # The text of nested tuples may take memory without limit.
            name = code[:20] if isinstance(code, str) else "that is no text"
            raise InvalidWeights(f"its pickle has numbers of type {name}")
        self.code = code
        self.order = ""


class PickledArray:
    """An array, whose values follow in the pickle."""

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray | None = None


def read_arrays(path: Path) -> Any:
    """Return the value in a file: lists and tuples of plain values and `PickledArray`.

    Raises InvalidWeights for any other object, if the file is larger than any template's, and for
    arrays with other sizes than their bytes have; OSError if the file cannot be read.
    """
    with open_regular(path, "rb") as file:
        content = file.read(MAX_PICKLE_BYTES + 1)
    if len(content) > MAX_PICKLE_BYTES:
        raise InvalidWeights(f"it has more than {MAX_PICKLE_BYTES} bytes")
    return _ArrayMachine(len(content)).run(io.BytesIO(content))


class _ArrayMachine(PickleMachine):
    """Reads what numpy writes for arrays of numbers."""

    contents = "arrays"
    named: Mapping[str, Any] = MappingProxyType(
        {
            "numpy.core.multiarray._reconstruct": Constructor(PickledArray),
            "numpy.ndarray": None,  # an argument of the line before
            "numpy.dtype": Constructor(_Type),
        }
    )

    def __init__(self, num_bytes: int) -> None:
        super().__init__()
        self._bytes_left = num_bytes
        """A pickle may name the same bytes again and again."""

    def build(self, target: Any, attributes: Any) -> None:
        """Set the byte order of a type, or the values of an array."""
        if isinstance(target, _Type):
            target.order = attributes[1]
        elif isinstance(target, PickledArray):
            target.values = self._array(*attributes)
        else:
            super().build(target, attributes)

    def _array(
        self, _version: int, shape: tuple[int, ...], kind: _Type, is_fortran: Any, values: str
    ) -> np.ndarray:
        if not isinstance(kind, _Type) or kind.order != "<":
            raise InvalidWeights("its pickle has numbers in a form that is not known")
        if len(shape) > _MAX_DIMENSIONS or not all(map(is_count, shape)):
            raise InvalidWeights("it has an array with a size that is no number")
        dtype = np.dtype(kind.order + kind.code)
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes != len(values) or num_bytes > self._bytes_left:
            raise InvalidWeights(f"it has an array of shape {shape} without values for it")
        self._bytes_left -= num_bytes
        flat = np.frombuffer(values.encode("latin-1"), dtype)
        return flat.reshape(shape, order="F" if is_fortran else "C")
