"""Temporary files and folders of killed writers are removed once they are old."""

import os
import time
from pathlib import Path

import pytest

from core.atomic import atomic_file, atomic_folder
from core.paths.leftovers import LEFTOVER_SECONDS, remove_leftovers


def make_old(path: Path) -> None:
    then = time.time() - LEFTOVER_SECONDS - 60
    os.utime(path, (then, then), follow_symlinks=False)


def temporary_names(folder: Path) -> list[str]:
    """Return the names that the writers of a file and of a folder use until they end."""
    with atomic_file(folder / "a.json") as file, atomic_folder(folder / "b") as inner:
        file.write_text("")
        return [file.name, inner.name]


def test_only_old_temporary_files_and_folders_are_removed(tmp_path: Path):
    of_file, of_folder = temporary_names(tmp_path / "other")
    folder = tmp_path / "folder"
    (folder / of_folder).mkdir(parents=True)
    (folder / of_folder / "file").write_text("")
    (folder / of_file).write_text("")
    kept = [".hidden", "a.json", "a.tmp-12345678", "b.tmp", f"{of_file}.txt"]
    for name in kept:
        (folder / name).write_text("")
    target = tmp_path / "target"
    target.mkdir()
    links = [".link.tmp", ".link.tmp-12345678"]
    for name in links:
        (folder / name).symlink_to(target)
    remove_leftovers(folder)
    assert {of_file, of_folder} <= {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        make_old(path)
    remove_leftovers(folder)
    assert {path.name for path in folder.iterdir()} == {*kept, *links}
    assert target.is_dir()


@pytest.mark.parametrize("name", ["missing", "file"])
def test_there_may_be_no_folder(tmp_path: Path, name: str):
    (tmp_path / "file").write_text("")
    remove_leftovers(tmp_path / name)
