"""Damage to files: what a disk, a power loss or a person may do to one file or folder."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support import damages

__all__ = ["DAMAGES", "damage"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    **{name: work for name, work in damages.DAMAGES.items() if name != "replaced"},
    "deleted": _delete,
    "flipped": _flip,
}
"""Damages by name."""


def damage(path: Path, kind: str, other: Path | None = None) -> None:
    """Damage a file or folder; with the kind `replaced`, `other` takes its place."""
    if kind == "replaced":
        assert other is not None
        _delete(path)
        shutil.copytree(other, path) if other.is_dir() else shutil.copy(other, path)
    else:
        DAMAGES[kind](path)
