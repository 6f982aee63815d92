"""A cached file is believed only if it is whole and of the object that is asked for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from train.data.latent_cache import LatentCache

SHAPES = {"targets": (2, 3), "embedding": (4,)}
KEYS = [torch.tensor([1, -2]), torch.tensor([3, 4])]


def tensors(seed: int) -> dict[str, torch.Tensor]:
    """Return the encodings of an object."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def flip(path: Path, _: Path) -> None:
    """Change one bit of the values."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "deleted": lambda path, _: path.unlink(),
    "emptied": lambda path, _: path.write_bytes(b""),
    "halved": lambda path, _: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeroed": lambda path, _: path.write_bytes(bytes(path.stat().st_size)),
    "a bit flipped": flip,
    "of another object": lambda path, other: shutil.copyfile(other, path),
    "without its origin": lambda path, _: safetensors.torch.save_file(tensors(0), path),
    "a folder": lambda path, _: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_encoded_again(damage: str, tmp_path: Path):
    cache = LatentCache(str(tmp_path), {"vae": "digest"}, SHAPES, torch.float32)
    paths = []
    for seed, key in enumerate(KEYS):
        cache.write(key, tensors(seed))
        paths += [path for path in tmp_path.rglob("*.safetensors") if path not in paths]
    read = cache.read(KEYS[0])
    assert read is not None
    assert all(torch.equal(read[name], value) for name, value in tensors(0).items())
    DAMAGES[damage](*paths)
    assert cache.read(KEYS[0]) is None
    assert cache.read(KEYS[1]) is not None
