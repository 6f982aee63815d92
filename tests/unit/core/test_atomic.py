"""Atomic writes: a path has the old content or the new one, whatever fails in between."""

import errno
import os
from pathlib import Path

import pytest

from core.atomic import atomic_file, atomic_folder, atomic_write, move_file
from core.storage import Storage


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_its_temporary_name_is_hidden(tmp_path):
    target = tmp_path / "new" / "file"
    with atomic_file(target) as temporary:
        temporary.write_text("a")
        assert (temporary.parent, temporary.name[0]) == (target.parent, ".")
        assert Storage(str(target.parent)).list_files("") == []
        assert not target.exists()
    assert (names(target.parent), target.read_text()) == (["file"], "a")
    atomic_write(target, "é")
    assert target.read_bytes() == b"\xc3\xa9"


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path):
    atomic_write(tmp_path / "file", b"old")

    def fail() -> None:
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"old")


def test_without_overwriting_the_first_writer_wins(tmp_path):
    atomic_write(tmp_path / "file", b"first", overwrite=False)
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "file", b"second", overwrite=False)
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"first")


def test_concurrent_writers_of_a_file_use_different_temporary_names(tmp_path):
    with atomic_file(tmp_path / "file") as first, atomic_file(tmp_path / "file") as second:
        first.write_text("first")
        second.write_text("second")
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["file"], "first")


@pytest.mark.parametrize("sync", [True, False])
def test_content_is_flushed_before_its_name_and_its_folder_unless_readers_verify_it(
    tmp_path, monkeypatch, sync
):
    flushed: list[bool] = []
    fsync = os.fsync

    def record_fsync(descriptor: int) -> None:
        flushed.append((tmp_path / "file").exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    with atomic_file(tmp_path / "file", sync=sync) as temporary:
        temporary.write_text("a")
    assert flushed == [False, True] * sync


def test_a_folder_appears_whole_and_leftovers_of_a_killed_process_are_removed(tmp_path):
    leftover = tmp_path / "new" / ".folder.tmp"
    leftover.mkdir(parents=True)
    (leftover / "torn").touch()
    target = leftover.with_name("folder")
    target.mkdir()  # an empty folder may have the name
    with atomic_folder(target) as temporary:
        (temporary / "file").write_text("a")
        assert names(target) == []
    assert (names(target.parent), names(target)) == (["folder"], ["file"])


def test_a_folder_is_neither_replaced_nor_half_written(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(OSError, match="not empty"), atomic_folder(target) as temporary:
        (temporary / "file").touch()
    assert (names(tmp_path), names(target)) == (["folder"], ["old"])


@pytest.mark.parametrize("same_system", [True, False])
def test_a_file_moves_within_and_between_file_systems(tmp_path, monkeypatch, same_system):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("a")
    replace = Path.replace

    def replace_within_a_file_system(path: Path, to: Path) -> Path:
        if path == source and not same_system:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", replace_within_a_file_system)
    move_file(source, target)
    assert (names(tmp_path), target.read_text()) == (["target"], "a")


def test_a_reader_keeps_the_old_content_while_a_new_one_gets_the_name(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with target.open() as reader:
        with atomic_file(target) as temporary:
            temporary.write_text("new")
            inode = temporary.stat().st_ino
        assert (reader.read(), target.stat().st_ino) == ("old", inode)
    assert target.read_text() == "new"


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    target = tmp_path / ("n" * 251 + ".glb")
    atomic_write(target, b"data")
    assert target.read_bytes() == b"data"
    assert list(tmp_path.iterdir()) == [target]
