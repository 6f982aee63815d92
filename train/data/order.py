"""The order of samples: a pure function of (seed, epoch, position)."""

import hashlib
from collections.abc import Iterator
from itertools import islice

import numpy as np

__all__ = ["candidates_at", "permute", "sample_at", "sample_rng"]

_ROUNDS = 6
"""Rounds of the Feistel network."""


def permute(index: int, size: int, seed: tuple[int, ...]) -> int:
    """Return the image of `index` under a pseudo-random permutation of range(size).

    A Feistel network permutes the range up to the next power of four; it is applied until the
    result is inside range(size) (cycle walking). It needs O(1) memory, while a stored permutation
    of 10^7 indices would need 80 MB per worker.
    """
    if not 0 <= index < size:
        raise IndexError(f"index {index} is outside range({size})")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = _round_keys(seed)
    image = index
    while True:
        left, right = image >> half, image & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        image = left << half | right
        if image < size:
            return image


def sample_at(position: int, size: int, seed: int) -> int:
    """Return the index of the sample at a position; every epoch has its own permutation."""
    epoch, index = divmod(position, size)
    return permute(index, size, (seed, epoch))


def candidates_at(position: int, size: int, seed: int, limit: int) -> Iterator[int]:
    """Yield the sample at a position, then the replacement samples to try if it is damaged.

    At most `limit` different indices. The replacements are the neighbours of the position in
    another permutation of the epoch.
    """
    epoch, index = divmod(position, size)
    first = sample_at(position, size, seed)
    yield first
    others = (permute((index + offset) % size, size, (seed, epoch, 1)) for offset in range(size))
    yield from islice((other for other in others if other != first), limit - 1)


def sample_rng(seed: int, position: int) -> np.random.Generator:
    """Return the generator of the draws at a position: views, noise, augmentation."""
    return np.random.default_rng((seed, position))


def _round_keys(seed: tuple[int, ...]) -> list[int]:
    digest = hashlib.sha256(repr(seed).encode()).digest()
    return [int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(_ROUNDS)]


def _mix(value: int) -> int:
    """Return a 32-bit integer hash: two rounds of xor-shift and multiplication by odd constants."""
    value = (value ^ (value >> 16)) * 0x9E3779B1 & 0xFFFFFFFF
    value = (value ^ (value >> 15)) * 0x85EBCA77 & 0xFFFFFFFF
    return value ^ (value >> 13)
