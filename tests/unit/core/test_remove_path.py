"""Whatever is at a path is removed, without opening pipes or following links."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from core.atomic import atomic_folder, flush
from core.paths.remove_path import remove_path
from core.range_cache import RangeCache
from core.storage import Storage
from pipelines.export import export_snapshot
from tests.support.checkpoints import write
from train.checkpoints.manifest import MANIFEST, hash_file
from train.checkpoints.pruning import prune

pytestmark = pytest.mark.timeout(20)


def make_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def make_tree(path: Path) -> None:
    """Make a folder that contains one entry of every other kind."""
    path.mkdir()
    for name, make in ENTRIES.items():
        if make is not make_tree:
            make(path / name)
    (path / "folder" / "deep").mkdir(parents=True)
    os.mkfifo(path / "folder" / "deep" / "pipe")


ENTRIES: Mapping[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "file": lambda path: path.write_text("content"),
    "tree": make_tree,
    "link to a folder": lambda path: path.symlink_to("/tmp"),
    "link to nothing": lambda path: path.symlink_to("missing"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
    "socket": make_socket,
}


def make_atomic_folder(path: Path) -> None:
    with atomic_folder(path.with_name(path.name.removeprefix(".").removesuffix(".tmp"))):
        pass


def prune_checkpoint(path: Path) -> None:
    write(path.parents[1], 4)
    prune(Storage(path.parent), 4, keep_newest=1, keep_every=0)


USERS: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "remove_path": ("entry", remove_path),
    "atomic_folder": (".entry.tmp", make_atomic_folder),
    "RangeCache": ("ranges-1", lambda path: RangeCache(path.parent, 2)),
    "prune": ("checkpoints/step-00000002", prune_checkpoint),
    "export": ("entry", lambda path: export_snapshot._write_folder(path, [("a", b"b")], {})),
}
"""The name of an entry, and the code that removes it."""


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that is the target of links, and check that its file is still there."""
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / MANIFEST).write_text("content")
    yield folder
    assert (folder / MANIFEST).read_text() == "content"


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_of_any_kind_is_removed(tmp_path: Path, target: Path, user: str, kind: str):
    name, remove = USERS[user]
    path = tmp_path / "work" / name
    path.parent.mkdir(parents=True)
    if kind == "link to a folder":
        path.symlink_to(target)
    else:
        ENTRIES[kind](path)
    remove(path)
    if user == "export":
        assert path.is_dir()
        assert not path.is_symlink()
        assert (path / "a").read_bytes() == b"b"
    else:
        assert not os.path.lexists(path)


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_removal_below_something_else_than_a_folder_does_nothing(tmp_path: Path, kind: str):
    ENTRIES[kind](tmp_path / "entry")
    if kind not in ("tree", "link to a folder", "link to itself"):
        remove_path(tmp_path / "entry" / "below")
        Storage(tmp_path).delete("entry/below")
    assert os.path.lexists(tmp_path / "entry") == (kind != "nothing")


def test_an_error_is_raised_unless_it_is_ignored(tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        remove_path(tmp_path / "loop" / "below")
    remove_path(tmp_path / "loop" / "below", ignore_errors=True)


@pytest.mark.parametrize("read", [flush, hash_file])
def test_a_pipe_is_an_error_for_code_that_opens_files(tmp_path: Path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"Invalid argument|named pipe"):
        read(tmp_path / "pipe")
