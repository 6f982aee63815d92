"""The order of samples: a pure function of (seed, epoch, position), whoever asks and whenever."""

import hashlib
from collections.abc import Iterator
from itertools import islice

import numpy as np

__all__ = ["candidates_at", "permute", "sample_at", "sample_rng"]

_ROUNDS = 6


def permute(index: int, size: int, seed: tuple[int, ...]) -> int:
    """Where `index` goes in a pseudo-random permutation of range(size).

    A Feistel network over the next power of four, walked until it lands inside the range: O(1)
    memory for any size, where a stored permutation of 10^7 would cost 80 MB a worker.
    """
    if not 0 <= index < size:
        raise IndexError(f"index {index} is outside range({size})")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = _round_keys(seed)
    place = index
    while True:
        left, right = place >> half, place & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        place = left << half | right
        if place < size:
            return place


def sample_at(position: int, size: int, seed: int) -> int:
    """The sample at a position of the endless sequence: every epoch is its own permutation."""
    epoch, index = divmod(position, size)
    return permute(index, size, (seed, epoch))


def candidates_at(position: int, size: int, seed: int, most: int) -> Iterator[int]:
    """The sample at a position, then those that stand in for it should it be damaged.

    At most `most` of them, all different: neighbours in another permutation of the epoch.
    """
    epoch, index = divmod(position, size)
    first = sample_at(position, size, seed)
    yield first
    others = (permute((index + turn) % size, size, (seed, epoch, 1)) for turn in range(size))
    yield from islice((other for other in others if other != first), most - 1)


def sample_rng(seed: int, position: int) -> np.random.Generator:
    """The random numbers of the sample at a position: views, noise, augmentation."""
    return np.random.default_rng((seed, position))


def _round_keys(seed: tuple[int, ...]) -> list[int]:
    digest = hashlib.sha256(repr(seed).encode()).digest()
    return [int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(_ROUNDS)]


def _mix(value: int) -> int:
    """A 32-bit integer hash: two rounds of xor-shift and multiply by odd constants."""
    value = (value ^ (value >> 16)) * 0x9E3779B1 & 0xFFFFFFFF
    value = (value ^ (value >> 15)) * 0x85EBCA77 & 0xFFFFFFFF
    return value ^ (value >> 13)
