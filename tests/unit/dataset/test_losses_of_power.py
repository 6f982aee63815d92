"""Files of a dataset after a loss of power: whole or absent, and there once a function returns."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from core.storage import Storage
from dataset.build_records import read_records, recorded
from dataset.format.shards import index_path, read_index, read_members
from dataset.root import check_root, read_build, write_build
from dataset.snapshots.deletion import delete_snapshots
from dataset.snapshots.manifests import UnreadableSnapshot, manifests
from dataset.snapshots.protection import files_of_snapshots
from dataset.snapshots.snapshot import open_snapshot, write_snapshot
from tests.support.disk_losses import Loss, losses_during, write_tree
from tests.support.small_shards import content, small_sample, write_small_shard

SHARD = "shards/test/a.tar"


def create_snapshot(root: Storage, number: int, name: str) -> None:
    write_snapshot(root, [small_sample(number), small_sample(number + 1)], None, name=name)


def record_build(root: Storage) -> None:
    with recorded(root, "lrm build", {"new": True}):
        pass


def snapshots(root: Storage) -> list[tuple[list[str], int]]:
    """Return the names and the number of rows of every snapshot, all of which must be readable."""
    assert len(list(files_of_snapshots(root))) >= len(manifests(root))
    found = manifests(root)
    return sorted(
        (each["names"], len(open_snapshot(root, each["snapshot"]).samples)) for each in found
    )


def snapshots_after_deletion(root: Storage) -> list[tuple[list[str], int]]:
    """Return those of `snapshots`; an interrupted deletion is continued."""
    with contextlib.suppress(UnreadableSnapshot):
        return snapshots(root)
    delete_snapshots(root, ["old"], force=True)
    return snapshots(root)


def shard(root: Storage) -> list[dict[str, bytes]] | None:
    if not root.exists(index_path(SHARD)):
        return None
    entries, _ = read_index(root, SHARD)
    return [read_members(root, SHARD, entry, entry.members) for entry in entries]


def build(root: Storage) -> dict[str, Any] | None:
    return read_build(root) if check_root(root) else None


OLD, BUILD = (["old"], 2), {"config": {"rig": "orbit21"}}
# Work, what it changes, and the values before and after it.
WORK: dict[str, tuple[Callable[[Storage], Any], Callable[[Storage], Any], Any, Any]] = {
    "snapshot": (
        lambda root: create_snapshot(root, 5, "new"),
        snapshots,
        [OLD],
        [(["new"], 2), OLD],
    ),
    "same snapshot": (
        lambda root: create_snapshot(root, 1, "new"),
        snapshots,
        [OLD],
        [(["new", "old"], 2)],
    ),
    "delete a snapshot": (
        lambda root: delete_snapshots(root, ["old"], force=True),
        snapshots_after_deletion,
        [OLD],
        [],
    ),
    "shard": (
        lambda root: write_small_shard(root, SHARD, [1, 2]),
        shard,
        None,
        [content(1), content(2)],
    ),
    "first build": (lambda root: write_build(root, BUILD), build, None, BUILD),
    "record of a build": (
        record_build,
        lambda root: [each.get("outcome") for each in read_records(root)],
        [],
        ["done"],
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_work_is_there_as_a_whole_or_not_at_all_and_at_the_end_as_a_whole(tmp_path, name):
    do, read, before, after = WORK[name]
    disk, left = tmp_path / "disk", tmp_path / "left"
    (disk / "root").mkdir(parents=True)
    if "snapshot" in name:
        create_snapshot(Storage(disk / "root"), 1, "old")

    def value(loss: Loss, number: int) -> Any:
        folder = left / str(number)
        folder.mkdir(parents=True)
        write_tree(folder, loss.tree)
        return read(Storage(folder / "root"))

    losses = losses_during(disk, lambda: do(Storage(disk / "root")))
    values = [(loss, value(loss, number)) for number, loss in enumerate(losses)]
    allowed = [before, after, [None]] if name == "record of a build" else [before, after]
    for loss, found in values:
        assert found in ([after] if loss.is_done else allowed), loss.what
    assert before in [found for _, found in values]
