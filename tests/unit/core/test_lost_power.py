"""Writers of `core`: a loss of power at any step leaves the old content of a path or the new."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.atomic import atomic_folder, atomic_write, make_folder
from core.storage import Storage
from tests.support.disk_losses import losses_during

OLD, NEW = b"the old content", b"what replaces it"


def write_folder(folder: Path) -> None:
    with atomic_folder(folder / "deep" / "target") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_bytes(NEW)


def put(folder: Path) -> None:
    local = folder / "local"
    local.write_bytes(NEW)
    Storage(folder / "deep").put("target", local)


def delete(folder: Path) -> None:
    Storage(folder).delete("old", "other/old")


# A writer, and the files that it adds, replaces or deletes (None).
WRITERS: dict[str, tuple[Callable[[Path], object], dict[str, bytes | None]]] = {
    "new file": (lambda folder: atomic_write(folder / "a" / "b" / "c", NEW), {"a/b/c": NEW}),
    "replaced file": (lambda folder: atomic_write(folder / "old", NEW), {"old": NEW}),
    "first writer": (
        lambda folder: atomic_write(folder / "deep" / "c", NEW, overwrite=False),
        {"deep/c": NEW},
    ),
    "folder": (write_folder, {"deep/target/inner/file": NEW}),
    "write": (lambda folder: Storage(folder / "deep").write("a/b", NEW), {"deep/a/b": NEW}),
    "create": (lambda folder: Storage(folder).create("a/b", NEW), {"a/b": NEW}),
    "put": (put, {"deep/target": NEW}),
    "delete": (delete, {"old": None, "other/old": None}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_path_has_its_old_content_or_the_new_one_and_at_the_end_the_new_one(tmp_path, name):
    write, expected = WRITERS[name]
    for path in ("old", "other/old"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(OLD)
    before = {path: OLD if "old" in path else None for path in expected}
    losses = losses_during(tmp_path, lambda: write(tmp_path))
    assert sum(not loss.is_done for loss in losses) >= 2
    for loss in losses:
        for path, content in expected.items():
            allowed = {content} if loss.is_done else {content, before[path]}
            assert loss.tree.get(path) in allowed, (loss.what, path)
        assert not (loss.is_done and any(".tmp" in path for path in loss.tree)), loss.what


def test_files_are_durable_in_the_order_in_which_they_are_written(tmp_path):
    names = [f"folder{number % 2}/file{number}" for number in range(5)]

    def write() -> None:
        for name in names:
            Storage(tmp_path).write(name, NEW)

    for loss in losses_during(tmp_path, write):
        present = [loss.tree.get(name) == NEW for name in names]
        assert present == sorted(present, reverse=True), loss.what


def test_a_folder_is_created_with_all_its_parents(tmp_path):
    for loss in losses_during(tmp_path, lambda: make_folder(tmp_path / "a" / "b" / "c")):
        assert not loss.is_done or "a/b/c" in loss.tree, loss.what
