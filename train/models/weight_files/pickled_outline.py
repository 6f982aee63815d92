"""The pickle of a PyTorch file, read as plain values and descriptions of tensors.

`torch.load(weights_only=True)` runs no code of a file, but a file may still make it allocate any
amount of memory: by `bytearray(10**12)`, by a tensor whose stride is 0, or by a string that is
encoded again and again. Here no instruction calls a library: each one makes a value that is about
as large as its bytes.
"""

import io
import pickletools
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

__all__ = ["MAX_PICKLE_BYTES", "InvalidWeights", "StorageOutline", "TensorOutline", "read_outline"]

MAX_PICKLE_BYTES = 4_000_000
"""Largest pickle in bytes. The names and shapes of 1,000 tensors need about 200,000."""
_MAX_INSTRUCTIONS = 500_000
"""Most instructions of a pickle; a tensor needs about 45."""
_MAX_DIMENSIONS = 16
_VALUES_OF_TENSORS = "storage"
"""First item of the persistent identifiers that PyTorch writes."""


class InvalidWeights(ValueError):
    """A weight file that is damaged, holds more than tensors, or states sizes it does not have."""


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
    try:
        return _Machine().run(stream)
    except InvalidWeights:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error):
        raise InvalidWeights("its pickle is damaged") from None


class _Mark:
    """The marker that opens a tuple, or the items of a list or dictionary."""


class _Machine:
    """A stack machine for the instructions that PyTorch writes."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, StorageOutline] = {}
        self._num_copied = 0
        """Number of items of lists that calls have copied."""

    def run(self, stream: io.BytesIO) -> Any:
        """Run the instructions up to the end of the pickle; return its value."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > _MAX_INSTRUCTIONS:
                raise InvalidWeights(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return self._stack.pop()
            instruction = _INSTRUCTIONS.get(opcode.name)
            if instruction is None:
                raise InvalidWeights(f"its pickle has the instruction {opcode.name}")
            instruction(self, argument)
        raise InvalidWeights("its pickle is cut off")

    def push(self, value: Any) -> None:
        """Push a constant."""
        self._stack.append(value)

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _tuple(self, size: int) -> None:
        items = tuple(self._stack[-size:])
        del self._stack[-size:]
        self._stack.append(items)

    def _items(self) -> list[Any]:
        """Pop the items above the newest mark, and the mark."""
        items = []
        while (item := self._stack.pop()) is not _Mark:
            items.append(item)
        return items[::-1]

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise InvalidWeights("its pickle appends to something that is no list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise InvalidWeights("its pickle sets items of something that is no dictionary")
        target |= _dict(zip(items[::2], items[1::2], strict=True))

    def _global(self, argument: str) -> None:
        name = argument.replace(" ", ".")
        if name not in _GLOBALS:
            raise InvalidWeights(
                f"it holds Python objects besides tensors ({name[:80]}), which are not loaded "
                "because that could run code; save only its state dict"
            )
        self._stack.append(_GLOBALS[name])

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Constructor) or not isinstance(arguments, tuple):
            raise InvalidWeights("its pickle calls something that makes no tensor")
        self._num_copied += sum(len(one) for one in arguments if isinstance(one, list))
        if self._num_copied > _MAX_INSTRUCTIONS:
            raise InvalidWeights("its pickle copies a list again and again")
        self._stack.append(function.make(*arguments))

    def _build(self, _: Any) -> None:
        """Skip the attributes of an object, such as the versions of a state dict's modules."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise InvalidWeights("its pickle sets attributes of something that is no state dict")

    def _storage(self, _: Any) -> None:
        storage = _storage_outline(*self._stack.pop())
        if self._storages.setdefault(storage.key, storage) != storage:
            raise InvalidWeights("it states two sizes or types of the same values")
        self._stack.append(storage)


def _storage_outline(
    kind: str, dtype: Any, key: str, _location: str, numel: int, view: Any = None
) -> StorageOutline:
    if kind != _VALUES_OF_TENSORS or not isinstance(dtype, torch.dtype) or view is not None:
        raise InvalidWeights("it has values in a form that is not known")
    if not isinstance(key, str) or not _is_count(numel):
        raise InvalidWeights("it states a number of values that is no number")
    return StorageOutline(dtype=dtype, key=key, numel=numel)


def _tensor_outline(
    storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> TensorOutline:
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, StorageOutline) or not all(map(_is_count, numbers)):
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


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**62


@dataclass(frozen=True)
class _Constructor:
    """A function whose result the machine makes itself."""

    make: Callable[..., Any]


def _dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    values = {}
    for key, value in pairs:
        # The hash of nested tuples may take time without limit.
        if not isinstance(key, str | int):
            raise InvalidWeights("its pickle has a dictionary with keys that are no names")
        values[key] = value
    return values


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
_GLOBALS: Mapping[str, Any] = MappingProxyType(
    {
        **{f"torch.{name}Storage": dtype for name, dtype in _STORAGES.items()},
        "collections.OrderedDict": _Constructor(_dict),
        "torch._utils._rebuild_tensor": _Constructor(_tensor_outline),
        "torch._utils._rebuild_tensor_v2": _Constructor(_tensor_outline),
        **dict.fromkeys(_KEPT, _Constructor(_same)),
    }
)
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "MARK": lambda: _Mark,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _pusher(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(make())


_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
_INSTRUCTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **{name: _pusher(make) for name, make in _CONSTANTS.items()},
    **dict.fromkeys(_VALUES, _Machine.push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine._put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine._get),
    "PROTO": lambda _machine, _: None,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "TUPLE": lambda machine, _: machine.push(tuple(machine._items())),
    "APPEND": lambda machine, _: machine._append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._items()),
    "SETITEM": lambda machine, _: machine._set([machine._stack.pop(-2), machine._stack.pop()]),
    "SETITEMS": lambda machine, _: machine._set(machine._items()),
    "GLOBAL": _Machine._global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._storage,
}
