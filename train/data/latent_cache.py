"""What frozen encoders made of an object, kept on disk: the next run reads it instead.

A file per object. Files appear whole, and whoever writes one writes the same bytes: any number of
workers and runs may share a cache.
"""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Int
from torch import Tensor, nn

from core.config import digest
from core.storage import Storage, storage_errors
from dataset.snapshots.snapshot import Sample

__all__ = ["LatentCache", "key_of", "weight_digest"]

_log = logging.getLogger(__name__)


class LatentCache:
    """Tensors of fixed shapes by object."""

    def __init__(
        self,
        uri: str,
        made_by: Any,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: torch.dtype,
    ) -> None:
        """`made_by`: plain values that say all that the tensors depend on beside the object."""
        self.shapes, self.dtype = dict(shapes), dtype
        sizes = {name: list(shape) for name, shape in shapes.items()}
        self._folder = digest([made_by, sizes, str(dtype)])
        self._storage = Storage(uri)
        self._said = False

    def blank(self) -> dict[str, Tensor]:
        """Zeros in the place of what is not there."""
        return {name: torch.zeros(shape, dtype=self.dtype) for name, shape in self.shapes.items()}

    def read(self, key: Int[Tensor, "2"]) -> dict[str, Tensor] | None:
        """What is kept of an object; None if there is nothing that can be read."""
        try:
            found = safetensors.torch.load(self._storage.read(self._path(key)))
        except storage_errors(safetensors.SafetensorError):
            return None
        fits = {name: (tuple(v.shape), v.dtype) for name, v in found.items()}
        wanted = {name: (shape, self.dtype) for name, shape in self.shapes.items()}
        return found if fits == wanted else None

    def write(self, key: Int[Tensor, "2"], tensors: Mapping[str, Tensor]) -> None:
        """Keep them; where that fails it is said once, and training goes on without."""
        data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        try:
            self._storage.write(self._path(key), safetensors.torch.save(data))
        except storage_errors() as error:
            if not self._said:
                _log.warning("latents cannot be kept in %s: %s", self._storage.uri, error)
            self._said = True

    def _path(self, key: Int[Tensor, "2"]) -> str:
        name = "".join(f"{part & (2**64 - 1):016x}" for part in key.tolist())
        return f"{self._folder}/{name[:2]}/{name}.safetensors"


def key_of(sample: Sample) -> Int[Tensor, "2"]:
    """Names an object and the very render of it, as numbers that travel in a batch."""
    name = f"{sample.asset_id}/{sample.rig}/{sample.render_key}".encode()
    found = hashlib.sha256(name).digest()
    parts = [int.from_bytes(found[i : i + 8], "big", signed=True) for i in (0, 8)]
    return torch.tensor(parts, dtype=torch.int64)


def weight_digest(module: nn.Module) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a module's tensors and their names."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
    return found.hexdigest()[:16]
