"""The pickle of a PyTorch file, read as plain values and descriptions of tensors.

`torch.load(weights_only=True)` runs no code of a file, but a file may still make it allocate any
amount of memory: by `bytearray(10**12)`, by a tensor whose stride is 0, or by a string that is
encoded again and again. Here no instruction calls a library (`pickle_machine.py`).
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from train.models.weight_files.pickle_machine import (
    Constructor,
    InvalidWeights,
    PickleMachine,
    is_count,
    plain_dict,
)

__all__ = ["StorageOutline", "TensorOutline", "read_outline"]

_MAX_DIMENSIONS = 16
_VALUES_OF_TENSORS = "storage"
"""First item of the persistent identifiers that PyTorch writes."""


@dataclass(frozen=True, kw_only=True)
class StorageOutline:
    """The values that tensors share: their type, their key in the file and their number."""

    dtype: torch.dtype
    key: str
    numel: int

    @property
    def nbytes(self) -> int:
        """Number of bytes of the values."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class TensorOutline:
    """A tensor without its values. All of it is inside its storage, and no value is repeated."""

    storage: StorageOutline
    offset: int
    """Position of the first value in the storage."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of values."""
        product = 1
        for size in self.shape:
            product *= size
        return product


def read_outline(stream: io.BytesIO) -> Any:
    """Return the value of the next pickle of a stream.

    Dictionaries of every kind are `dict`, tensors `TensorOutline`. Raises InvalidWeights for any
    other object, and for a tensor that is not inside its storage.
    """
    return _OutlineMachine().run(stream)


def _storage_outline(
    kind: str, dtype: Any, key: str, _location: str, numel: int, view: Any = None
) -> StorageOutline:
    if kind != _VALUES_OF_TENSORS or not isinstance(dtype, torch.dtype) or view is not None:
        raise InvalidWeights("it has values in a form that is not known")
    if not isinstance(key, str) or not is_count(numel):
        raise InvalidWeights("it states a number of values that is no number")
    return StorageOutline(dtype=dtype, key=key, numel=numel)


def _tensor_outline(
    storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> TensorOutline:
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, StorageOutline) or not all(map(is_count, numbers)):
        raise InvalidWeights("it has a tensor with a size that is no number")
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS:
        raise InvalidWeights(f"it has a tensor of {len(shape)} dimensions")
    tensor = TensorOutline(storage=storage, offset=offset, shape=shape, stride=stride)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if tensor.numel and (last >= storage.numel or tensor.numel > storage.numel):
        raise InvalidWeights(
            f"it has a tensor of shape {shape} for which it has only {storage.numel} values"
        )
    return tensor


def _same(value: Any = None, *_: Any) -> Any:
    return value


_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
_KEPT = (
    *map(str, _STORAGES.values()),
    *("torch.Size", "torch.device", "torch._utils._rebuild_parameter"),
    *("torch._utils._rebuild_parameter_with_state", "__builtin__.set", "builtins.set"),
    *("collections.Counter", "_codecs.encode", "__builtin__.bytearray", "__builtin__.complex"),
)
"""Functions instead of whose result the first argument is kept, which is enough next to tensors."""


class _OutlineMachine(PickleMachine):
    """Reads what PyTorch writes."""

    contents = "tensors"
    remedy = "save only its state dict"
    named: Mapping[str, Any] = MappingProxyType(
        {
            **{f"torch.{name}Storage": dtype for name, dtype in _STORAGES.items()},
            "collections.OrderedDict": Constructor(plain_dict),
            "torch._utils._rebuild_tensor": Constructor(_tensor_outline),
            "torch._utils._rebuild_tensor_v2": Constructor(_tensor_outline),
            **dict.fromkeys(_KEPT, Constructor(_same)),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[str, StorageOutline] = {}

    def build(self, target: Any, attributes: Any) -> None:
        """Skip the attributes of an object, such as the versions of a state dict's modules."""
        if not isinstance(target, dict):
            raise InvalidWeights("its pickle sets attributes of something that is no state dict")

    def persistent(self, identifier: Any) -> StorageOutline:
        """Return the storage with an identifier."""
        storage = _storage_outline(*identifier)
        if self._storages.setdefault(storage.key, storage) != storage:
            raise InvalidWeights("it states two sizes or types of the same values")
        return storage
