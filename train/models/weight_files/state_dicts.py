"""The tensors of a weight file: .safetensors, or PyTorch's formats.

A file never takes more memory or time than a multiple of its own size: its values are mapped, not
copied, and what it states about sizes is checked first.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from core.errors import BadInput, first_line
from core.paths.regular_file import open_regular
from train.models.weight_files.pickle_machine import InvalidWeights
from train.models.weight_files.pickled_outline import StorageOutline, TensorOutline
from train.models.weight_files.torch_layouts import Layout, read_layout

__all__ = ["CONTAINERS", "join_keys", "read_state"]

CONTAINERS = ("state_dict", "weights")
"""Keys of the state dict in the files of Lightning and OpenLRM."""
_MAX_HEADER_BYTES = 8_000_000
"""Largest header of a .safetensors in bytes; a tensor needs about 100."""
_MAX_REPEATS = 4
"""How often the bytes of a file may be used by its tensors; tied weights use them twice."""
_MAX_LISTED = 6
"""Number of keys that an error message lists; the rest are counted."""
_MAX_KEY = 80
"""Number of characters of a key that an error message shows."""


def read_state(path: Path, containers: Sequence[str] = CONTAINERS) -> dict[str, Tensor]:
    """Return the state dict in a file; its tensors are mapped from the file.

    `containers` are the keys under which the state dict may be. Raises BadInput, which names the
    file, if it cannot be read, holds other values than tensors, or states sizes that it does not
    have.
    """
    try:
        with open_regular(path, "rb") as file:
            if path.suffix == ".safetensors":
                _check_header(file)
                return safetensors.torch.load_file(path)
            return _tensors(path, file, read_layout(file), containers)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such weight file") from None
    except (InvalidWeights, OSError, RuntimeError, safetensors.SafetensorError) as error:
        problem = getattr(error, "strerror", None) or first_line(error)
        raise BadInput(f"{path}: cannot be read as weights: {problem}") from None


def join_keys(keys: Sequence[str]) -> str:
    """Return the first of the keys for a message of one line, and the number of the others."""
    # A file may have keys of any length, and with any characters.
    shown = [
        repr(key)[1:-1] if len(key) <= _MAX_KEY else f"{key[:_MAX_KEY]!r}..."
        for key in keys[:_MAX_LISTED]
    ]
    return ", ".join(shown) + (f" and {len(keys) - len(shown)} more" if keys[_MAX_LISTED:] else "")


def _check_header(file: IO[bytes]) -> None:
    """Raise InvalidWeights if the header of a .safetensors is large or cut off."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= os.fstat(file.fileno()).st_size - 8:
        raise InvalidWeights("its header is damaged or cut off")
    if length > _MAX_HEADER_BYTES:
        raise InvalidWeights(f"its header has {length} bytes")


def _tensors(
    path: Path, file: IO[bytes], layout: Layout, containers: Sequence[str]
) -> dict[str, Tensor]:
    state = layout.content
    for name in containers:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping):
        raise BadInput(f"{path}: holds no state dict")
    others = [str(key) for key, value in state.items() if not isinstance(value, TensorOutline)]
    if others or not state:
        raise BadInput(f"{path}: holds no tensors under {join_keys(others) or 'any key'}")
    size = os.fstat(file.fileno()).st_size
    used = sum(tensor.numel * tensor.storage.dtype.itemsize for tensor in state.values())
    if used > _MAX_REPEATS * size:
        raise InvalidWeights(f"its tensors need {used} bytes, but it has only {size}")
    # Private: what is written to the tensors does not reach the file.
    mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    storages = {
        outline.storage.key: _values(mapped, layout.starts[outline.storage.key], outline.storage)
        for outline in state.values()
    }
    return {str(key): _tensor(storages[one.storage.key], one) for key, one in state.items()}


def _values(mapped: Tensor, start: int, storage: StorageOutline) -> Tensor:
    values = mapped[start : start + storage.nbytes]
    if start % storage.dtype.itemsize:
        values = values.clone()  # older files are not aligned
    return values.view(storage.dtype)


def _tensor(values: Tensor, outline: TensorOutline) -> Tensor:
    if not outline.numel:
        return torch.empty(outline.shape, dtype=values.dtype)
    offset = values.storage_offset() + outline.offset
    return values.as_strided(outline.shape, outline.stride, offset)
