"""Damage to the files of a dataset or a run, in a copy that shares the other files."""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["DAMAGES", "copy_folder", "damages_of", "kinds_of_files"]

_NUMBER = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{8}T\d{6}Z|[0-9a-f]{12,}|\d{12,}"
)


def kinds_of_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files below a folder, relative to it, by kind: their path without ids."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder)
            kinds.setdefault(_kind(name), []).append(name)
    return kinds


def _kind(name: Path) -> str:
    folders = [(re.fullmatch("[0-9a-f]{2}", part) and "*") or part for part in name.parts[:-1]]
    file = "*.parquet" if "latest" in folders and name.suffix == ".parquet" else name.name
    return "/".join([*folders, _NUMBER.sub("*", file)])


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a folder with hard links; locks, which are written in place, are copied."""

    def copy(file: str, new: str) -> None:
        if file.endswith(".lock"):
            shutil.copyfile(file, new)
        else:
            os.link(file, new)

    shutil.copytree(source, target, copy_function=copy)
    return target


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replace(path: Path, data: bytes) -> None:
    """Put a file in the place of a file or folder; other links to the file keep their content."""
    _remove(path)
    path.write_bytes(data)


def _halve(path: Path) -> None:
    data = _content(path)
    _replace(path, data[: len(data) // 2])


def _zero(path: Path) -> None:
    _replace(path, bytes(len(_content(path))))


def _content(path: Path) -> bytes:
    """Return the content of a file; none of a folder."""
    return path.read_bytes() if path.is_file() else b""


def _folder(path: Path) -> None:
    _remove(path)
    path.mkdir()


def _loop(path: Path) -> None:
    """Put a link to itself in the place of a file: no user can open it, not even root."""
    _remove(path)
    path.symlink_to(path.name)


def _pipe(path: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def _wrong(path: Path) -> None:
    """Give a file the content of the next one of the same ending, or another JSON value."""
    for other in sorted(path.parent.glob(f"*{path.suffix}")):
        if other != path and other.is_file() and other.read_bytes() != _content(path):
            _replace(path, other.read_bytes())
            return
    _replace(path, b"[1, 2]\n" if path.suffix == ".json" else b"other\n")


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "deleted": _remove,
    "emptied": lambda path: _replace(path, b""),
    "halved": _halve,
    "zeroed": _zero,
    "made a folder": _folder,
    "unreadable": _loop,
    "made a pipe": _pipe,
    "replaced": _wrong,
}
"""Each damages the file or folder with this path; a hard link to it elsewhere keeps its content."""


def damages_of(path: Path) -> list[str]:
    """Return the damages with different results: a folder has no content to cut off or zero."""
    return [kind for kind in DAMAGES if path.is_file() or kind not in ("halved", "zeroed")]
