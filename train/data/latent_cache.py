"""Cache of the frozen encoders' outputs, one file per object, shared by runs.

Files are written atomically, and every writer of a file writes the same bytes, so any number of
workers and runs may share a cache.
"""

import hashlib
import json
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
    """Stored tensors of fixed shapes, by object."""

    def __init__(
        self,
        uri: str,
        dependencies: Any,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: torch.dtype,
    ) -> None:
        """Open the cache at a URI.

        `dependencies` are plain values of all that the tensors depend on except the object, such
        as digests of the encoders' weights: other values use another folder.
        """
        self.shapes, self.dtype = dict(shapes), dtype
        sizes = {name: list(shape) for name, shape in shapes.items()}
        self._folder = digest([dependencies, sizes, str(dtype)])
        self._storage = Storage(uri)
        self._has_warned = False

    def zeros(self) -> dict[str, Tensor]:
        """Return zeros, the placeholder for an object that is not in the cache."""
        return {name: torch.zeros(shape, dtype=self.dtype) for name, shape in self.shapes.items()}

    def read(self, key: Int[Tensor, "2"]) -> dict[str, Tensor] | None:
        """Return the tensors of an object; None if they are missing, damaged or another's."""
        try:
            content = self._storage.read(self._path(key))
            tensors = safetensors.torch.load(content)
            stated = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        except storage_errors(safetensors.SafetensorError, ValueError):
            return None
        if stated.get("__metadata__") != _origin(key, tensors):
            return None
        actual = {name: (tuple(v.shape), v.dtype) for name, v in tensors.items()}
        expected = {name: (shape, self.dtype) for name, shape in self.shapes.items()}
        return tensors if actual == expected else None

    def write(self, key: Int[Tensor, "2"], tensors: Mapping[str, Tensor]) -> None:
        """Store the tensors of an object.

        If that fails, a warning is logged once, and training continues without the cache.
        """
        data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        try:
            self._storage.write(self._path(key), safetensors.torch.save(data, _origin(key, data)))
        except storage_errors() as error:
            if not self._has_warned:
                _log.warning(
                    "%s: cannot write to the latent cache, so latents are encoded again: %s",
                    *(self._storage.uri, error),
                )
            self._has_warned = True

    def _path(self, key: Int[Tensor, "2"]) -> str:
        name = _name(key)
        return f"{self._folder}/{name[:2]}/{name}.safetensors"


def key_of(sample: Sample) -> Int[Tensor, "2"]:
    """Return the cache key of a sample's object and render, as a tensor that fits into a batch.

    It is the first 128 bits of a SHA-256.
    """
    name = f"{sample.asset_id}/{sample.rig}/{sample.render_key}".encode()
    sha256 = hashlib.sha256(name).digest()
    parts = [int.from_bytes(sha256[i : i + 8], "big", signed=True) for i in (0, 8)]
    return torch.tensor(parts, dtype=torch.int64)


def _name(key: Int[Tensor, "2"]) -> str:
    return "".join(f"{part & (2**64 - 1):016x}" for part in key.tolist())


def _origin(key: Int[Tensor, "2"], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return what a file states about itself: its object, and the digest of its tensors."""
    return {"object": _name(key), "digest": _tensors_digest(tensors)}


def weight_digest(module: nn.Module) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a module's tensors and names."""
    return _tensors_digest(module.state_dict())


def _tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    sha256 = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha256.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        sha256.update(flat.view(torch.uint8).numpy().data)
    return sha256.hexdigest()[:16]
