"""Files of a store that are requested once: small ones, whole, and only if they are complete."""

from pathlib import Path

import pytest
from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem

from dataset.format.small_files import _SMALL, reading_small_files_once


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small").write_bytes(b"content")
    (tmp_path / "large").write_bytes(b"x" * (_SMALL + 1))
    return tmp_path


def open_folder(folder: Path, **sizes: int) -> FileSystem:
    files = SubTreeFileSystem(str(folder), LocalFileSystem())
    return reading_small_files_once(files, str(folder), sizes)


def read(files: FileSystem, name: str) -> bytes:
    with files.open_input_file(name) as file:
        return file.read()


def test_only_small_files_are_kept(folder: Path):
    files = open_folder(folder, small=7, large=_SMALL + 1)
    assert read(files, "small") == b"content"
    assert read(files, "large") == b"x" * (_SMALL + 1)
    for path in folder.iterdir():
        path.unlink()
    assert read(open_folder(folder, small=7), "small") == b"content"
    for name in ("large", "unknown"):
        with pytest.raises(FileNotFoundError):
            read(files, name)


def test_a_file_that_was_cut_off_is_read_again(folder: Path):
    files = open_folder(folder, small=7)
    (folder / "small").write_bytes(b"cont")
    with pytest.raises(OSError, match="small has 4 bytes instead of 7"):
        read(files, "small")
    (folder / "small").write_bytes(b"content")
    assert read(files, "small") == b"content"
